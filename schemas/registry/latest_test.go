package registry

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/spillway/spillway/schemas/codec"
	"github.com/spillway/spillway/schemas/compat"
	"github.com/twmb/franz-go/pkg/sr"
)

func TestLatest(t *testing.T) {
	w := newWorld(t)
	id := w.register(t, "demo.Message", message)
	c := w.client(t)
	for range 100 {
		if s, err := c.Latest(t.Context(), "demo.Message"); err != nil || s.ID != id || s.Version != 1 {
			t.Fatalf("got %+v, %v", s, err)
		}
	}
	w.wantRequests(t, 1)
	if _, state := c.ByID(id); state.Answer != Known {
		t.Error("its id is not known")
	}
	id2 := w.register(t, "demo.Message", message2)
	w.requests.Store(0)
	if s, _ := c.Latest(t.Context(), "demo.Message"); s.ID != id {
		t.Error("asked before its time")
	}
	w.pass(time.Second)
	if s, _ := c.LatestNow(t.Context(), "demo.Message"); s.ID != id2 {
		t.Error("LatestNow gave the old one")
	}
	w.wantRequests(t, 1)
	w.pass(5 * time.Second)
	if s, err := c.Latest(t.Context(), "demo.Message"); err != nil || s.ID != id2 {
		t.Errorf("got %+v, %v", s, err)
	}
	w.wantRequests(t, 1)
}

// TestLatestWhileDown: the last answer is given, at once after the first wait.
func TestLatestWhileDown(t *testing.T) {
	w := newWorld(t)
	id := w.register(t, "demo.Message", message)
	c := w.client(t, func(cfg *Config) { cfg.LatestWait = 10 * time.Millisecond; cfg.Timeout = time.Minute })
	if _, err := c.Latest(t.Context(), "demo.Message"); err != nil {
		t.Fatal(err)
	}
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request){
		"500":   func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(500) },
		"hangs": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		w.misbehave(answer)
		for range 20 {
			w.pass(time.Minute)
			if s, err := c.Latest(t.Context(), "demo.Message"); err != nil || s.ID != id {
				t.Errorf("%s: got %v, %v", name, s, err)
			}
		}
	}
}

func TestLatestSubjects(t *testing.T) {
	w := newWorld(t)
	rename := func(name string) string { return strings.Replace(message, "demo.Message", name, 1) }
	w.register(t, "spillway.events-by.Topic", rename("by.Topic"))
	w.register(t, "spillway.events-value", rename("by.Value"))
	c := w.client(t)
	for _, name := range []string{"by.Topic", "by.Value"} {
		if s, err := c.Latest(t.Context(), name); err != nil || s.Name != name {
			t.Errorf("%s: got %+v, %v", name, s, err)
		}
	}
	w.requests.Store(0)
	for range 10 {
		_, err := c.Latest(t.Context(), "no.Such")
		wantIs(t, err, ErrAbsent)
	}
	w.wantRequests(t, 3)
	w.register(t, "no.Such", rename("no.Such"))
	w.pass(time.Second)
	if s, err := c.Latest(t.Context(), "no.Such"); err != nil || s.Name != "no.Such" {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestLatestIsBounded(t *testing.T) {
	w := newWorld(t)
	c := w.client(t, func(cfg *Config) { cfg.MaxAbsent = 4; cfg.PerSecond = 1000 })
	for i := range 50 {
		_, err := c.Latest(t.Context(), strings.Repeat("x", i+1))
		wantIs(t, err, ErrAbsent)
	}
	if len(c.latest) > 4 {
		t.Errorf("%d names kept", len(c.latest))
	}
}

func TestRegister(t *testing.T) {
	w := newWorld(t)
	c := w.client(t)
	s, err := c.Register(t.Context(), "", message, "")
	if err != nil || s.Subject != "demo.Message" || s.Version != 1 || s.Codec == nil {
		t.Fatalf("got %+v, %v", s, err)
	}
	if level, own, err := c.Level(t.Context(), "demo.Message"); level != compat.FullTransitive || !own || err != nil {
		t.Errorf("level is %s %v %v", level, own, err)
	}
	if !sameSchema(message, strings.ReplaceAll(message, ",", ",\n ")) || sameSchema(message, message2) {
		t.Error("sameSchema is wrong")
	}
	again, err := c.Register(t.Context(), "", message, compat.None)
	if err != nil || again.ID != s.ID || again.Version != 1 {
		t.Errorf("got %+v, %v", again, err)
	}
	if _, err := c.Latest(t.Context(), "demo.Message"); err != nil {
		t.Fatal(err)
	}
	s2, err := c.Register(t.Context(), "demo.Message", message2, compat.None)
	if err != nil || s2.Version != 2 {
		t.Fatalf("got %+v, %v", s2, err)
	}
	if l, _ := c.Latest(t.Context(), "demo.Message"); l.ID != s2.ID {
		t.Error("what was just registered is not the latest")
	}
	if level, _, _ := c.Level(t.Context(), "demo.Message"); level != compat.FullTransitive {
		t.Errorf("the second version changed the level to %s", level)
	}
}

func TestRegisterRefuses(t *testing.T) {
	w := newWorld(t)
	c := w.client(t)
	if _, err := c.Register(t.Context(), "", message, compat.Backward); err != nil {
		t.Fatal(err)
	}
	required := strings.Replace(message2, `,"default":0`, "", 1)
	_, err := c.Register(t.Context(), "", required, "")
	var bad *IncompatibleError
	if !errors.As(err, &bad) || bad.Level != compat.Backward || bad.Found[0].Path != "n" ||
		!strings.Contains(err.Error(), "backward: n: the new schema cannot read what version 1 wrote") {
		t.Errorf("got %v", err)
	}
	for text, words := range map[string]string{
		`{`: "schema", `"string"`: "not a record",
		strings.Replace(message, `"string"`, `["int","long"]`, 1): "both accept the JSON 0",
	} {
		_, err := c.Register(t.Context(), "", text, "")
		var e *codec.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: got %v", text, err)
		}
	}
	handler := w.Handler()
	w.misbehave(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			rw.WriteHeader(409)
			_, _ = rw.Write([]byte(`{"error_code":409,"message":"the registry has rules of its own"}`))
			return
		}
		w.behave()
		handler.ServeHTTP(rw, r)
	})
	_, err = c.create(t.Context(), "demo.Message", message2)
	wantIs(t, err, ErrRefused)
	if !strings.Contains(err.Error(), "rules of its own") {
		t.Errorf("got %v", err)
	}
}

func TestCheck(t *testing.T) {
	w := newWorld(t)
	c := w.client(t)
	if found, err := c.Check(t.Context(), "demo.Message", message, ""); err != nil || len(found) > 0 {
		t.Errorf("a new subject: %v, %v", found, err)
	}
	for _, text := range []string{message, message2} {
		if _, err := c.Register(t.Context(), "", text, ""); err != nil {
			t.Fatal(err)
		}
	}
	required := strings.Replace(message2, `,"default":0`, "", 1)
	found, err := c.Check(t.Context(), "demo.Message", required, "")
	if err != nil || len(found) != 1 || found[0].Version != 0 || found[0].Path != "n" {
		t.Errorf("FULL_TRANSITIVE in force: %v, %v", found, err)
	}
	if found, err := c.Check(t.Context(), "demo.Message", required, compat.Full); err != nil || len(found) > 0 {
		t.Errorf("FULL given: %v, %v", found, err)
	}
	if _, err := c.Check(t.Context(), "demo.Message", `["int","long"]`, ""); err == nil {
		t.Error("an ambiguous schema passes")
	}
	w.SeedSchema("json", 1, 99, sr.Schema{Schema: `{"type":"object"}`, Type: sr.TypeJSON})
	if _, err := c.Check(t.Context(), "json", message, ""); err == nil {
		t.Error("a JSON schema's subject takes Avro")
	}
}

func TestEncode(t *testing.T) {
	w := newWorld(t)
	id := w.register(t, "demo.Message", message)
	c := w.client(t)
	value, err := c.Encode(t.Context(), []byte("before"), "demo.Message", []byte(`{"text":"hi"}`), 0)
	if err != nil {
		t.Fatal(err)
	}
	got, body, err := codec.ParseHeader(value[len("before"):])
	if err != nil || got != id || string(body) != "\x04hi" {
		t.Errorf("got %d %q %v", got, body, err)
	}
	_, err = c.Encode(t.Context(), nil, "demo.Message", []byte(`{"txt":"hi"}`), 0)
	var e *codec.Error
	if !errors.As(err, &e) || e.Path != "txt" || e.Fix == "" {
		t.Errorf("got %v", err)
	}
	_, err = c.Encode(t.Context(), nil, "no.Such", []byte(`{}`), 0)
	wantIs(t, err, ErrAbsent)
}
