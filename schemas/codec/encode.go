package codec

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"strconv"
	"sync"

	"github.com/spillway/spillway/schemas"
)

// encoder walks the tokens of one JSON text and appends Avro. Encoders are
// pooled for their token, slot and scratch memory.
type encoder struct {
	scanner
	dst     []byte
	limit   int     // len(dst) that may not be exceeded
	max     int     // for the error: bytes of Avro that limit allows
	trying  int     // > 0 while a union tries its branches: errors carry no text
	tries   int     // values looked at while trying; bounded, see budget
	slots   []int32 // stack: for each field of the records being written, its token
	scratch []byte  // the last unescaped string
}

var encoders = sync.Pool{New: func() any { return new(encoder) }}

// encode is AppendAvro with an encoder that may have been used before.
func (e *encoder) encode(n *node, dst, json []byte, max int) ([]byte, error) {
	if len(json) > max {
		return dst, tooLarge("JSON", max)
	}
	if err := e.scan(json); err != nil {
		return dst, err
	}
	e.trying, e.tries, e.slots = 0, 0, e.slots[:0]
	e.dst, e.limit, e.max = dst, len(dst)+max, max
	if err := e.value(n, 0); err != nil {
		return dst, err
	}
	if len(e.dst) > e.limit {
		return dst, tooLarge("Avro body", max)
	}
	return e.dst, nil
}

// release gives the encoder back, without memory that one huge input made it
// take.
func (e *encoder) release() {
	const keep = 1 << 16
	e.src, e.dst = nil, nil
	if cap(e.toks) <= keep && cap(e.scratch) <= keep && cap(e.slots) <= keep {
		encoders.Put(e)
	}
}

// budget bounds the work of trying union branches: a union inside a union
// inside … could otherwise cost a power of the depth.
func (e *encoder) budget() int { return 64*len(e.toks) + 4096 }

// text is the text of a string token; it is good until the next call.
func (e *encoder) text(t token) []byte {
	raw := e.src[t.start:t.end]
	if !t.escaped {
		return raw
	}
	e.scratch = appendUnescaped(e.scratch[:0], raw)
	return e.scratch
}

func (e *encoder) value(n *node, at uint32) *Error {
	t := e.toks[at]
	if e.trying > 0 {
		if e.tries++; e.tries > e.budget() {
			return &Error{Reason: schemas.TooLarge, Message: "unions in unions take too long to choose a branch"}
		}
	}
	if len(e.dst) > e.limit {
		return tooLarge("Avro body", e.max)
	}
	if !n.json.has(t.kind) {
		return e.wrongKind(n, t)
	}
	switch n.op {
	case opNull:
		return nil
	case opBool:
		e.dst = append(e.dst, byte(1-(t.kind-kindTrue)))
		return nil
	case opString:
		s := e.text(t)
		e.dst = append(binary.AppendVarint(e.dst, int64(len(s))), s...)
		return nil
	case opRecord:
		return e.record(n, at)
	case opUnion:
		return e.union(n, at)
	case opArray:
		return e.array(n, at)
	case opMap:
		return e.mapping(n, at)
	case opInt, opLong:
		return e.integer(n, t)
	case opFloat, opDouble:
		return e.float(n, t)
	}
	return e.logical(n, t)
}

func (e *encoder) integer(n *node, t token) *Error {
	v, ok := parseInteger(e.text(t), t.kind == kindNumber)
	if !ok || n.op == opInt && v != int64(int32(v)) {
		return e.wrongText(n, t)
	}
	e.dst = binary.AppendVarint(e.dst, v)
	return nil
}

// parseInteger reads an integer of 64 bits in JSON's notation. A number may
// also be written with a point or exponent if its value is an integer that a
// double holds exactly.
func parseInteger(s []byte, number bool) (int64, bool) {
	if len(s) > 32 || !isNumber(s) {
		return 0, false
	}
	v, err := strconv.ParseInt(string(s), 10, 64)
	if err == nil {
		return v, true
	}
	f, err := strconv.ParseFloat(string(s), 64)
	if !number || err != nil || f != math.Trunc(f) || math.Abs(f) > maxSafe {
		return 0, false
	}
	return int64(f), true
}

func (e *encoder) float(n *node, t token) *Error {
	bits := 64
	if n.op == opFloat {
		bits = 32
	}
	s := e.text(t)
	var v float64
	switch {
	case t.kind == kindNumber:
		var err error
		if v, err = strconv.ParseFloat(string(s), bits); err != nil {
			return e.wrongText(n, t)
		}
	case string(s) == "NaN":
		v = math.NaN()
	case string(s) == "Infinity":
		v = math.Inf(1)
	case string(s) == "-Infinity":
		v = math.Inf(-1)
	default:
		return e.wrongText(n, t)
	}
	if bits == 32 {
		e.dst = binary.LittleEndian.AppendUint32(e.dst, math.Float32bits(float32(v)))
	} else {
		e.dst = binary.LittleEndian.AppendUint64(e.dst, math.Float64bits(v))
	}
	return nil
}

// logical encodes enums, bytes, fixed and all logical types, which are all
// read from a text.
func (e *encoder) logical(n *node, t token) *Error {
	s := e.text(t)
	var v int64
	var ok bool
	switch n.op {
	case opBytes, opFixed:
		return e.base64(n, t, s)
	case opDecimal:
		return e.decimal(n, t, s)
	case opDuration:
		raw, ok := parseDuration(s)
		if !ok {
			return e.wrongText(n, t)
		}
		e.dst = append(e.dst, raw[:]...)
		return nil
	case opUUID:
		return e.uuid(n, t, s)
	case opEnum:
		var i int
		i, ok = n.index[string(s)]
		v = int64(i)
	case opDate:
		v, ok = parseDate(s)
	case opTime:
		v, ok = parseTimeOfDay(s, n)
	case opTimestamp, opLocalTimestamp:
		v, ok = parseTimestamp(s, n)
	}
	if !ok {
		return e.wrongText(n, t)
	}
	e.dst = binary.AppendVarint(e.dst, v)
	return nil
}

func (e *encoder) base64(n *node, t token, s []byte) *Error {
	size := base64.StdEncoding.DecodedLen(len(s))
	if len(s)%4 != 0 {
		return e.wrongText(n, t)
	}
	for i := len(s) - 1; i >= 0 && i >= len(s)-2 && s[i] == '='; i-- {
		size--
	}
	if n.op == opFixed && size != n.size {
		return e.wrongText(n, t)
	}
	start := len(e.dst)
	if n.op == opBytes {
		e.dst = binary.AppendVarint(e.dst, int64(size))
	}
	from := len(e.dst)
	out, err := strictBase64.AppendDecode(e.dst, s)
	if err != nil || len(out)-from != size { // a line break inside makes it shorter
		e.dst = e.dst[:start]
		return e.wrongText(n, t)
	}
	e.dst = out
	return nil
}

var strictBase64 = base64.StdEncoding.Strict()

func (e *encoder) decimal(n *node, t token, s []byte) *Error {
	var few [32]byte
	raw, ok := parseDecimal(few[:0], s, n)
	if !ok || n.wire == opFixed && len(raw) > n.size {
		return e.wrongText(n, t)
	}
	if n.wire == opBytes {
		e.dst = append(binary.AppendVarint(e.dst, int64(len(raw))), raw...)
		return nil
	}
	sign := byte(0)
	if raw[0] >= 0x80 {
		sign = 0xff
	}
	for range n.size - len(raw) {
		e.dst = append(e.dst, sign)
	}
	e.dst = append(e.dst, raw...)
	return nil
}

func (e *encoder) uuid(n *node, t token, s []byte) *Error {
	id, ok := parseUUID(s)
	if !ok {
		return e.wrongText(n, t)
	}
	if n.wire == opFixed {
		e.dst = append(e.dst, id[:]...)
		return nil
	}
	e.dst = append(binary.AppendVarint(e.dst, int64(len(s))), s...)
	return nil
}

func (e *encoder) record(n *node, at uint32) *Error {
	base := len(e.slots)
	for range n.fields {
		e.slots = append(e.slots, -1)
	}
	if err := e.members(n, at, base); err != nil {
		return err
	}
	for i := range n.fields {
		f := &n.fields[i]
		switch slot := e.slots[base+i]; {
		case slot >= 0:
			if err := e.value(f.node, uint32(slot)); err != nil {
				return e.inField(err, f, uint32(slot))
			}
		case f.optional:
			e.dst = append(e.dst, f.absent...)
			if len(e.dst) > e.limit {
				return tooLarge("Avro body", e.max)
			}
		default:
			return e.missing(f)
		}
	}
	e.slots = e.slots[:base]
	return nil
}

// members finds the token of each field, in whatever order they come.
func (e *encoder) members(n *node, at uint32, base int) *Error {
	key := at + 1
	for k := range int(e.toks[at].count) {
		name := e.text(e.toks[key])
		i, known := k, true
		if k >= len(n.fields) || n.fields[k].name != string(name) {
			i, known = n.byName[string(name)]
		}
		if !known {
			return e.unknown(n, string(name))
		}
		if e.slots[base+i] >= 0 {
			return e.repeated(string(name))
		}
		e.slots[base+i] = int32(key + 1)
		key = e.toks[key+1].next
	}
	return nil
}

func (e *encoder) array(n *node, at uint32) *Error {
	t := e.toks[at]
	if t.count > 0 {
		e.dst = binary.AppendVarint(e.dst, int64(t.count))
	}
	item := at + 1
	for i := range int(t.count) {
		if err := e.value(n.item, item); err != nil {
			return err.at(i)
		}
		item = e.toks[item].next
	}
	e.dst = append(e.dst, 0)
	return nil
}

func (e *encoder) mapping(n *node, at uint32) *Error {
	t := e.toks[at]
	if t.count > 0 {
		e.dst = binary.AppendVarint(e.dst, int64(t.count))
	}
	var keys keySet
	key := at + 1
	for range int(t.count) {
		name := e.text(e.toks[key])
		e.dst = append(binary.AppendVarint(e.dst, int64(len(name))), name...)
		// The key is looked at where it was written, for text moves.
		if !keys.add(e.dst[len(e.dst)-len(name):]) {
			return e.repeated(string(name))
		}
		if err := e.value(n.item, key+1); err != nil {
			return err.underKey(string(e.text(e.toks[key])))
		}
		key = e.toks[key+1].next
	}
	e.dst = append(e.dst, 0)
	return nil
}

// union writes the first branch that accepts the value. Where only one branch
// takes this kind of JSON, its error is the union's.
func (e *encoder) union(n *node, at uint32) *Error {
	kind := e.toks[at].kind
	only, several := -1, false
	for i, b := range n.branch {
		if b.json.has(kind) {
			several = only >= 0
			if several {
				break
			}
			only = i
		}
	}
	if !several {
		e.dst = binary.AppendVarint(e.dst, int64(only))
		return e.value(n.branch[only], at)
	}
	length, slots := len(e.dst), len(e.slots)
	for i, b := range n.branch {
		if !b.json.has(kind) {
			continue
		}
		e.dst = binary.AppendVarint(e.dst, int64(i))
		e.trying++
		err := e.value(b, at)
		e.trying--
		if err == nil || err.Reason != schemas.SchemaMismatch {
			return err
		}
		e.dst, e.slots = e.dst[:length], e.slots[:slots]
	}
	return e.wrongText(n, e.toks[at])
}
