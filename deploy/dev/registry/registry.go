// Package registry is the schema registry of `spillway dev`: the REST API of
// the Confluent Schema Registry, for Avro, with compatibility enforced, in one
// file that survives a restart.
//
//	client ──HTTP──▶ router.go   the table of paths; JSON in and out
//	                    │
//	                    ▼
//	                 register.go, delete.go, settings.go, read.go
//	                    │  may this happen?  (schemas/compat for 409)
//	                    ▼
//	                 journal.go  one JSON line for each change, fsynced …
//	                    │
//	                    ▼
//	                 state.go    … and only then applied in memory
//
// A journal, and not a file rewritten each time, because a change is then one
// append whose failure leaves everything before it as it was; replaying it
// runs the very code that applied the change the first time.
//
// It is not a cluster, has no contexts, no rule sets and no authentication.
// All of it is safe for concurrent use.
package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/spillway/spillway/schemas/compat"
)

const (
	defaultLevel = compat.FullTransitive // DESIGN 3.3
	drainTimeout = 5 * time.Second
)

// Config says where the registry lives.
type Config struct {
	// Dir holds journal.jsonl; it is created if absent. One registry at a
	// time may use it. Required.
	Dir string
	// Logger gets the registry's own lines, none of them per request; nil
	// discards them.
	Logger *slog.Logger
	// Registerer gets the metrics spillway_dev_registry_*; nil keeps them unseen.
	Registerer prometheus.Registerer
}

// A Registry answers the registry API as an http.Handler.
type Registry struct {
	log      *slog.Logger
	requests *prometheus.CounterVec
	unlock   func() error

	mu      sync.RWMutex
	state   *state
	journal *journal
	closed  bool
}

// Open reads the journal of the directory. A last line that was cut by a crash
// is dropped with a warning; any other line that cannot be read is an error,
// as is a directory in use.
func Open(cfg Config) (*Registry, error) {
	if cfg.Dir == "" {
		return nil, errors.New("registry: Dir is empty")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("registry: create directory: %w", err)
	}
	unlock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	r := &Registry{log: cfg.Logger, requests: newRequests(cfg.Registerer), unlock: unlock, state: newState()}
	r.journal, err = openJournal(filepath.Join(cfg.Dir, "journal.jsonl"), r.state.apply, cfg.Logger)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("registry: %w", err), unlock())
	}
	return r, nil
}

func newRequests(r prometheus.Registerer) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "spillway_dev_registry_requests_total",
		Help: "Requests answered by the schema registry, by error code (0: none).",
	}, []string{"code"})
	if r != nil {
		r.MustRegister(v)
	}
	return v
}

// Close releases the directory. Requests that come later, or still run, are
// answered with an error and change nothing. Closing again does nothing.
func (r *Registry) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	return errors.Join(r.journal.Close(), r.unlock())
}

// Serve answers HTTP on ln until ctx ends, lets running requests finish for up
// to 5 s, and returns when all connections are closed. It closes ln, not the
// Registry. Give it a loopback listener: whoever connects may change anything.
func (r *Registry) Serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{
		Handler:           r,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(r.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("registry: serve %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err := srv.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	<-served
	return err
}

// change journals a change and then applies it. The caller holds mu and has
// checked that it may happen. If we crash between the two, the next Open
// applies it: a client that got no answer may find its change made.
func (r *Registry) change(rec record) error {
	if r.closed {
		return fail(codeStore, "the registry is closed")
	}
	if err := r.journal.Append(rec); err != nil {
		r.log.Error("registry: journal", "err", err)
		return fail(codeStore, "%v", err)
	}
	if err := r.state.apply(rec); err != nil {
		panic(fmt.Sprintf("registry: a checked change does not apply: %v", err))
	}
	return nil
}
