package codec

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/spillway/spillway/schemas"
)

func wantError(t *testing.T, what string, err error, reason schemas.Reason, words string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Errorf("%s: error is %v", what, err)
		return
	}
	if e.Reason != reason || !strings.Contains(e.Error(), words) {
		t.Errorf("%s: got %s %q, want %s with %q", what, e.Reason, e.Error(), reason, words)
	}
}

func TestBodiesThatDoNotDecode(t *testing.T) {
	deep := strings.Repeat("0202", MaxDepth+1) + "0200"
	for _, c := range []struct{ schema, body, words string }{
		{"message", "", "text: body ends"},
		{"message", "0468", "text: body ends"},
		{"message", "0468690000000000", "1 bytes after"},
		{`"string"`, "02ff", "not UTF-8"},
		{`"string"`, "06eda080", "not UTF-8"},
		{`"string"`, "01", "length -1"},
		{`"string"`, "feffffffffffffffff01", "body ends"},
		{`"boolean"`, "02", "not 0 or 1"},
		{`"int"`, "8080808010", "more than 32 bits"},
		{`"long"`, "ffffffffffffffffff03", "more than 64 bits"},
		{`"long"`, "ffffffffffffffffffff01", "more than 64 bits"},
		{`"long"`, "80", "body ends"},
		{`["null","int"]`, "04", "no branch 2"},
		{`["null","int"]`, "01", "no branch -1"},
		{`{"type":"enum","name":"E","symbols":["A"]}`, "02", "no symbol 1"},
		{`{"type":"array","items":"int"}`, "0602", "3 items, 1 bytes"},
		{`{"type":"array","items":"int"}`, "ffffffffffffffffff01", "block of"},
		{`{"type":"array","items":"int"}`, "0100", "block of 1 items"},
		{`{"type":"array","items":"int"}`, "01040200", "does not have the length"},
		{`{"type":"array","items":"int"}`, "01ff0102", "bytes, "},
		{`{"type":"map","values":"int"}`, "04026102026104 00", "twice"},
		{`{"type":"map","values":"int"}`, "0202ff0200", "not UTF-8"},
		{`{"type":"int","logicalType":"date"}`, "feffffff0f", "years 0000 to 9999"},
		{`{"type":"int","logicalType":"time-millis"}`, "01", "time of day"},
		{`{"type":"long","logicalType":"timestamp-millis"}`, "feffffffffffffffff01", "years 0000 to 9999"},
		{`{"type":"bytes","logicalType":"decimal","precision":2,"scale":0}`, "0264", "more than 2 digits"},
		{`{"type":"string","logicalType":"uuid"}`, "0261", "no uuid"},
		{"list", deep, "nested deeper than"},
		{"nested", "02 02612800 00", "items[0].price"},
	} {
		body, err := hex.DecodeString(strings.ReplaceAll(c.body, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		codec := compiled(t, c.schema)
		if c.words == "items[0].price" {
			body = body[:3]
		}
		dst := []byte("kept")
		got, err := codec.AppendJSON(dst, body, 0)
		wantError(t, c.schema+" "+c.body, err, schemas.SchemaMismatch, c.words)
		if string(got) != "kept" {
			t.Errorf("%s: dst came back as %q", c.body, got)
		}
	}
}

// TestBombs decodes bodies that claim far more than they hold.
func TestBombs(t *testing.T) {
	count := binary.AppendVarint(nil, 1<<40)
	nulls := compiled(t, "nulls")
	_, err := nulls.AppendJSON(nil, append(count, 0), 1000)
	wantError(t, "nulls", err, schemas.TooLarge, "JSON exceeds 1000 bytes")
	if err := nulls.Skip(append(count, 0)); err != nil {
		t.Errorf("skipping nulls costs no time and is no error: %v", err)
	}
	huge := binary.AppendVarint(nil, math.MaxInt64)
	if err := nulls.Skip(append(huge, 0)); err != nil {
		t.Error(err)
	}
	// A record whose value takes no bytes and 2^30 texts.
	schema := `"null"`
	for _, name := range strings.Split("ABCDEFGHIJKLMNOPQRSTUVWXYZabcd", "") {
		schema = `{"type":"record","name":"` + name + `","fields":[{"name":"l","type":` + schema + `},{"name":"r","type":`
		if name == "A" {
			schema += `"null"}]}`
		} else {
			schema += `"` + string(prev(name)) + `"}]}`
		}
	}
	doubling := compiled(t, schema)
	_, err = doubling.AppendJSON(nil, nil, 1<<16)
	wantError(t, "doubling", err, schemas.TooLarge, "JSON exceeds")
	_, err = nulls.AppendJSON(nil, make([]byte, 11), 10)
	wantError(t, "long body", err, schemas.TooLarge, "Avro body exceeds 10 bytes")
}

func prev(name string) byte {
	if name == "a" {
		return 'Z'
	}
	return name[0] - 1
}

func TestLimitCountsWhatIsAppended(t *testing.T) {
	c := compiled(t, `"string"`)
	dst := make([]byte, 100)
	if _, err := c.AppendJSON(dst, []byte("\x08abcd"), 6); err != nil {
		t.Error(err)
	}
	_, err := c.AppendJSON(dst, []byte("\x08abcd"), 5)
	wantError(t, "JSON of 6 bytes", err, schemas.TooLarge, "JSON exceeds 5 bytes")
	if _, err := c.AppendAvro(dst, []byte(`"abcd"`), 6); err != nil {
		t.Error(err)
	}
	_, err = c.AppendAvro(dst, []byte(`"abcd"`), 5)
	wantError(t, "JSON of 6 bytes", err, schemas.TooLarge, "JSON exceeds 5 bytes")
	filled := compiled(t, `{"type":"array","items":{"type":"record","name":"R","fields":[{"name":"s","type":"string","default":"`+strings.Repeat("x", 1000)+`"}]}}`)
	_, err = filled.AppendAvro(nil, []byte("["+strings.Repeat("{},", 99)+"{}]"), 50_000)
	wantError(t, "defaults", err, schemas.TooLarge, "Avro body exceeds 50000 bytes")
}

func TestCompileRefuses(t *testing.T) {
	for _, c := range []struct{ schema, words string }{
		{`{`, "schema"},
		{`"nothing"`, "nothing"},
		{`{"type":"record","name":"A","fields":[{"name":"b","type":"other.B"}]}`, "other.B"},
		{`{"type":"bytes","logicalType":"decimal","precision":1001,"scale":0}`, "precision"},
		{strings.Repeat(" ", MaxSchemaText+1), "at most"},
		{`{"type":"record","name":"A","fields":[{"name":"s","type":"string","default":"` + strings.Repeat("x", maxDefault) + `"}]}`, "default of A.s"},
		{`{"type":"record","name":"A","fields":[{"name":"a","type":{"type":"record","name":"B","fields":[{"name":"s","type":"string","default":"` +
			strings.Repeat("x", 60_000) + `"}]}}` + repeatFields(20) + `]}`, "defaults exceed"},
	} {
		_, err := Compile(c.schema)
		wantError(t, clip(c.schema), err, schemas.SchemaUnsupported, c.words)
	}
}

func repeatFields(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`,{"name":"f` + strconv.Itoa(i) + `","type":"B","default":{}}`)
	}
	return b.String()
}

// TestNamespaces: a short name is looked for in the enclosing namespace, then
// without one; a dotted name is a full name.
func TestNamespaces(t *testing.T) {
	c := compiled(t, `{"type":"record","name":"a.b.R","fields":[
		{"name":"none","type":{"type":"enum","name":"E","namespace":"","symbols":["X"]}},
		{"name":"inner","type":{"type":"record","name":"In","fields":[
			{"name":"e","type":{"type":"enum","name":"E","symbols":["Y"]}},
			{"name":"back","type":["null","R"],"default":null}]}},
		{"name":"short","type":"E"},{"name":"full","type":"a.b.E"},
		{"name":"other","type":{"type":"record","name":"c.S","fields":[{"name":"e","type":"a.b.E"}]}}]}`)
	text := `{"none":"X","inner":{"e":"Y","back":null},"short":"Y","full":"Y","other":{"e":"Y"}}`
	body, err := c.AppendAvro(nil, []byte(text), 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.AppendJSON(nil, body, 0); err != nil || string(got) != text {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestName(t *testing.T) {
	if got := compiled(t, "message").Name(); got != "demo.Message" {
		t.Errorf("got %q", got)
	}
	if got := compiled(t, `"string"`).Name(); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestParseHeader(t *testing.T) {
	id, body, err := ParseHeader(append(AppendHeader(nil, 70000), "body"...))
	if id != 70000 || string(body) != "body" || err != nil {
		t.Errorf("got %d %q %v", id, body, err)
	}
	for value, words := range map[string]string{
		"": "does not begin", "\x00\x00\x00\x01": "5-byte header", `{"text":"hi"}`: "POST /v1/events",
		"\x01\x00\x00\x00\x01x": "does not begin", "\x00\x00\x00\x00\x00": "not positive", "\x00\xff\xff\xff\xff": "not positive",
		"Obj\x01....": "container",
	} {
		_, _, err := ParseHeader([]byte(value))
		wantError(t, value, err, schemas.NotWireFormat, words)
	}
}

func TestField(t *testing.T) {
	c := compiled(t, `{"type":"record","name":"R","fields":[
		{"name":"m","type":{"type":"map","values":{"type":"array","items":"string"}}},
		{"name":"chat","type":"string"},{"name":"n","type":["null","long"]},{"name":"none","type":["null","string"]},
		{"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]}},{"name":"d","type":"double"},
		{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"b","type":"boolean"},
		{"name":"l","type":"long"}]}`)
	body, err := c.AppendAvro(nil, []byte(`{"m":{"x":["1","2"],"y":[]},"chat":"42 é\n","n":7,"none":null,"e":"B","d":1.5,`+
		`"at":"2026-11-24T13:00:00.5Z","b":true,"l":"9007199254740993"}`), 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"chat": "42 é\n", "n": "7", "e": "B", "d": "1.5", "at": "2026-11-24T13:00:00.500Z", "l": "9007199254740993",
	} {
		if got, ok, err := c.Field(body, name); got != want || !ok || err != nil {
			t.Errorf("%s: got %q %v %v", name, got, ok, err)
		}
	}
	for _, name := range []string{"m", "none", "b", "nowhere"} {
		if got, ok, err := c.Field(body, name); got != "" || ok || err != nil {
			t.Errorf("%s: got %q %v %v", name, got, ok, err)
		}
	}
	_, _, err = c.Field(body[:12], "l")
	wantError(t, "truncated", err, schemas.SchemaMismatch, "body ends")
	if _, ok, err := compiled(t, `"string"`).Field([]byte("\x02a"), "x"); ok || err != nil {
		t.Errorf("got %v %v", ok, err)
	}
}
