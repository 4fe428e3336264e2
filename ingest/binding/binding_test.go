package binding

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/spillway/spillway/schemas"
)

func TestReadMode(t *testing.T) {
	for _, c := range []struct {
		contentType string
		mode        Mode
		avro, ok    bool
	}{
		{"", Binary, false, true},
		{"application/json", Binary, false, true},
		{"Application/JSON; Charset=UTF-8", Binary, false, true},
		{"application/problem+json", Binary, false, true},
		{TypeForm, Binary, false, true},
		{schemas.ContentTypeAvro, Binary, true, true},
		{"application/cloudevents+json; charset=utf-8", Structured, false, true},
		{TypeBatch, Batched, false, true},
		{"application/cloudevents+avro", 0, false, false},
		{"application/json; charset=utf-16", 0, false, false},
		{"text/plain", 0, false, false},
		{";", 0, false, false},
	} {
		m, avro, refused := ReadMode(c.contentType)
		if m != c.mode || avro != c.avro || (refused == nil) != c.ok {
			t.Errorf("%q: %d, %t, %+v", c.contentType, m, avro, refused)
		}
		if refused != nil && refused.Code != schemas.ContentTypeUnsupport {
			t.Errorf("%q: %s", c.contentType, refused.Code)
		}
	}
}

// TestHeaderValues are the examples of CloudEvents HTTP binding 1.0, section
// 3.1.3.2, and what its words leave open.
func TestHeaderValues(t *testing.T) {
	for raw, want := range map[string]string{
		"Euro%20%E2%82%AC%20%F0%9F%98%80": "Euro € 😀",
		`"Euro" %22%20`:                   `Euro " `,
		`"a \"quoted\" part"`:             `a "quoted" part`,
		`open"quote`:                      `openquote`,
		`\outside`:                        `\outside`,
		"100%":                            "100%",
		"%2":                              "%2",
		"%zz%41":                          "%zzA",
		"%2541":                           "%41",
	} {
		got, refused := decodeHeader("x", raw)
		if refused != nil || got != want {
			t.Errorf("%q: %q, %+v", raw, got, refused)
		}
	}
	var d Draft
	if refused := d.ReadBinary(http.Header{"Ce-X": {"%ff"}}, ""); refused == nil || refused.Path != "x" {
		t.Errorf("not UTF-8: %+v", refused)
	}
}

func TestValidTraceparent(t *testing.T) {
	const ok = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for s, want := range map[string]bool{
		ok: true, "cc" + ok[2:]: true, "cc" + ok[2:] + "-what": true,
		"": false, "ff" + ok[2:]: false, ok + "-what": false, "cc" + ok[2:] + "x": false, strings.ToUpper(ok): false,
		strings.Replace(ok, "0af7651916cd43dd8448eb211c80319c", strings.Repeat("0", 32), 1): false,
		strings.Replace(ok, "-01", "-0g", 1):                                                false, strings.ReplaceAll(ok, "-", "_"): false,
	} {
		if ValidTraceparent(s) != want {
			t.Errorf("%q: %t", s, !want)
		}
	}
}

func TestRefusalAsJSON(t *testing.T) {
	r := Refuse(schemas.SchemaMismatch, `data.a"b`, "%s", "no\n").WithFix("f").InEvent(3)
	if got, want := string(r.AppendJSON(nil)), `{"error":{"code":"schema_mismatch","message":"no\n","path":"data.a\"b","fix":"f","event":3}}`+"\n"; got != want {
		t.Errorf("%s", got)
	}
}

// FuzzWalk compares the walker with encoding/json: the same members with the
// same values, whatever the JSON.
func FuzzWalk(f *testing.F) {
	for _, seed := range []string{
		`{}`, `[]`, ` { "a" : 1 , "b":[{},[],"]}"], "\u0063\"":null } `, `[1,-2.5e3, true ,{"a":{"b":[1]}},"\\"]`, `"x"`, `0`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if refused := CheckJSON(raw); refused != nil {
			if refused.Code != schemas.Malformed || json.Valid(raw) {
				t.Fatalf("%+v", refused)
			}
			return
		}
		var d Draft
		_ = d.ReadStructured(raw) // must not panic
		switch kindOf(raw) {
		case '{':
			checkMembers(t, raw)
		case '[':
			checkElements(t, raw)
		}
	})
}

func checkMembers(t *testing.T, raw []byte) {
	t.Helper()
	var want map[string]json.RawMessage
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Skip(err) // too deep for encoding/json
	}
	got := map[string]string{}
	for w := (walker{b: raw}); w.nextMember(); {
		var key string
		if err := json.Unmarshal(w.key, &key); err != nil {
			t.Fatalf("key %q: %v", w.key, err)
		}
		got[key] = string(w.value) // the last one wins, as there
	}
	if len(got) != len(want) {
		t.Fatalf("%q: %d members, want %d", raw, len(got), len(want))
	}
	for key, value := range want {
		if got[key] != string(value) {
			t.Fatalf("%q: member %q is %q, want %q", raw, key, got[key], value)
		}
	}
}

func checkElements(t *testing.T, raw []byte) {
	t.Helper()
	var want []json.RawMessage
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Skip(err)
	}
	b, refused := ReadBatch(raw)
	if refused != nil || b.Len() != len(want) {
		t.Fatalf("%q: %+v, want %d", raw, b, len(want))
	}
	for i, value := range want {
		if got := b.Next(); string(got) != string(value) {
			t.Fatalf("%q: element %d is %q, want %q", raw, i, got, value)
		}
	}
	if b.Next() != nil {
		t.Fatalf("%q: more than %d elements", raw, len(want))
	}
}
