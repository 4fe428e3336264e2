package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
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

// badFile fails as told: failed and not applied, failed but applied, failed
// and no way back.
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
// FuzzReplay: a damaged journal gives an error or a state, never a panic, and
// the good part of a torn one reads again as the same.
