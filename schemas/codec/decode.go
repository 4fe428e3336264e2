package codec

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"strconv"
)

// decoder walks one Avro body and appends JSON. It lives on the stack of
// AppendJSON.
type decoder struct {
	src   []byte
	pos   int
	dst   []byte
	limit int // len(dst) that may not be exceeded
	max   int // for the error: bytes of JSON that limit allows
	depth int
}

func (d *decoder) value(n *node) *Error {
	switch n.op {
	case opNull:
		d.dst = append(d.dst, "null"...)
		return nil
	case opRecord:
		return d.record(n)
	case opUnion:
		return d.union(n)
	case opArray:
		return d.array(n)
	case opMap:
		return d.mapping(n)
	case opString:
		s, err := d.bytes()
		if err != nil {
			return err
		}
		return d.text(s)
	case opEnum:
		i, err := d.long()
		if err != nil {
			return err
		}
		if i < 0 || i >= int64(len(n.quoted)) {
			return mismatch("%s has no symbol %d", n.says, i)
		}
		d.dst = append(d.dst, n.quoted[i]...)
		return nil
	case opLong:
		v, err := d.long()
		if err != nil {
			return err
		}
		d.dst = appendLong(d.dst, v)
		return nil
	case opInt:
		v, err := d.int()
		if err != nil {
			return err
		}
		d.dst = strconv.AppendInt(d.dst, v, 10)
		return nil
	case opBool, opFloat, opDouble:
		return d.fixedWidth(n)
	}
	return d.logical(n)
}

// fixedWidth decodes the types whose values all have one length.
func (d *decoder) fixedWidth(n *node) *Error {
	b, err := d.take(n.exact)
	if err != nil {
		return err
	}
	switch n.op {
	case opBool:
		switch b[0] {
		case 0:
			d.dst = append(d.dst, "false"...)
		case 1:
			d.dst = append(d.dst, "true"...)
		default:
			return mismatch("boolean is byte %d, not 0 or 1", b[0])
		}
	case opFloat:
		d.dst = appendFloat(d.dst, float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), 32)
	case opDouble:
		d.dst = appendFloat(d.dst, math.Float64frombits(binary.LittleEndian.Uint64(b)), 64)
	}
	return nil
}

// logical decodes bytes, fixed and all logical types.
func (d *decoder) logical(n *node) *Error {
	var raw []byte
	var v int64
	var err *Error
	switch n.wire {
	case opInt:
		v, err = d.int()
	case opLong:
		v, err = d.long()
	case opFixed:
		raw, err = d.take(n.size)
	default:
		raw, err = d.bytes()
	}
	if err != nil {
		return err
	}
	if len(raw) > d.limit-len(d.dst) {
		return d.tooLarge()
	}
	d.dst = append(d.dst, '"')
	switch n.op {
	case opBytes, opFixed:
		d.dst = base64.StdEncoding.AppendEncode(d.dst, raw)
	case opDate:
		d.dst, err = appendDate(d.dst, v)
	case opTime:
		d.dst, err = appendTimeOfDay(d.dst, v, n)
	case opTimestamp, opLocalTimestamp:
		d.dst, err = appendTimestamp(d.dst, v, n)
	case opDecimal:
		d.dst, err = appendDecimal(d.dst, raw, n)
	case opUUID:
		d.dst, err = appendUUID(d.dst, raw, n)
	case opDuration:
		d.dst = appendDuration(d.dst, raw)
	}
	d.dst = append(d.dst, '"')
	return err
}

func (d *decoder) record(n *node) *Error {
	if err := d.enter(); err != nil {
		return err
	}
	for i := range n.fields {
		f := &n.fields[i]
		d.dst = append(d.dst, f.key...)
		if err := d.value(f.node); err != nil {
			return err.under(f.name)
		}
		if len(d.dst) > d.limit {
			return d.tooLarge()
		}
	}
	if len(n.fields) == 0 {
		d.dst = append(d.dst, '{')
	}
	d.dst = append(d.dst, '}')
	d.depth--
	return nil
}

func (d *decoder) union(n *node) *Error {
	i, err := d.long()
	if err != nil {
		return err
	}
	if i < 0 || i >= int64(len(n.branch)) {
		return mismatch("union has no branch %d", i)
	}
	return d.value(n.branch[i])
}

func (d *decoder) array(n *node) *Error {
	if err := d.enter(); err != nil {
		return err
	}
	d.dst = append(d.dst, '[')
	index := 0
	for {
		b, err := d.block(n.item.least)
		if err != nil {
			return err
		}
		if b.count == 0 {
			break
		}
		for range b.count {
			if index > 0 {
				d.dst = append(d.dst, ',')
			}
			if err := d.value(n.item); err != nil {
				return err.at(index)
			}
			if len(d.dst) > d.limit {
				return d.tooLarge()
			}
			index++
		}
		if err := d.endBlock(b); err != nil {
			return err
		}
	}
	d.dst = append(d.dst, ']')
	d.depth--
	return nil
}

func (d *decoder) mapping(n *node) *Error {
	if err := d.enter(); err != nil {
		return err
	}
	d.dst = append(d.dst, '{')
	var keys keySet
	for {
		b, err := d.block(n.item.least + 1)
		if err != nil {
			return err
		}
		if b.count == 0 {
			break
		}
		for range b.count {
			if err := d.entry(n, &keys); err != nil {
				return err
			}
		}
		if err := d.endBlock(b); err != nil {
			return err
		}
	}
	d.dst = append(d.dst, '}')
	d.depth--
	return nil
}

func (d *decoder) entry(n *node, keys *keySet) *Error {
	key, err := d.bytes()
	if err != nil {
		return err
	}
	if !keys.add(key) {
		return mismatch("map has the key %q twice", clip(string(key)))
	}
	if d.dst[len(d.dst)-1] != '{' {
		d.dst = append(d.dst, ',')
	}
	if err := d.text(key); err != nil {
		return err
	}
	d.dst = append(d.dst, ':')
	if err := d.value(n.item); err != nil {
		return err.underKey(string(key))
	}
	if len(d.dst) > d.limit {
		return d.tooLarge()
	}
	return nil
}

// text appends s as a JSON string.
func (d *decoder) text(s []byte) *Error {
	if len(s) > d.limit-len(d.dst) {
		return d.tooLarge()
	}
	out, ok := appendQuoted(d.dst, s)
	if !ok {
		return mismatch("string is not UTF-8")
	}
	d.dst = out
	return nil
}

func (d *decoder) enter() *Error {
	d.depth++
	if d.depth > MaxDepth {
		return mismatch("nested deeper than %d", MaxDepth)
	}
	return nil
}

// A block is a run of array items or map entries: count, or minus count and
// the run's length in bytes (Avro specification, "Arrays").
type block struct {
	count int64
	end   int // where it must end, -1 if not said
}

// block reads the start of a run whose items take at least least bytes each.
func (d *decoder) block(least int) (block, *Error) {
	count, err := d.long()
	if err != nil {
		return block{}, err
	}
	b := block{count: count, end: -1}
	if count < 0 {
		if count == math.MinInt64 {
			return b, mismatch("block of %d items", count)
		}
		b.count = -count
		size, err := d.long()
		if err != nil {
			return b, err
		}
		if size < 0 || size > int64(len(d.src)-d.pos) {
			return b, mismatch("block of %d bytes, %d are left", size, len(d.src)-d.pos)
		}
		b.end = d.pos + int(size)
	}
	if least > 0 && b.count > int64((len(d.src)-d.pos)/least) {
		return b, mismatch("block of %d items, %d bytes are left", b.count, len(d.src)-d.pos)
	}
	return b, nil
}

func (d *decoder) endBlock(b block) *Error {
	if b.end >= 0 && b.end != d.pos {
		return mismatch("block does not have the length it says")
	}
	return nil
}

// long reads a zigzag varint of at most 64 bits.
func (d *decoder) long() (int64, *Error) {
	if d.pos < len(d.src) {
		if c := d.src[d.pos]; c < 0x80 {
			d.pos++
			return int64(c>>1) ^ -int64(c&1), nil
		}
	}
	v, n := binary.Varint(d.src[d.pos:])
	if n == 0 {
		return 0, truncated()
	}
	if n < 0 {
		return 0, mismatch("number of more than 64 bits")
	}
	d.pos += n
	return v, nil
}

func (d *decoder) int() (int64, *Error) {
	v, err := d.long()
	if err == nil && v != int64(int32(v)) {
		return 0, mismatch("int of more than 32 bits")
	}
	return v, err
}

// bytes reads a length and that many bytes.
func (d *decoder) bytes() ([]byte, *Error) {
	size, err := d.long()
	if err != nil {
		return nil, err
	}
	if size < 0 {
		return nil, mismatch("length %d", size)
	}
	if size > int64(len(d.src)-d.pos) {
		return nil, truncated()
	}
	return d.take(int(size))
}

func (d *decoder) take(size int) ([]byte, *Error) {
	if size > len(d.src)-d.pos {
		return nil, truncated()
	}
	b := d.src[d.pos : d.pos+size]
	d.pos += size
	return b, nil
}

func (d *decoder) tooLarge() *Error { return tooLarge("JSON", d.max) }

func truncated() *Error { return mismatch("body ends inside the value") }
