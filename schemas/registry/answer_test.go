package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/sr/srfake"
)

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body)) // a client that has gone needs no answer
	}
}

// drip sends a byte at a time, for ever.
func drip(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_, _ = w.Write([]byte(" "))
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

var page = "<!DOCTYPE html><html>" + strings.Repeat("<p>Bad Gateway</p>", 1000)

// badAnswers are what stands in a registry's place on a bad day.
var badAnswers = []struct {
	name   string
	answer http.HandlerFunc
	reason string
	words  string // of the error, beside the address
}{
	{"500 of the registry", says(500, `{"error_code":50001,"message":"the store"}`), serverError, "answered 500: {\"error_code\":50001,\"message\":\"the store\"}"},
	{"500 empty", says(500, ""), serverError, "answered 500"},
	{"502 page", says(502, page), serverError, "answered 502: <!DOCTYPE html>"},
	{"503 endless", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503); endless(w, r) }, serverError, "answered 503"},
	{"429", says(429, "slow down"), busy, "answered 429: slow down"},
	{"200 page", says(200, page), notJSON, "answered 200: not JSON: <!DOCTYPE html>"},
	{"200 garbage", says(200, "\x00\x01{]"), notJSON, "answered 200: not JSON"},
	{"200 nothing", says(200, ""), notJSON, "answered 200: not JSON"},
	{"200 half an answer", says(200, `{"schema":"{\"type\"`), notJSON, "answered 200: not JSON"},
	{"200 of something else", says(200, `{"status":"UP"}`), wrongAnswer, "without"},
	{"200 null", says(200, `null`), wrongAnswer, "without"},
	{"200 wrong type", says(200, `{"schema":5}`), wrongAnswer, "unmarshal"},
	{"404 page", says(404, page), notJSON, "answered 404: not JSON: <!DOCTYPE html>"},
	{"404 of a gateway", says(404, `{"message":"no Route matched with those values"}`), wrongAnswer, "answered 404: no answer of a schema registry"},
	{"404 of a wrong path", says(404, `{"error_code":404,"message":"HTTP 404 Not Found"}`), wrongAnswer, "answered 404: no answer of a schema registry"},
	{"404 with a registry's code in a string", says(404, `{"error_code":"40403"}`), wrongAnswer, "answered 404"},
	{"401", says(401, ""), unauthorized, "answered 401: it does not accept the user or the password"},
	{"403", says(403, `{"error_code":40301,"message":"no"}`), unauthorized, "answered 403"},
	{"308", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "https://elsewhere.test/")
		w.WriteHeader(308)
	}, redirected, `answered 308: a redirect to "https://elsewhere.test/"`},
	{"huge", endless, tooLarge, "answered 200: the answer exceeds"},
	{"cut off", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"schema":`))
	}, cutOff, "answered 200: the answer was cut off"},
	{"hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, refused, "EOF"},
	{"no answer", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, timedOut, "no whole answer within 300ms"},
	{"a byte at a time", drip, timedOut, "no whole answer within 300ms"},
}

func endless(w http.ResponseWriter, _ *http.Request) {
	zeros := []byte(strings.Repeat(" ", 64<<10))
	for {
		if _, err := w.Write(zeros); err != nil {
			return
		}
	}
}

// TestBadAnswers: whatever is not the registry's own "no" is unavailable, with
// a reason, and is over when it is over.
func TestBadAnswers(t *testing.T) {
	for _, bad := range badAnswers {
		t.Run(bad.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			id := w.register(t, "demo.Message", message)
			w.misbehave(bad.answer)
			metrics := prometheus.NewRegistry()
			c := w.client(t, func(cfg *Config) {
				cfg.Now, cfg.Registerer = nil, metrics
				cfg.MaxResponse, cfg.Timeout = 200<<10, 300*time.Millisecond
			})
			began := time.Now()
			_, err := c.Resolve(t.Context(), id)
			wantFault(t, err, w.URL()+"/schemas/ids/1", bad.reason, bad.words)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %s", took)
			}
			if _, state := c.ByID(id); state.Answer != Unknown {
				t.Errorf("got %v", state)
			}
			if n := counted(t, metrics, "spillway_registry_failures_total", bad.reason); n < 1 {
				t.Errorf("failures_total{reason=%q} is %v", bad.reason, n)
			}
			if err := c.Ready(); err == nil || !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), w.URL()) {
				t.Errorf("Ready says %v", err)
			}
			_, err = c.Latest(t.Context(), "demo.Message")
			wantIs(t, err, ErrUnavailable)
			_, err = c.Register(t.Context(), "", message, "")
			wantIs(t, err, ErrUnavailable)
			if err := c.Preload(t.Context()); bad.name != "200 null" {
				wantIs(t, err, ErrUnavailable)
			}
			w.behave()
			until(t, "it is found again without a question", func() bool { return c.Ready() == nil })
			if s, err := c.Resolve(t.Context(), id); err != nil || s.Codec == nil {
				t.Errorf("after it came back: %v", err)
			}
		})
	}
}

// counted is a counter's value for a label value.
func counted(t *testing.T, g prometheus.Gatherer, name, label string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && len(m.GetLabel()) > 0 && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func wantFault(t *testing.T, err error, url, reason, words string) {
	t.Helper()
	var f *Fault
	switch {
	case !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrAbsent) || !errors.As(err, &f):
		t.Fatalf("error is %v, want a Fault", err)
	case f.Reason != reason || !strings.Contains(err.Error(), words):
		t.Errorf("reason %q in %q, want %q with %q", f.Reason, err, reason, words)
	case !strings.Contains(err.Error(), url):
		t.Errorf("%q does not name %s", err, url)
	case len(err.Error()) > 600:
		t.Errorf("error of %d bytes", len(err.Error()))
	}
}

// until waits for ok, 20 s at most.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// TestEmptySchema: a schema that cannot be used is no outage.
func TestEmptySchema(t *testing.T) {
	w := newWorld(t)
	w.misbehave(says(200, `{"schema":""}`))
	c := w.client(t)
	if s, err := c.Resolve(t.Context(), 1); err != nil || s.Codec != nil || s.Unsupported == nil || c.Ready() != nil {
		t.Errorf("got %+v, %v, ready %v", s, err, c.Ready())
	}
}

// TestOnly40403DeniesAnID: another 404 of the registry is no answer about it.
func TestOnly40403DeniesAnID(t *testing.T) {
	w := newWorld(t)
	for code, want := range map[int]error{40401: ErrUnavailable, 40402: ErrUnavailable, 40408: ErrRefused, 40403: ErrAbsent} {
		w.misbehave(says(404, fmt.Sprintf(`{"error_code":%d,"message":"no"}`, code)))
		_, err := w.client(t).Resolve(t.Context(), 1)
		wantIs(t, err, want)
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := "http://" + l.Addr().String()
	_ = l.Close()
	c, err := New(Config{URLs: []string{address}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Resolve(t.Context(), 1)
	wantFault(t, err, address, refused, "connection refused")
	w := newWorld(t)
	c = w.client(t, func(cfg *Config) { cfg.URLs = []string{strings.Replace(w.URL(), "http://", "https://", 1)} })
	_, err = c.Resolve(t.Context(), 1)
	wantFault(t, err, "https://", unencrypted, "--registry-ca")
	secure := httptest.NewTLSServer(w.Handler())
	defer secure.Close()
	c = w.client(t, func(cfg *Config) { cfg.URLs = []string{secure.URL} })
	_, err = c.Resolve(t.Context(), 1)
	wantFault(t, err, secure.URL, unencrypted, "certificate")
	id := w.register(t, "demo.Message", message)
	c = w.client(t, func(cfg *Config) { cfg.URLs, cfg.HTTP = []string{secure.URL}, secure.Client() })
	if _, err := c.Resolve(t.Context(), id); err != nil {
		t.Errorf("with the certificate of its authority: %v", err)
	}
}

// TestNextAddress: a registry of several nodes is asked elsewhere when one
// does not answer as a registry.
func TestNextAddress(t *testing.T) {
	for _, bad := range badAnswers {
		t.Run(bad.name, func(t *testing.T) {
			t.Parallel()
			if bad.reason == wrongAnswer {
				t.Skip("JSON of another kind is noticed after the choice of the address")
			}
			w := newWorld(t)
			id := w.register(t, "demo.Message", message)
			first := httptest.NewServer(bad.answer)
			defer first.Close()
			c := w.client(t, func(cfg *Config) {
				cfg.URLs = []string{first.URL, w.URL()}
				cfg.MaxResponse, cfg.Timeout = 200<<10, 300*time.Millisecond
			})
			if _, err := c.Resolve(t.Context(), id); err != nil || c.Ready() != nil {
				t.Errorf("got %v, ready %v", err, c.Ready())
			}
		})
	}
}

// TestMemoryIsBounded: of an endless answer only the bound is read, and only a
// few answers are read at a time.
func TestMemoryIsBounded(t *testing.T) {
	w := newWorld(t)
	var now, most atomic.Int64
	w.misbehave(func(rw http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		for {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		endless(rw, r)
		now.Add(-1)
	})
	c := w.client(t, func(cfg *Config) { cfg.MaxResponse, cfg.PerSecond = 1<<20, 1000 })
	done := make(chan error)
	for id := range 100 {
		go func() { _, err := c.Resolve(t.Context(), id+1); done <- err }()
	}
	for range 100 {
		wantIs(t, <-done, ErrUnavailable)
	}
	// A server may not have noticed the end of an answer when the next begins.
	if got := most.Load(); got > 2*maxAtOnce {
		t.Errorf("%d answers at once", got)
	}
}

// TestCredentials: they are asked for each time, refused ones say so, and
// neither log nor error shows them.
func TestCredentials(t *testing.T) {
	w := &world{Registry: srfake.New(srfake.WithAuth("Basic dTpuZXc="))} // u:new
	t.Cleanup(w.Close)
	id := w.register(t, "demo.Message", message)
	var password atomic.Value
	password.Store("old-secret")
	c := w.client(t, func(cfg *Config) {
		cfg.Now = nil
		cfg.Username, cfg.Password = func() string { return "u" }, func() string { return password.Load().(string) }
	})
	_, err := c.Resolve(t.Context(), id)
	wantFault(t, err, w.URL(), unauthorized, "answered 403: it does not accept the user or the password (--registry-user, --registry-password)")
	if strings.Contains(err.Error(), "old-secret") {
		t.Errorf("it shows the password: %v", err)
	}
	password.Store("new")
	until(t, "the new password is used", func() bool { return c.Ready() == nil })
	if _, err := c.Resolve(t.Context(), id); err != nil {
		t.Error(err)
	}
	c = w.client(t, func(cfg *Config) { cfg.URLs = []string{strings.Replace(w.URL(), "://", "://u:new@", 1)} })
	if _, err := c.Resolve(t.Context(), id); err != nil {
		t.Error(err)
	}
	w.misbehave(says(200, `{"schema":5}`))
	if _, err := c.Resolve(t.Context(), 99); err == nil || strings.Contains(err.Error(), ":new@") {
		t.Errorf("error is %v", err)
	}
	_, err = New(Config{URLs: []string{"http://u:pa%zz@host"}})
	if err == nil || strings.Contains(err.Error(), "pa%zz") {
		t.Errorf("error is %v", err)
	}
}

// TestRedirectIsNotFollowed: the password does not travel on.
func TestRedirectIsNotFollowed(t *testing.T) {
	var arrived atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived.Add(1) }))
	defer other.Close()
	w := newWorld(t)
	w.misbehave(func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, other.URL, http.StatusTemporaryRedirect)
	})
	c := w.client(t, func(cfg *Config) {
		cfg.Username, cfg.Password = func() string { return "u" }, func() string { return "p" }
	})
	_, err := c.Resolve(t.Context(), 1)
	wantFault(t, err, w.URL(), redirected, other.URL)
	_, err = c.Register(t.Context(), "", message, "")
	wantIs(t, err, ErrUnavailable)
	if arrived.Load() > 0 {
		t.Error("it was followed")
	}
}

// TestGoneIsNotDown: who gives up says nothing about the registry.
func TestGoneIsNotDown(t *testing.T) {
	w := newWorld(t)
	arrived := make(chan struct{})
	w.misbehave(func(_ http.ResponseWriter, r *http.Request) { close(arrived); <-r.Context().Done() })
	c := w.client(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	err := c.Preload(ctx)
	var f *Fault
	if !errors.As(err, &f) || f.Reason != cancelled || c.Ready() != nil {
		t.Errorf("got %v, ready %v", err, c.Ready())
	}
}
