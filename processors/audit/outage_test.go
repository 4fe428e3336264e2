package audit

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillway/spillway/schemas"
)

// A gate stands before ClickHouse and fails as told.
type gate struct {
	mode   atomic.Int32
	hits   atomic.Int32 // requests that were failed
	server Server
}

const (
	open     = iota
	down     // 503, nothing is forwarded: failed, not applied
	loseAck  // forwarded, and the answer of inserts thrown away: failed, but applied
	hangFull // accepted and never answered
)

func newGate(t *testing.T, behind Server) *gate {
	t.Helper()
	target, err := url.Parse(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{}
	proxy := httputil.NewSingleHostReverseProxy(target)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mode := g.mode.Load()
		insert := strings.HasPrefix(r.URL.Query().Get("query"), "INSERT")
		switch {
		case mode == down:
			g.hits.Add(1)
			http.Error(w, "the engine is not ready: fetching, 40 %", http.StatusServiceUnavailable)
		case mode == loseAck && insert:
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			g.hits.Add(1)
			panic(http.ErrAbortHandler)
		case mode == hangFull && insert:
			g.hits.Add(1)
			_, _ = io.Copy(io.Discard, r.Body) // or the server does not see the client leave
			<-r.Context().Done()
		default:
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	g.server = Server{URL: srv.URL, Database: behind.Database}
	return g
}

// awaitTrue polls a condition for 20 s.
func awaitTrue(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
		if err := wait(t.Context(), 10*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
}

func TestClickHouseDownAndBack(t *testing.T) {
	w := newWorld(t)
	g := newGate(t, w.server)
	g.mode.Store(down)
	cfg := w.config()
	cfg.Server, cfg.InsertTimeout = g.server, time.Second
	s, stop := w.run(cfg)
	w.put(w.event("acme", 0))
	awaitTrue(t, "asked while it is down", func() bool { return g.hits.Load() > 0 })
	if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "fetching, 40 %") {
		t.Errorf("ready says %v", err)
	}
	n := 1
	for _, mode := range []int32{open, down, loseAck, hangFull, open} {
		before := g.hits.Load()
		g.mode.Store(mode)
		w.put(w.event("acme", n))
		n++
		if mode != open {
			awaitTrue(t, "an insert failed", func() bool { return g.hits.Load() > before+1 })
			awaitTrue(t, "ready says why", func() bool {
				err := s.Ready()
				return err != nil && strings.Contains(err.Error(), "the topics hold them")
			})
			g.mode.Store(open)
		}
		w.await("SELECT count() FROM v_events", uint64(n))
		awaitTrue(t, "ready again", func() bool { return s.Ready() == nil })
	}
	if stored := count(t, w.conn, "SELECT count() FROM v_status_now"); stored != uint64(n) {
		t.Errorf("%d events, want %d", stored, n)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.checkCommitted()
}

// TestStopWhileDown: what was not written is not committed, and the next start
// writes it. Stopping does not wait for ClickHouse.
func TestStopWhileDown(t *testing.T) {
	w := newWorld(t)
	g := newGate(t, w.server)
	cfg := w.config()
	cfg.Server = g.server
	_, stop := w.run(cfg)
	w.put(w.event("acme", 0))
	w.await("SELECT count() FROM v_events", 1)
	g.mode.Store(down)
	w.put(w.event("acme", 1), w.event("acme", 2))
	awaitTrue(t, "an insert failed", func() bool { return g.hits.Load() > 0 })
	began := time.Now()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("stopping took %v", took)
	}
	g.mode.Store(open)
	_, stop = w.run(cfg)
	w.await("SELECT count() FROM v_events", 3)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.checkCommitted()
}

// TestDatabaseDropped: a database that vanishes is made anew, and only what
// comes from then on is in it.
func TestDatabaseDropped(t *testing.T) {
	w := newWorld(t)
	_, stop := w.run(w.config())
	w.put(w.event("acme", 0))
	w.await("SELECT count() FROM v_events", 1)
	if err := w.conn.Exec(t.Context(), "DROP DATABASE "+w.server.Name()); err != nil {
		t.Fatal(err)
	}
	w.put(w.event("acme", 1))
	w.await("SELECT count() FROM v_events", 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestTwoSinksShare: a second one takes partitions over, the first one leaves,
// and every event is counted once.
func TestTwoSinksShare(t *testing.T) {
	w := newWorld(t)
	first := w.config()
	_, stopFirst := w.run(first)
	const n = 200
	for i := range n / 2 {
		w.put(w.event("acme", i))
	}
	second := w.config()
	second.Node = "n2"
	_, stopSecond := w.run(second)
	for i := n / 2; i < n; i++ {
		w.put(w.event("acme", i))
	}
	if err := stopFirst(); err != nil {
		t.Fatal(err)
	}
	w.await("SELECT count() FROM v_events", n)
	if err := stopSecond(); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if got := count(t, w.conn, fmt.Sprintf("SELECT count() FROM v_events WHERE tenant = 'acme' AND event_id = 'ev-%d'", i)); got != 1 {
			t.Errorf("event %d: %d rows", i, got)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	good := func() Config {
		w := world{server: Server{URL: "http://h:1"}, topics: schemas.Topics{}}
		c := w.config()
		c.Kafka = append(c.Kafka, nil)
		return c
	}
	if c := good(); c.validate() != nil {
		t.Fatal(c.validate())
	}
	for name, change := range map[string]func(*Config){
		"Kafka": func(c *Config) { c.Kafka = nil }, "Secrets": func(c *Config) { c.Secrets = nil }, "Node": func(c *Config) { c.Node = "" },
		"MaxRows": func(c *Config) { c.MaxRows = -1 }, "InsertTimeout": func(c *Config) { c.InsertTimeout = time.Hour },
		"ClickHouse URL": func(c *Config) { c.Server.URL = "x" }, "SchemaIDs": func(c *Config) { c.SchemaIDs = nil }, "Now": func(c *Config) { c.Now = nil },
	} {
		c := good()
		change(&c)
		if err := c.validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
