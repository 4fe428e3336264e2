package registry

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/sr"
)

func open(t testing.TB, dir string) *Registry {
	t.Helper()
	r, err := Open(Config{Dir: dir, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// ask sends one request to the handler itself, with a path as it stands on the
// wire.
func ask(r http.Handler, method, path, body string) (status int, answer string) {
	path, query, _ := strings.Cut(path, "?")
	u := &url.URL{Path: path, RawPath: path, RawQuery: query}
	if plain, err := url.PathUnescape(path); err == nil {
		u.Path = plain
	}
	req := &http.Request{Method: method, URL: u, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{}}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w.Code, w.Body.String()
}

func register(t testing.TB, r http.Handler, subject, schema string) int {
	t.Helper()
	body, err := json.Marshal(map[string]string{"schema": schema})
	if err != nil {
		t.Fatal(err)
	}
	status, answer := ask(r, "POST", "/subjects/"+subject+"/versions", string(body))
	var out struct{ ID int }
	if err := json.Unmarshal([]byte(answer), &out); err != nil || status != 200 {
		t.Fatalf("register %s: %d %s", subject, status, answer)
	}
	return out.ID
}

// within says what of want is not in got: objects may say less, the rest is
// equal.
func within(want, got any) error {
	switch want := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return fmt.Errorf("%v is no object", got)
		}
		for k, v := range want {
			if err := within(v, g[k]); err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
		}
		return nil
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(want) {
			return fmt.Errorf("want %v, got %v", want, got)
		}
		for i := range want {
			if err := within(want[i], g[i]); err != nil {
				return fmt.Errorf("%d: %w", i, err)
			}
		}
		return nil
	}
	if !reflect.DeepEqual(want, got) {
		return fmt.Errorf("want %v, got %v", want, got)
	}
	return nil
}

// story is a line of a conformance file.
type story struct {
	line               int
	method, path, body string
	status             int
	want               string
}

func readStory(t *testing.T, name string) []story {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var out []story
	let := map[string]string{}
	fill := func(s string) string {
		for name, schema := range let {
			s = strings.ReplaceAll(strings.ReplaceAll(s, "$"+name+",", schema+","), "$"+name+"}", schema+"}")
		}
		return s
	}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		word, rest, _ := strings.Cut(line, " ")
		status, err := strconv.Atoi(word)
		switch {
		case line == "" || word == "#":
		case word == "let":
			name, schema, _ := strings.Cut(rest, " = ")
			quoted, err := json.Marshal(schema)
			if err != nil {
				t.Fatal(err)
			}
			let[name] = string(quoted)
		case err == nil:
			last := &out[len(out)-1]
			last.status, last.want = status, fill(rest)
		default:
			path, body, _ := strings.Cut(rest, " ")
			out = append(out, story{line: n, method: word, path: path, body: fill(body)})
		}
	}
	return out
}

func TestConformance(t *testing.T) {
	steps := readStory(t, "testdata/conformance.txt")
	if len(steps) < 130 {
		t.Fatalf("only %d requests read", len(steps))
	}
	dir := t.TempDir()
	r := open(t, dir)
	for i, s := range steps {
		if i%10 == 9 { // a restart changes nothing
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			r = open(t, dir)
		}
		status, answer := ask(r, s.method, s.path, s.body)
		var want, got any
		if err := json.Unmarshal([]byte(s.want), &want); err != nil {
			t.Fatalf("line %d: %v in %s", s.line+1, err, s.want)
		}
		if err := json.Unmarshal([]byte(answer), &got); err != nil {
			t.Errorf("line %d: answer is no JSON: %s", s.line, answer)
		}
		if err := within(want, got); err != nil || status != s.status {
			t.Errorf("line %d: %s %s: %d, want %d; %v; %s", s.line, s.method, s.path, status, s.status, err, answer)
		}
	}
}

// TestPublishedPairs runs the table of schema pairs and levels that the
// compatibility rules are tested with, through the API.
func TestPublishedPairs(t *testing.T) {
	text, err := os.ReadFile("../../../schemas/compat/testdata/pairs.json")
	if err != nil {
		t.Fatal(err)
	}
	var pairs []struct {
		Name     string
		Versions []json.RawMessage
		Next     json.RawMessage
		Want     map[string]string
	}
	if err := json.Unmarshal(text, &pairs); err != nil {
		t.Fatal(err)
	}
	r := open(t, t.TempDir())
	asked := 0
	for i, p := range pairs {
		for level, want := range p.Want {
			subject := fmt.Sprintf("%d.%s", i, level)
			setLevel(t, r, subject, "NONE")
			for _, v := range p.Versions {
				register(t, r, subject, string(v))
			}
			setLevel(t, r, subject, level)
			body, err := json.Marshal(map[string]string{"schema": string(p.Next)})
			if err != nil {
				t.Fatal(err)
			}
			status, answer := ask(r, "POST", "/subjects/"+subject+"/versions", string(body))
			if ok := want == "ok"; ok != (status == 200) || !ok && (status != 409 || !strings.Contains(answer, ": "+want+": ")) {
				t.Errorf("%s at %s: %d %s, want %s", p.Name, level, status, answer, want)
			}
			asked++
		}
	}
	if asked != 30*7 {
		t.Errorf("asked %d times, want 210", asked)
	}
}

func setLevel(t testing.TB, r http.Handler, subject, level string) {
	t.Helper()
	if status, answer := ask(r, "PUT", "/config/"+subject, `{"compatibility":"`+level+`"}`); status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
}

// A subject keeps the level that was in force when it was created.
func TestSubjectKeepsItsFirstLevel(t *testing.T) {
	r := open(t, t.TempDir())
	register(t, r, "a", `"string"`)
	if _, got := ask(r, "GET", "/config/a", ""); !strings.Contains(got, "FULL_TRANSITIVE") {
		t.Errorf("level is %s", got)
	}
	if status, _ := ask(r, "PUT", "/config", `{"compatibility":"NONE"}`); status != 200 {
		t.Fatal(status)
	}
	if status, got := ask(r, "POST", "/subjects/a/versions", `{"schema":"\"int\""}`); status != 409 {
		t.Errorf("%d %s", status, got)
	}
}

func TestRegistrySpeaksToFranzGo(t *testing.T) {
	r := open(t, t.TempDir())
	srv := httptest.NewServer(r)
	defer srv.Close()
	cl, err := sr.NewClient(sr.URLs(srv.URL))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	first := sr.Schema{Schema: `{"type":"record","name":"demo.M","fields":[{"name":"a","type":"int"}]}`}
	made, err := cl.CreateSchema(ctx, "demo.M", first)
	if err != nil || made.ID != 1 || made.Version != 1 || made.Subject != "demo.M" || made.GUID == "" {
		t.Fatalf("%+v, %v", made, err)
	}
	if got, err := cl.LookupSchema(ctx, "demo.M", first); err != nil || got.ID != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := cl.SchemaByID(ctx, 1); err != nil || got.Schema != first.Schema {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := cl.SchemaByGUID(ctx, made.GUID); err != nil || got.Schema.Schema != first.Schema {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := cl.SchemaIDsByGUID(ctx, made.GUID); err != nil || len(got) != 1 || got[0].ID != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	bad := sr.Schema{Schema: `{"type":"record","name":"demo.M","fields":[{"name":"a","type":"string"}]}`}
	_, err = cl.CreateSchema(ctx, "demo.M", bad)
	var answer *sr.ResponseError
	if !errors.As(err, &answer) || answer.ErrorCode != 409 || !strings.Contains(answer.Message, "incompatible types") {
		t.Errorf("%v", err)
	}
	if got, err := cl.CheckCompatibility(sr.WithParams(ctx, sr.Verbose), "demo.M", -1, bad); err != nil || got.Is || !strings.Contains(fmt.Sprint(got.Messages), "backward: a: ") {
		t.Errorf("%+v, %v", got, err)
	}
	if got := cl.SetCompatibility(ctx, sr.SetCompatibility{Level: sr.CompatNone}, "demo.M")[0]; got.Err != nil || got.Level != sr.CompatNone {
		t.Errorf("%+v", got)
	}
	if got := cl.Compatibility(ctx, "demo.M", sr.GlobalSubject); got[0].Level != sr.CompatNone || got[1].Level != sr.CompatFullTransitive {
		t.Errorf("%+v", got)
	}
	if id, err := cl.RegisterSchema(ctx, "demo.M", bad, -1, -1); err != nil || id != 2 {
		t.Errorf("%d, %v", id, err)
	}
	if got, err := cl.SchemaTextByVersion(ctx, "demo.M", -1); err != nil || got != bad.Schema {
		t.Errorf("%s, %v", got, err)
	}
	if got := cl.ResetCompatibility(ctx, "demo.M")[0]; got.Err != nil || got.Level != sr.CompatNone {
		t.Errorf("%+v", got)
	}
	if got, err := cl.DeleteSubject(ctx, "demo.M", sr.SoftDelete); err != nil || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := cl.DeleteSubject(ctx, "demo.M", sr.HardDelete); err != nil || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := cl.SchemaByID(ctx, 1); !errors.As(err, &answer) || answer.ErrorCode != 40403 || answer.StatusCode != 404 {
		t.Errorf("%v", err)
	}
}

func TestConcurrentRegistrationGivesOneID(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	const n = 16
	ids := make([]int, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			ids[i] = register(t, r, fmt.Sprintf("s%d", i%3), `{"type":"enum","name":"E","symbols":["A"]}`)
			register(t, r, "own", fmt.Sprintf(`{"type":"record","name":"R","fields":[{"name":"f%d","type":"int","default":0}]}`, i))
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("ids %v", ids)
		}
	}
	if _, got := ask(r, "GET", "/subjects/own/versions", ""); !strings.HasSuffix(strings.TrimSpace(got), ",16]") {
		t.Errorf("versions %s", got)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open(t, dir)
	if _, got := ask(r, "GET", "/subjects/s1/versions", ""); got != "[1]\n" {
		t.Errorf("versions %s", got)
	}
}

func TestBodyIsBounded(t *testing.T) {
	r := open(t, t.TempDir())
	big := `{"schema":"` + strings.Repeat(" ", maxSchemaBytes+1) + `"}`
	if status, got := ask(r, "POST", "/subjects/a/versions", big); status != 422 || !strings.Contains(got, "42209") {
		t.Errorf("%d %s", status, got)
	}
	if status, got := ask(r, "POST", "/subjects/a/versions", `{"schema":"`+strings.Repeat(" ", maxBodyBytes)); status != 422 || !strings.Contains(got, "42209") {
		t.Errorf("%d %s", status, got)
	}
	deep := strings.Repeat("[", 20_000)
	if status, got := ask(r, "POST", "/subjects/a/versions", `{"schema":"`+deep+`"}`); status != 422 || !strings.Contains(got, "42201") {
		t.Errorf("%d %s", status, got)
	}
}

func TestOpenRefuses(t *testing.T) {
	if _, err := Open(Config{}); err == nil {
		t.Error("no directory, no error")
	}
	dir := t.TempDir()
	open(t, dir)
	if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another registry uses it") {
		t.Errorf("err = %v", err)
	}
}

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

// badFile fails as told: failed and not applied, failed but applied, failed
// and no way back.
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

func TestServe(t *testing.T) {
	r := open(t, t.TempDir())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, ln) }()
	resp, err := http.Get("http://" + ln.Addr().String() + "/subjects")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != contentType {
		t.Errorf("%d %s", resp.StatusCode, resp.Header)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := http.Get("http://" + ln.Addr().String()); err == nil {
		t.Error("still served")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if status, got := ask(r, "PUT", "/config", `{"compatibility":"NONE"}`); status != 500 {
		t.Errorf("%d %s", status, got)
	}
}

// FuzzRequest: whatever is asked, the answer is JSON from the table of codes,
// and a restart shows the same registry.
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

// FuzzReplay: a damaged journal gives an error or a state, never a panic, and
// the good part of a torn one reads again as the same.
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
