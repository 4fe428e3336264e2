package audit

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// A sickness is what a server answers instead of doing what it is asked.
type sickness struct {
	name, reason string
	answer       func(http.ResponseWriter, *http.Request)
	said         string // in the log and on /readyz
}

// exception answers as ClickHouse does.
func exception(status, code int, text string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("X-ClickHouse-Exception-Code", fmt.Sprint(code))
		w.WriteHeader(status)
		fmt.Fprintf(w, "Code: %d. DB::Exception: %s (version 26.3.1.1 (official build))\n", code, text)
	}
}

func page(status int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(status)
		fmt.Fprintf(w, "<html><body><h1>It broke</h1>\n%s\n%v</body></html>", strings.Repeat("<p>x</p>\n", 1000), r.Header)
	}
}

// cut reads a part of the request and resets the connection.
func cut(w http.ResponseWriter, r *http.Request) {
	_, _ = io.ReadFull(r.Body, make([]byte, 64))
	panic(http.ErrAbortHandler)
}

var sicknesses = []sickness{
	{"a user who may only read", "read_only", exception(500, 164, "default: Cannot execute query in readonly mode. (READONLY)"), "--clickhouse-user"},
	{"a table that is read-only", "read_only", exception(500, 242, "Table is in readonly mode: replica_path=/x (TABLE_IS_READ_ONLY)"), "TABLE_IS_READ_ONLY"},
	{"no space", "disk_full", exception(500, 243, "Cannot reserve 1.00 MiB, not enough space (NOT_ENOUGH_SPACE)"), "no disk space"},
	{"no memory", "memory_limit", exception(500, 241, "Memory limit (total) exceeded (MEMORY_LIMIT_EXCEEDED)"), "memory limit"},
	{"too many parts", "too_many_parts", exception(500, 252, "Too many parts (3000). Merges are processing significantly slower than inserts. (TOO_MANY_PARTS)"), "3000"},
	{"wrong password", "auth_failed", exception(403, 516, "default: Authentication failed: password is incorrect (AUTHENTICATION_FAILED)"), "--clickhouse-password"},
	{"wrong password, older servers", "auth_failed", exception(403, 193, "Wrong password for user default (WRONG_PASSWORD)"), "--clickhouse-password"},
	{"no grant", "not_allowed", exception(403, 497, "default: Not enough privileges. (ACCESS_DENIED)"), "lacks a grant"},
	{"500 with a page", "not_clickhouse", page(500), "HTTP status 500"},
	{"200 with a page", "not_clickhouse", page(200), "HTTP status 200"},
	{"502 in plain text", "not_clickhouse", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "bad gateway", 502) }, "bad gateway"},
	{"cut in the middle", "cut", cut, "ended before the answer"},
	{"no answer", "timeout", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}, "no answer in time"},
}

// A ward is a server that is as sick as it is told, before a sound one.
type ward struct {
	now    atomic.Pointer[sickness]
	hits   atomic.Int32
	server Server
}

func newWard(t *testing.T, behind Server) *ward {
	t.Helper()
	target, err := url.Parse(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	w := &ward{}
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if ill := w.now.Load(); ill != nil {
			w.hits.Add(1)
			ill.answer(rw, r)
			return
		}
		proxy.ServeHTTP(rw, r)
	}))
	t.Cleanup(srv.Close)
	w.server = Server{URL: srv.URL, Database: behind.Database, User: "default", Password: "hunter2secret"}
	return w
}

// lines is a log that is read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.b.String()
	l.b.Reset()
	return s
}

func (s *Sink) failures(part, reason string) float64 {
	var m dto.Metric
	_ = s.metrics.failures.WithLabelValues(part, reason).Write(&m)
	return m.Counter.GetValue()
}

// TestSickClickHouse: each sickness is one line in the log however often it is
// met, a reason on /readyz and in the metrics; nothing is committed meanwhile,
// and afterwards the sink catches up by itself with each event once.
func TestSickClickHouse(t *testing.T) {
	w := newWorld(t)
	server := newWard(t, w.server)
	log := &lines{}
	cfg := w.config()
	cfg.Server, cfg.InsertTimeout = server.server, 500*time.Millisecond
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	s, stop := w.run(cfg)
	n := 0
	put := func() {
		for range 20 {
			w.put(w.event("acme", n))
			n++
		}
	}
	put()
	w.await("SELECT count() FROM v_events", uint64(n))
	log.take()
	for i := range sicknesses {
		ill := &sicknesses[i]
		server.hits.Store(0)
		server.now.Store(ill)
		before := s.failures(partClickHouse, ill.reason)
		put()
		awaitTrue(t, ill.name+": tried again", func() bool { return server.hits.Load() > 2 && s.failures(partClickHouse, ill.reason) > before+1 })
		err := s.Ready()
		if err == nil || !strings.Contains(err.Error(), ill.reason+": ") || !strings.Contains(err.Error(), ill.said) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: ready says %v", ill.name, err)
		}
		if stored := count(t, w.conn, "SELECT count() FROM v_events"); stored != uint64(n-20) {
			t.Errorf("%s: %d events are stored", ill.name, stored)
		}
		server.now.Store(nil)
		w.await("SELECT count() FROM v_events", uint64(n))
		awaitTrue(t, ill.name+": ready again", func() bool { return s.Ready() == nil })
		said := log.take()
		if got := strings.Count(said, "cannot go on now"); got != 1 || !strings.Contains(said, ill.said) || len(said) > 1500 {
			t.Errorf("%s: %d lines:\n%s", ill.name, got, said)
		}
		if !strings.Contains(said, "the audit goes on") {
			t.Errorf("%s: its end is not logged:\n%s", ill.name, said)
		}
		if text := said + err.Error(); strings.Contains(text, "hunter2") || strings.Contains(text, "aHVudGVyMnNlY3JldA") {
			t.Errorf("%s: the password is told: %s", ill.name, text)
		}
	}
	if stored := count(t, w.conn, "SELECT uniqExact(event_id) FROM v_events"); stored != uint64(n) {
		t.Errorf("%d events, want %d", stored, n)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.checkCommitted()
}

// TestSickFromTheStart: a sink that never could reach its tables says why, once.
func TestSickFromTheStart(t *testing.T) {
	w := newWorld(t)
	server := newWard(t, w.server)
	old := &sickness{answer: func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("query") == "SELECT version()" {
			fmt.Fprintln(rw, "18.16.1")
			return
		}
		exception(500, 115, "Unknown setting client_protocol_version")(rw, r)
	}}
	server.now.Store(old)
	log := &lines{}
	cfg := w.config()
	cfg.Server, cfg.Logger = server.server, slog.New(slog.NewTextHandler(log, nil))
	s, stop := w.run(cfg)
	awaitTrue(t, "asked thrice", func() bool { return server.hits.Load() > 6 })
	if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "too_old: ") || !strings.Contains(err.Error(), "it is ClickHouse 18.16, and 24.8 or newer is needed") {
		t.Errorf("ready says %v", err)
	}
	w.put(w.event("acme", 0))
	server.now.Store(nil)
	w.await("SELECT count() FROM v_events", 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if said := log.take(); strings.Count(said, "cannot go on now") != 1 {
		t.Errorf("the log:\n%s", said)
	}
	w.checkCommitted()
}

// TestDroppedUnderOneWhoMayNotMake: without Migrate a missing table is named,
// with what makes it.
func TestDroppedUnderOneWhoMayNotMake(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.Migrate = false
	s, stop := w.run(cfg)
	awaitTrue(t, "the tables are missed", func() bool {
		err := s.Ready()
		return err != nil && strings.Contains(err.Error(), "unknown_table: ") && strings.Contains(err.Error(), "spillway setup")
	})
	if _, err := Migrate(t.Context(), MigrateConfig{Server: w.server}); err != nil {
		t.Fatal(err)
	}
	w.put(w.event("acme", 0))
	w.await("SELECT count() FROM v_events", 1)
	if err := w.conn.Exec(t.Context(), "RENAME DATABASE "+w.server.Name()+" TO "+w.server.Name()+"_away"); err != nil {
		t.Skip("this engine renames no database: ", err)
	}
	w.put(w.event("acme", 1))
	awaitTrue(t, "the database is missed", func() bool {
		err := s.Ready()
		return err != nil && strings.Contains(err.Error(), "unknown_database: ")
	})
	if err := connect(t, Server{URL: w.server.URL, Database: "default"}).Exec(t.Context(), "RENAME DATABASE "+w.server.Name()+"_away TO "+w.server.Name()); err != nil {
		t.Fatal(err)
	}
	w.await("SELECT count() FROM v_events", 2)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}
