package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/spillway/spillway/schemas"
	"github.com/twmb/avro"
)

// fuzzSchemas are picked by the first byte of a fuzz input.
func fuzzSchemas(f *testing.F) []*Codec {
	var all []*Codec
	for _, name := range slices.Sorted(maps.Keys(testSchemas)) {
		all = append(all, compiled(f, name))
	}
	all = append(all, compiled(f, `["null","boolean",{"type":"int","logicalType":"date"},{"type":"map","values":["null","double","bytes"]}]`))
	return all
}

const fuzzMax = 1 << 14

func known(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || schemas.Reason.Text(e.Reason) == "" || len(e.Error()) > 1<<15 {
		t.Fatalf("no error of the table: %v", err)
	}
}

// FuzzDecode: any bytes are an error of the table, or a value to the avro
// library too and JSON that is valid, bounded, and stands for the same bytes
// from then on.
func FuzzDecode(f *testing.F) {
	codecs := fuzzSchemas(f)
	for i := range codecs {
		f.Add(uint8(i), []byte("\x00\x00\x00\x00\x00"))
		f.Add(uint8(i), []byte("\x02\x02a\x02\x02\x04ab\x00\x02\x00\x00"))
	}
	var libraries []*avro.Schema
	for _, c := range codecs {
		libraries = append(libraries, avro.MustParse(c.Text()))
	}
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		c := codecs[int(which)%len(codecs)]
		skipErr := c.Skip(body)
		text, err := c.AppendJSON(nil, body, fuzzMax)
		if err != nil {
			known(t, err)
			return
		}
		if skipErr != nil {
			t.Fatalf("%x: decodes, but Skip says %v", body, skipErr)
		}
		if len(text) > fuzzMax || !json.Valid(text) {
			t.Fatalf("%x: JSON is %d bytes: %s", body, len(text), text)
		}
		var decoded any
		if rest, err := libraries[int(which)%len(codecs)].Decode(body, &decoded); err != nil || len(rest) > 0 {
			t.Fatalf("%x: the avro library does not decode it: %v", body, err)
		}
		again, err := c.AppendAvro(nil, text, fuzzMax)
		if err != nil {
			t.Fatalf("%x: AppendAvro(%s): %v", body, text, err)
		}
		if len(again) > 2*len(body)+16 { // a decimal of no bytes becomes one of one
			t.Fatalf("%x: canonical form %x is longer", body, again)
		}
		stable, err := c.AppendJSON(nil, again, fuzzMax)
		if err != nil || !bytes.Equal(stable, text) {
			t.Fatalf("%x: %s became %s, %v", body, text, stable, err)
		}
		for _, name := range c.Fields() {
			if _, _, err := c.Field(body, name); err != nil {
				t.Fatalf("%x: field %s: %v", body, name, err)
			}
		}
	})
}

// FuzzEncode: any text is an error of the table, or a body that decodes to
// JSON which stands for the same body. What encoding/json refuses is refused.
func FuzzEncode(f *testing.F) {
	codecs := fuzzSchemas(f)
	for i := range codecs {
		for _, text := range []string{`{}`, `[]`, `null`, `{"text":"hi","seq":"9007199254740993"}`, `{"v":1,"next":{"v":2}}`,
			`{"items":[{"sku":"\ud83d\ude00","price":1e3}],"labels":{"a":null},"u":"1"}`} {
			f.Add(uint8(i), []byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, text []byte) {
		c := codecs[int(which)%len(codecs)]
		body, err := c.AppendAvro(nil, text, fuzzMax)
		if err != nil {
			known(t, err)
			return
		}
		if !json.Valid(text) {
			t.Fatalf("%q is not JSON and was taken", text)
		}
		back, err := c.AppendJSON(nil, body, 16*fuzzMax)
		if err != nil {
			t.Fatalf("%s: %x does not decode: %v", text, body, err)
		}
		again, err := c.AppendAvro(nil, back, 16*fuzzMax)
		if err != nil || !bytes.Equal(again, body) {
			t.Fatalf("%s: %x became %x, %v", text, body, again, err)
		}
	})
}

// FuzzCompile: any text is a schema or an error of the table.
func FuzzCompile(f *testing.F) {
	for _, text := range testSchemas {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Compile(text)
		if err != nil {
			known(t, err)
			return
		}
		if _, err := c.AppendJSON(nil, []byte{0}, fuzzMax); err != nil {
			known(t, err)
		}
		if _, err := c.AppendAvro(nil, []byte(`{}`), fuzzMax); err != nil {
			known(t, err)
		}
	})
}
