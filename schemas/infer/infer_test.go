package infer

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/spillway/spillway/schemas/codec"
)

func compact(t *testing.T, s string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(s)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestInfer(t *testing.T) {
	for _, c := range []struct{ name, examples, fields string }{
		{"scalars", `{"a":1,"b":1.5,"c":"x","d":true,"e":null}`,
			`{"name":"a","type":"long"},{"name":"b","type":"double"},{"name":"c","type":"string"},{"name":"d","type":"boolean"},` +
				`{"name":"e","type":["null","string"],"default":null}`},
		{"missing and null", "{\"a\":1,\"b\":\"x\"}\n{\"a\":null}\n{\"a\":2,\"b\":\"y\",\"c\":true}",
			`{"name":"a","type":["null","long"],"default":null},{"name":"b","type":["null","string"],"default":null},` +
				`{"name":"c","type":["null","boolean"],"default":null}`},
		{"widening", `{"a":1}{"a":1.5}{"a":12345678901234567890}`, `{"name":"a","type":"double"}`},
		{"exponent", `{"a":1e3}`, `{"name":"a","type":"double"}`},
		{"longs as text", `[{"a":1},{"a":"9007199254740993"}]`, `{"name":"a","type":"long"}`},
		{"text of digits", `{"a":"1"}`, `{"name":"a","type":"string"}`},
		{"special floats", `{"a":1}{"a":"NaN"}`, `{"name":"a","type":"double"}`},
		{"nested", `{"user":{"first_name":"x","home":{"zip":1}}}{"user":{"first_name":"y"}}`,
			`{"name":"user","type":{"type":"record","name":"demo.T.User","fields":[{"name":"first_name","type":"string"},` +
				`{"name":"home","type":["null",{"type":"record","name":"demo.T.User.Home","fields":[{"name":"zip","type":"long"}]}],"default":null}]}}`},
		{"arrays", `{"a":[],"b":[1,2.5],"c":[[{"x":1}],[]],"d":["x",null]}`,
			`{"name":"a","type":{"type":"array","items":"string"}},{"name":"b","type":{"type":"array","items":"double"}},` +
				`{"name":"c","type":{"type":"array","items":{"type":"array","items":{"type":"record","name":"demo.T.C","fields":[{"name":"x","type":"long"}]}}}},` +
				`{"name":"d","type":{"type":"array","items":["null","string"]}}`},
		{"mixed kinds", `{"a":1}{"a":[true]}{"a":{"x":1}}{"a":false}`,
			`{"name":"a","type":["boolean","long",{"type":"array","items":"boolean"},{"type":"record","name":"demo.T.A","fields":[{"name":"x","type":"long"}]}]}`},
		{"names that meet", `{"x":{"a":1},"X":{"b":1},"x_":{"c":1}}`,
			`{"name":"x","type":{"type":"record","name":"demo.T.X","fields":[{"name":"a","type":"long"}]}},` +
				`{"name":"X","type":{"type":"record","name":"demo.T.X2","fields":[{"name":"b","type":"long"}]}},` +
				`{"name":"x_","type":{"type":"record","name":"demo.T.X3","fields":[{"name":"c","type":"long"}]}}`},
		{"odd names", `{"_":{"a":1},"_1":{"b":1}}`,
			`{"name":"_","type":{"type":"record","name":"demo.T._","fields":[{"name":"a","type":"long"}]}},` +
				`{"name":"_1","type":{"type":"record","name":"demo.T._1","fields":[{"name":"b","type":"long"}]}}`},
		{"empty", `{}`, ``},
	} {
		got, err := Infer("demo.T", strings.NewReader(c.examples))
		want := `{"type":"record","name":"demo.T","fields":[` + c.fields + `]}`
		if err != nil || compact(t, got) != want {
			t.Errorf("%s: got %s, %v\nwant %s", c.name, got, err, want)
		}
	}
}

func TestInferRefuses(t *testing.T) {
	for examples, words := range map[string]string{
		``: "no example", `[]`: "no example", `[1]`: "example 1 is not an object", `{} 1`: "example 2 is not an object",
		`{"a":1}{"a":"x"}`:            "a: a number in one example and a string in another",
		`{"l":[{"a":1.5},{"a":"1"}]}`: "l[].a: a number",
		`{"a":{"b-c":1}}`:             `example 1: a: "b-c" cannot name an Avro field`,
		`{"a":1,"a":2}`:               "example 1: a: the key is there twice",
		`{"a":`:                       "example 1", `{"a":1}}`: "example 2",
		strings.Repeat(`{"a":`, 300) + "1" + strings.Repeat("}", 300): "nested deeper",
	} {
		if _, err := Infer("demo.T", strings.NewReader(examples)); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: got %v, want %q", examples, err, words)
		}
	}
	if _, err := Infer("no name", strings.NewReader(`{}`)); err == nil {
		t.Error("a name with a space is accepted")
	}
}

// FuzzInfer: the schema, if there is one, encodes what it was made from.
func FuzzInfer(f *testing.F) {
	f.Add([]byte(`{"a":1}{"a":null,"b":[{"c":"x"}]}`))
	f.Add([]byte(`[{"a":"1"},{"a":2}]`))
	f.Fuzz(func(t *testing.T, examples []byte) {
		avsc, err := Infer("demo.T", bytes.NewReader(examples))
		if err != nil {
			if len(err.Error()) > 1<<20 {
				t.Fatal("the error is longer than it may be")
			}
			// Only an input of ours to blame: a schema that Infer made must never be refused.
			if strings.Contains(err.Error(), "schema:") || strings.Contains(err.Error(), "both accept") {
				t.Fatalf("%q: %v", examples, err)
			}
			return
		}
		if _, err := codec.Compile(avsc); err != nil {
			t.Fatalf("%q: %v", examples, err)
		}
	})
}

func Example() {
	avsc, err := Infer("demo.Message", strings.NewReader(`{"text":"hi"} {"text":"ho","user":"ann"}`))
	if err != nil {
		panic(err)
	}
	_, _ = os.Stdout.WriteString(avsc)
	// Output:
	// {
	//   "type": "record",
	//   "name": "demo.Message",
	//   "fields": [
	//     {
	//       "name": "text",
	//       "type": "string"
	//     },
	//     {
	//       "name": "user",
	//       "type": [
	//         "null",
	//         "string"
	//       ],
	//       "default": null
	//     }
	//   ]
	// }
}
