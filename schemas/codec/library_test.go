package codec

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/avro"
)

// A second opinion: random values are written by the avro library, and the
// codec's JSON is compared with JSON made slowly from what the library decodes.

// random makes a value that the library's Encode takes.
func random(r *rand.Rand, n *node, depth int) any {
	switch n.op {
	case opNull:
		return nil
	case opBool:
		return r.IntN(2) == 1
	case opInt:
		return int32(r.Uint32() >> r.IntN(32))
	case opLong:
		return int64(r.Uint64() >> r.IntN(64))
	case opFloat:
		return [...]float32{float32(r.NormFloat64()), math.MaxFloat32, float32(math.Inf(-1)), 0, 1e-7}[r.IntN(5)]
	case opDouble:
		return [...]float64{r.NormFloat64(), r.NormFloat64() * 1e25, math.Inf(1), math.Copysign(0, -1), 1e-300}[r.IntN(5)]
	case opString:
		return randomText(r)
	case opBytes:
		return []byte(randomText(r))
	case opFixed:
		return randomBytes(r, n.size)
	case opEnum:
		return n.symbols[r.IntN(len(n.symbols))]
	case opUnion:
		if depth > 4 && n.null >= 0 {
			return nil
		}
		return random(r, n.branch[r.IntN(len(n.branch))], depth)
	case opArray:
		items := []any{}
		for range r.IntN(5) * max(0, 4-depth) {
			items = append(items, random(r, n.item, depth+1))
		}
		return items
	case opMap:
		entries := map[string]any{}
		for range r.IntN(3) * max(0, 4-depth) {
			entries[randomText(r)] = random(r, n.item, depth+1)
		}
		return entries
	case opRecord:
		fields := map[string]any{}
		for _, f := range n.fields {
			fields[f.name] = random(r, f.node, depth+1)
		}
		return fields
	}
	return randomLogical(r, n)
}

func randomLogical(r *rand.Rand, n *node) any {
	day := r.Int64N(lastDay-firstDay) + firstDay
	at := day*secondsPerDay + r.Int64N(secondsPerDay)
	switch n.op {
	case opDate:
		return int32(day)
	case opTime:
		v := r.Int64N(secondsPerDay * n.unit)
		if n.wire == opInt {
			return int32(v)
		}
		return v
	case opTimestamp, opLocalTimestamp:
		if n.unit == 1e9 {
			return int64(r.Uint64())
		}
		return at*n.unit + r.Int64N(n.unit)
	case opDecimal:
		limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(r.IntN(n.precision))+1), nil)
		v := new(big.Int).Mod(new(big.Int).SetBytes(randomBytes(r, 40)), limit)
		if r.IntN(2) == 1 {
			v.Neg(v)
		}
		scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n.scale)), nil)
		return new(big.Rat).SetFrac(v, scale)
	case opUUID:
		b := randomBytes(r, 16)
		if n.wire == opFixed {
			return b
		}
		return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	}
	return randomBytes(r, n.size)
}

func randomBytes(r *rand.Rand, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func randomText(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(12) {
		b.WriteRune([]rune{'a', 'Z', '"', '\\', '\n', 0, 0x1f, 0x7f, 'é', '€', '😀', 0x2028, ' ', '/'}[r.IntN(14)])
	}
	return b.String()
}

// plainJSON makes the tree that encoding/json should read from the codec's
// text, out of what the library decoded.
func plainJSON(n *node, v any) any {
	switch n.op {
	case opUnion:
		for _, b := range n.branch {
			if (v == nil) == (b.op == opNull) && fits(b, v) {
				return plainJSON(b, v)
			}
		}
		panic(fmt.Sprintf("no branch for %T", v))
	case opRecord:
		out := map[string]any{}
		for _, f := range n.fields {
			out[f.name] = plainJSON(f.node, v.(map[string]any)[f.name])
		}
		return out
	case opArray:
		out := []any{}
		for _, item := range v.([]any) {
			out = append(out, plainJSON(n.item, item))
		}
		return out
	case opMap:
		out := map[string]any{}
		for k, item := range v.(map[string]any) {
			out[k] = plainJSON(n.item, item)
		}
		return out
	case opLong:
		if l := v.(int64); l > 1<<53 || l < -1<<53 {
			return strconv.FormatInt(l, 10)
		}
		return json.Number(strconv.FormatInt(v.(int64), 10))
	case opInt:
		return json.Number(strconv.Itoa(int(v.(int32))))
	case opFloat:
		return plainFloat(float64(v.(float32)), v)
	case opDouble:
		return plainFloat(v.(float64), v)
	case opBytes, opFixed:
		return base64.StdEncoding.EncodeToString(reflect.ValueOf(v).Bytes())
	}
	return plainLogical(n, v)
}

func plainFloat(f float64, v any) any {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	text, _ := json.Marshal(v)
	return json.Number(text)
}

func plainLogical(n *node, v any) any {
	fraction := strings.Repeat("0", n.digits)
	switch n.op {
	case opDate:
		return v.(time.Time).UTC().Format("2006-01-02")
	case opTime:
		return time.Time{}.Add(v.(time.Duration)).Format("15:04:05." + fraction)
	case opTimestamp:
		return v.(time.Time).UTC().Format("2006-01-02T15:04:05." + fraction + "Z")
	case opLocalTimestamp:
		return v.(time.Time).UTC().Format("2006-01-02T15:04:05." + fraction)
	case opDecimal:
		return v.(*big.Rat).FloatString(n.scale)
	case opUUID:
		if b, ok := v.([16]byte); ok {
			return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
		}
	case opDuration:
		d := v.(avro.Duration)
		return string(appendDuration(nil, append(append(le32(d.Months), le32(d.Days)...), le32(d.Milliseconds)...)))
	}
	return v
}

func le32(v uint32) []byte { return []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)} }

// fits tells the branches of the test schemas' unions apart by Go type.
func fits(n *node, v any) bool {
	switch v.(type) {
	case int64:
		return n.op == opLong
	case string:
		return n.op == opString || n.op == opEnum
	case bool:
		return n.op == opBool
	case map[string]any:
		return n.op == opRecord || n.op == opMap
	case float32:
		return n.op == opFloat
	case time.Time:
		return n.op == opTimestamp
	}
	return v == nil
}

func TestAgainstLibrary(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for name, text := range testSchemas {
		codec, library := compiled(t, name), avro.MustParse(text)
		for range 300 {
			body, err := library.Encode(random(r, codec.root, 0))
			if err != nil {
				t.Fatalf("%s: library: %v", name, err)
			}
			got, err := codec.AppendJSON(nil, body, 0)
			if err != nil {
				t.Fatalf("%s: AppendJSON(%x): %v", name, body, err)
			}
			var decoded any
			if rest, err := library.Decode(body, &decoded); err != nil || len(rest) > 0 {
				t.Fatalf("%s: library: %v", name, err)
			}
			sameTree(t, name, got, plainJSON(codec.root, decoded))
			again, err := codec.AppendAvro(nil, got, 0)
			if err != nil || !bytes.Equal(again, body) {
				t.Fatalf("%s: AppendAvro(%s)\n got %x, %v\nwant %x", name, got, again, err, body)
			}
			if err := codec.Skip(body); err != nil {
				t.Fatalf("%s: Skip(%x): %v", name, body, err)
			}
		}
	}
}

func sameTree(t *testing.T, name string, text []byte, want any) {
	t.Helper()
	var got any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&got); err != nil {
		t.Fatalf("%s: %s: %v", name, text, err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s:\n got %v\nwant %v", name, got, want)
	}
}

// TestDefaultsAgainstLibrary: `{}` and an empty Go map become the same bytes.
func TestDefaultsAgainstLibrary(t *testing.T) {
	codec, library := compiled(t, "defaults"), avro.MustParse(defaultsSchema)
	got, err := codec.AppendAvro(nil, []byte(`{"n":"given","z":null}`), 0)
	if err != nil {
		t.Fatal(err)
	}
	want, err := library.Encode(map[string]any{"n": "given", "z": nil})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}
