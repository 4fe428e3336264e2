package client

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/spillway/spillway/schemas"
)

// The scanners trust that a node sends JSON. The fuzz targets check that they
// do not panic on what is none, and read what is as encoding/json does.

func FuzzFrame(f *testing.F) {
	head := `{"t":"ev","id":7,"p":"` + at(0) + `","c":"` + at(1) + `","e":[`
	f.Add([]byte(head + `{"a":"x\"]}"},[1,{"b":null}],"s",-1e3]}`))
	f.Add([]byte(head + `]}`))
	f.Add([]byte(head + ` {} , 1 ]}`))
	f.Add([]byte(head + `1],"e":[2]}`))
	f.Add([]byte(head + `{"a":],}]}`))
	f.Add([]byte(`{"t":"ev","id":7,"p":"c1","c":"c2","e":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		ev, ok := parseEv(b)
		if !ok {
			return
		}
		pieces, ok := split(nil, ev.events)
		for _, p := range pieces {
			unquote(member(p, "id"))
		}
		var full schemas.ServerFrame
		if !ok || !json.Valid(b) || json.Unmarshal(b, &full) != nil {
			return // refused, or taken apart anyhow
		}
		var id int
		if json.Unmarshal(full.Ident, &id) != nil || full.T != "ev" || id != ev.id || full.P != string(ev.p) || full.C != string(ev.c) {
			t.Fatalf("%s: read as %d, %s to %s", b, ev.id, ev.p, ev.c)
		}
		if len(full.E) != len(pieces) {
			t.Fatalf("%s: %d events, taken apart %d", b, len(full.E), len(pieces))
		}
		for i := range pieces {
			if string(pieces[i]) != string(full.E[i]) {
				t.Fatalf("event %d: %s, want %s", i, pieces[i], full.E[i])
			}
		}
	})
}

// FuzzSplit: any list that is JSON can be taken apart.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{``, ` `, `{}`, `"a\\","]"`, `[[],{"a":[{}]}] ,null,1`, `1,`, `{]`, `"\`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		pieces, ok := split(nil, b)
		var want []json.RawMessage
		if json.Unmarshal([]byte("["+string(b)+"]"), &want) != nil {
			return
		}
		if !ok || len(pieces) != len(want) {
			t.Fatalf("%s: %d values, taken apart %d (%v)", b, len(want), len(pieces), ok)
		}
		for i := range want {
			if !bytes.Equal(pieces[i], want[i]) {
				t.Fatalf("value %d: %s, want %s", i, pieces[i], want[i])
			}
		}
	})
}

// FuzzMember: a member is found under its name as it is written, the first one
// of that name, and a text is what encoding/json makes of it.
func FuzzMember(f *testing.F) {
	f.Add([]byte(`{"id":"1","source":"/x","data":{"id":"no","a":[1,"}"]},"id":"second"}`), "id")
	f.Add([]byte(` { "a\"b" : "c\u00e9\\" , "n" : -1.5e3 } `), `a\"b`)
	f.Add([]byte(`{"a":1,"b":true}`), "c")
	f.Add([]byte(`[{"a":1}]`), "a")
	f.Add([]byte(`{"a":`), "a")
	f.Add([]byte(`{"a"}`), "a")
	f.Fuzz(func(t *testing.T, b []byte, name string) {
		got := member(b, name)
		Event{Raw: b}.Time()
		if !json.Valid(b) {
			unquote(got)
			return
		}
		members := membersOf(t, b)
		if want := members[name]; !bytes.Equal(got, want) || (got == nil) != (want == nil) {
			t.Fatalf("%s: member %q is %q, want %q", b, name, got, want)
		}
		for k, want := range members {
			if got := member(b, k); !bytes.Equal(got, want) {
				t.Fatalf("%s: member %q is %q, want %q", b, k, got, want)
			}
			var text string
			json.Unmarshal(want, &text) // "" for what is no string
			if utf8.Valid(want) && unquote(want) != text {
				t.Fatalf("%s is read as %q, want %q", want, unquote(want), text)
			}
		}
	})
}

// membersOf reads an object with encoding/json: the first member of each name,
// as it is written. What is no object has none.
func membersOf(t *testing.T, b []byte) map[string][]byte {
	members := make(map[string][]byte)
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return members
	}
	for d.More() {
		from := d.InputOffset()
		if _, err := d.Token(); err != nil {
			t.Fatal(err)
		}
		key := bytes.TrimLeft(b[from:d.InputOffset()], ", \n\t\r")
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			t.Fatal(err)
		}
		name := string(key[1 : len(key)-1])
		if _, ok := members[name]; !ok {
			members[name] = value
		}
	}
	return members
}
