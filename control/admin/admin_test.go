package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestAdminPort(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "spillway_test_answers_total"}, func() float64 { return 42 }))
	s := New(Version{Version: "v1", Go: "go1.26"}, reg)
	var broken error
	s.Check("route", func() error { return broken })
	s.Check("audit", func() error { return nil })

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, l) }()

	get := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Get("http://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	if code, body := get("/readyz"); code != 503 || body != "process: is starting\n" {
		t.Errorf("/readyz before all parts are there: %d %q", code, body)
	}
	s.Started()
	for _, c := range []struct {
		path string
		code int
		body string
	}{
		{"/healthz", 200, "ok"}, {"/readyz", 200, "ok"}, {"/metrics", 200, "spillway_test_answers_total 42"},
		{"/version", 200, `"version":"v1"`}, {"/debug/pprof/", 200, "goroutine"}, {"/nothing", 404, ""},
	} {
		if code, body := get(c.path); code != c.code || !strings.Contains(body, c.body) {
			t.Errorf("%s: %d %q, want %d with %q", c.path, code, body, c.code, c.body)
		}
	}
	broken = errors.New("no partitions assigned")
	if code, body := get("/readyz"); code != 503 || body != "route: no partitions assigned\n" {
		t.Errorf("/readyz: %d %q", code, body)
	}
	var missed error
	s.Lacks("registry", func() error { return missed })
	broken, missed = nil, errors.New("does not answer\nfor long")
	if code, body := get("/readyz"); code != 200 || body != "ok\ndegraded: registry: does not answer; for long\n" {
		t.Errorf("/readyz without a part that can be done without: %d %q", code, body)
	}
	broken = errors.New("no partitions assigned")
	if code, body := get("/readyz"); code != 503 || body != "route: no partitions assigned\n" {
		t.Errorf("/readyz with both: %d %q", code, body)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestOperators(t *testing.T) {
	s := New(Version{Version: "v1"}, prometheus.NewRegistry())
	s.Operators(func(token string) error {
		if token != "good" {
			return errors.New("role: want operator")
		}
		return nil
	})
	s.Started()
	for _, c := range []struct {
		path, authorization string
		code                int
	}{
		{"/healthz", "", 200}, {"/readyz", "", 200},
		{"/metrics", "", 401}, {"/metrics", "Basic good", 401}, {"/metrics", "Bearer bad", 403}, {"/metrics", "Bearer good", 200},
		{"/version", "", 401}, {"/version", "Bearer good", 200},
		{"/debug/pprof/", "", 401}, {"/debug/pprof/heap", "", 401}, {"/debug/pprof/profile", "", 401}, {"/debug/pprof/trace", "", 401},
		{"/debug/pprof/heap", "Bearer good", 200}, {"/debug/pprof/cmdline", "Bearer good", 404},
	} {
		r := httptest.NewRequest(http.MethodGet, c.path, nil)
		if c.authorization != "" {
			r.Header.Set("Authorization", c.authorization)
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code != c.code {
			t.Errorf("%s with %q: %d, want %d", c.path, c.authorization, w.Code, c.code)
		}
	}
}
