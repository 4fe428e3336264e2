package codec

import (
	"errors"
	"strings"
	"testing"

	"github.com/spillway/spillway/schemas"
)

// TestFixes holds what a person is told about JSON that does not fit.
func TestFixes(t *testing.T) {
	for _, c := range []struct{ schema, json, want string }{
		{"message", `{"txt":"hi"}`, `txt: record demo.Message has no such field (did you mean "text"?)`},
		{"message", `{"TEXT":"hi"}`, `TEXT: record demo.Message has no such field (did you mean "text"?)`},
		{"message", `{"body":"hi"}`, `body: record demo.Message has no such field (fields are text, user, seq, at, urgent)`},
		{"message", `{}`, `text: the field is missing and has no default (add "text": string)`},
		{"message", `{"text":5}`, `text: want string, got number 5 (write "5" in quotes)`},
		{"message", `{"text":"a","text":"b"}`, `text: the key is there twice`},
		{"message", `{"text":"a","seq":null}`, `seq: want long, got null (leave the field out for its default)`},
		{"message", `{"text":"a","seq":1.5}`, `seq: want long, got number 1.5 (write an integer of 64 bits)`},
		{"message", `{"text":"a","seq":"x"}`, `seq: want long, got string "x" (write an integer of 64 bits)`},
		{"message", `{"text":"a","urgent":"true"}`, `urgent: want boolean, got string "true" (write true without quotes)`},
		{"message", `{"text":"a","user":[1]}`, `user: want null or string, got array`},
		{"message", `{"text":"a","at":"2026-11-24 13:00:00"}`, `at: want long (timestamp-millis), got string "2026-11-24 13:00:00" ` +
			`(write it as RFC 3339, "2006-01-02T15:04:05.123Z", 3 digits after the point at most)`},
		{"message", `[]`, `want record demo.Message, got array`},
		{"nested", `{"items":[{"sku":"a","price":1},{"sku":"b","price":"free"}],"labels":{}}`,
			`items[1].price: want long, got string "free" (write an integer of 64 bits)`},
		{"nested", `{"items":[],"labels":{"a":"1","b c":2}}`, `labels["b c"]: want null or string, got number 2`},
		{"nested", `{"items":[],"labels":{"a":"1","a":null}}`, `labels.a: the key is there twice`},
		{"nested", `{"items":{},"labels":{}}`, `items: want array, got object (put it in [ ])`},
		{"nested", `{"items":[],"labels":{},"grid":[[1],[2,"3"]]}`, `grid[1][1]: want int, got string "3" (write 3 without quotes)`},
		{`["int","boolean","double"]`, `"x"`, `want double, got string "x" (write a number, "NaN", "Infinity" or "-Infinity")`},
		{`["long","double"]`, `"x"`, `want long or double, got string "x"`},
		{"scalars", `{"z":null,"b":true,"i":1,"l":1,"f":1,"d":1,"y":"","s":"","x":"AQID","e":"RED"}`,
			`x: want fixed t.Four, got string "AQID" (write 4 bytes in base64 with padding)`},
		{"scalars", `{"z":null,"b":true,"i":1,"l":1,"f":1,"d":1,"y":"","s":"","x":"AQIDBA==","e":"red"}`,
			`e: string "red" is no symbol of enum t.Color (did you mean "RED"?)`},
		{`"bytes"`, `"A"`, `want bytes, got string "A" (write the bytes in base64 with padding)`},
		{`"bytes"`, `"AB=="`, `want bytes, got string "AB==" (write the bytes in base64 with padding)`},
		{`"bytes"`, `"AAA\n"`, `want bytes, got string "AAA\n" (write the bytes in base64 with padding)`},
		{`"bytes"`, `5`, `want bytes, got number 5 (write the bytes in base64 with padding)`},
		{`"int"`, `2147483648`, `want int, got number 2147483648 (write an integer from -2147483648 to 2147483647)`},
		{`"long"`, `9223372036854775808`, `want long, got number 9223372036854775808 (write an integer of 64 bits)`},
		{`"double"`, `"1.5"`, `want double, got string "1.5" (write 1.5 without quotes)`},
		{`"double"`, `1e999`, `want double, got number 1e999 (write a number, "NaN", "Infinity" or "-Infinity")`},
		{`{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}`, `"1.234"`,
			`want bytes (decimal), got string "1.234" (write a decimal with 4 digits at most, 2 of them after the point)`},
		{`{"type":"fixed","name":"D","size":1,"logicalType":"decimal","precision":2,"scale":0}`, `"128"`,
			`want fixed D (decimal), got string "128" (write a decimal with 2 digits at most, 0 of them after the point)`},
		{`{"type":"int","logicalType":"date"}`, `"2025-02-29"`, `want int (date), got string "2025-02-29" (write it as "2006-01-02")`},
		{`{"type":"long","logicalType":"timestamp-millis"}`, `"0000-01-01T00:00:00+00:01"`, `want long (timestamp-millis), got string ` +
			`"0000-01-01T00:00:00+00:01" (write it as RFC 3339, "2006-01-02T15:04:05.123Z", 3 digits after the point at most)`},
	} {
		codec := compiled(t, c.schema)
		_, err := codec.AppendAvro(nil, []byte(c.json), 0)
		var e *Error
		if !errors.As(err, &e) || e.Reason != schemas.SchemaMismatch || e.Error() != c.want {
			t.Errorf("%s\n got %v\nwant %s", c.json, err, c.want)
		}
	}
}

func TestErrorIn(t *testing.T) {
	_, err := compiled(t, "nested").AppendAvro(nil, []byte(`{"items":[1],"labels":{}}`), 0)
	var e *Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	if got := e.In("data").Path; got != "data.items[0]" {
		t.Errorf("got %q", got)
	}
	if e.Path != "items[0]" {
		t.Errorf("In changed the error: %q", e.Path)
	}
}

func TestNotJSON(t *testing.T) {
	c := compiled(t, `["null","string","double",{"type":"array","items":"int"},{"type":"map","values":"int"}]`)
	for _, text := range []string{
		``, ` `, `nul`, `nulll`, `"`, `"\`, `"\x"`, `"\u12"`, `"\ud800"`, `"\udc00"`, `"\ud800\u0041"`, "\"\x01\"", "\"\xff\"",
		"\"\xed\xa0\x80\"", `01`, `-`, `1.`, `.5`, `1e`, `1e+`, `+1`, `NaN`, `[`, `[1`, `[1,`, `[1,]`, `[,1]`, `[1 2]`, `{`, `{"a"`, `{"a":`,
		`{"a":1`, `{"a":1,}`, `{a:1}`, `{"a" 1}`, `1 1`, "\x00", `'a'`, "\ufeff1",
	} {
		_, err := c.AppendAvro(nil, []byte(text), 0)
		wantError(t, text, err, schemas.Malformed, "not JSON: ")
	}
	deep := strings.Repeat(`[`, MaxDepth+1) + strings.Repeat(`]`, MaxDepth+1)
	_, err := c.AppendAvro(nil, []byte(deep), 0)
	wantError(t, "deep", err, schemas.SchemaMismatch, "nested deeper")
}

// TestUnionsOfUnionsAreBounded builds JSON for which trying every branch
// would take 2^200 steps.
func TestUnionsOfUnionsAreBounded(t *testing.T) {
	c := compiled(t, `{"type":"record","name":"A","fields":[{"name":"x","type":["null","A",
		{"type":"record","name":"B","fields":[{"name":"x","type":["null","A","B"]}]}]}]}`)
	text := strings.Repeat(`{"x":`, 200) + `5` + strings.Repeat(`}`, 200)
	_, err := c.AppendAvro(nil, []byte(text), 0)
	wantError(t, "unions", err, schemas.TooLarge, "choose a branch")
}

// TestMapsOfManyKeys crosses from the list of keys to the table of keys.
func TestMapsOfManyKeys(t *testing.T) {
	c := compiled(t, `{"type":"map","values":"null"}`)
	var text strings.Builder
	for i := range 100 {
		text.WriteString(`,"` + strings.Repeat("k", i) + `":null`)
	}
	all := "{" + text.String()[1:] + "}"
	body, err := c.AppendAvro(nil, []byte(all), 0)
	if err != nil {
		t.Fatal(err)
	}
	back, err := c.AppendJSON(nil, body, 0)
	if err != nil || string(back) != all {
		t.Errorf("got %s, %v", back, err)
	}
	for _, again := range []int{0, 31, 32, 33, 99} {
		_, err := c.AppendAvro(nil, []byte("{"+text.String()[1:]+`,"`+strings.Repeat("k", again)+`":null}`), 0)
		wantError(t, "again", err, schemas.SchemaMismatch, "twice")
	}
}
