package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestJournalSurvivesACutLine(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "journal.jsonl")
	r := open(t, dir)
	register(t, r, "a", `"string"`)
	register(t, r, "b", `"int"`)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first := bytes.IndexByte(whole, '\n') + 1
	for cut := first; cut < len(whole); cut++ {
		if err := os.WriteFile(path, whole[:cut], 0o644); err != nil {
			t.Fatal(err)
		}
		r, err := Open(Config{Dir: dir})
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if _, got := ask(r, "GET", "/subjects", ""); got != "[\"a\"]\n" {
			t.Fatalf("cut at %d: %s", cut, got)
		}
		if id := register(t, r, "b", `"int"`); id != 2 {
			t.Errorf("cut at %d: id %d", cut, id)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, whole) {
			t.Fatalf("cut at %d: the journal is %s, %v", cut, again, err)
		}
	}
	damaged := append([]byte("x"), whole...)
	if err := os.WriteFile(path, damaged, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("err = %v", err)
	}
}

type badFile struct {
	*os.File
	write, sync, truncate error
}

func (f *badFile) Write(p []byte) (int, error) {
	if f.write != nil {
		n, _ := f.File.Write(p[:len(p)/2])
		return n, f.write
	}
	return f.File.Write(p)
}

func (f *badFile) Sync() error { return errors.Join(f.sync, f.File.Sync()) }

func (f *badFile) Truncate(n int64) error { return errors.Join(f.truncate, f.File.Truncate(n)) }

func TestJournalFailureChangesNothing(t *testing.T) {
	full := errors.New("no space left")
	for name, bad := range map[string]badFile{"half written": {write: full}, "not synced": {sync: full}, "no way back": {write: full, truncate: full}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := open(t, dir)
			register(t, r, "a", `"string"`)
			good := r.journal.f.(*os.File)
			bad.File = good
			r.journal.f = &bad
			if status, got := ask(r, "POST", "/subjects/b/versions", `{"schema":"\"int\""}`); status != 500 || !strings.Contains(got, "50001") {
				t.Errorf("%d %s", status, got)
			}
			if _, got := ask(r, "GET", "/subjects", ""); got != "[\"a\"]\n" {
				t.Errorf("subjects %s", got)
			}
			r.journal.f = good
			status, got := ask(r, "POST", "/subjects/b/versions", `{"schema":"\"int\""}`)
			if lost := name == "half written"; lost != (status == 200) {
				t.Errorf("afterwards: %d %s", status, got)
			}
		})
	}
}

func FuzzRequest(f *testing.F) {
	for _, s := range []struct{ method, path, body string }{
		{"POST", "/subjects/a/versions", `{"schema":"\"int\""}`},
		{"POST", "/subjects/a/versions", `{"schema":"{\"type\":\"record\",\"name\":\"a.b.C\",\"fields\":[{\"name\":\"f\",\"type\":[\"null\",\"a.b.C\"]}]}"}`},
		{"POST", "/compatibility/subjects/seed/versions?verbose=true", `{"schema":"\"int\"","references":[{"subject":"seed","version":1}]}`},
		{"PUT", "/config/a", `{"compatibility":"NONE"}`},
		{"PUT", "/mode", `{"mode":"IMPORT"}`},
		{"DELETE", "/subjects/seed/versions/latest", ""},
		{"GET", "/schemas/ids/1?offset=-1&limit=9", ""},
		{"GET", "/subjects/%2f/versions", ""},
	} {
		f.Add(s.method, s.path, s.body)
	}
	f.Fuzz(func(t *testing.T, method, path, body string) {
		var log memFile
		r := &Registry{log: slog.New(slog.DiscardHandler), requests: newRequests(nil), unlock: func() error { return nil }, state: newState(), journal: &journal{f: &log}}
		register(t, r, "seed", `{"type":"record","name":"S","fields":[]}`)
		status, answer := ask(r, method, path, body)
		if !json.Valid([]byte(answer)) || status >= 500 {
			t.Fatalf("%d %q", status, answer)
		}
		again := newState()
		if _, torn, err := replay(bytes.NewReader(log.Bytes()), again.apply); err != nil || torn != 0 {
			t.Fatalf("replay: %v, torn %d", err, torn)
		}
		again.parsed, r.state.parsed = nil, nil
		if !reflect.DeepEqual(again, r.state) {
			t.Fatalf("replayed state differs after %s %s %s", method, path, body)
		}
	})
}

type memFile struct{ bytes.Buffer }

func (*memFile) Close() error         { return nil }
func (*memFile) Sync() error          { return nil }
func (*memFile) Truncate(int64) error { return nil }

func FuzzReplay(f *testing.F) {
	f.Add([]byte(`{"op":"register","subject":"a","version":1,"id":1,"schema":"\"int\"","level":"FULL_TRANSITIVE"}` + "\n" + `{"op":"delete","subject":"a","versions":[1]}` + "\n" + `{"op":"erase","subject":"a","versions":[1]}` + "\n"))
	f.Add([]byte(`{"op":"level","level":"NONE"}` + "\n" + `{"op":"mode","subject":"a","mode":"IMPORT"}` + "\n" + `{"op":`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newState()
		good, torn, err := replay(bytes.NewReader(data), s.apply)
		if err != nil {
			return
		}
		if good+torn != int64(len(data)) {
			t.Fatalf("good %d + torn %d of %d bytes", good, torn, len(data))
		}
		again := newState()
		if g, tn, err := replay(bytes.NewReader(data[:good]), again.apply); err != nil || tn != 0 || g != good || !reflect.DeepEqual(s, again) {
			t.Fatalf("again: %d of %d, torn %d, %v", g, good, tn, err)
		}
	})
}
