// Package engine is a ClickHouse for one machine, without installing one: it
// fetches libchdb (the ClickHouse engine as a library) once, runs it in a child
// process and speaks the ClickHouse HTTP interface on a loopback port, so that
// clickhouse-go, curl and Grafana cannot tell. It is for `spillway dev`, CI and
// benchmarks; production points the same address at a ClickHouse server.
//
//	parent: New, Run                          child: Serve
//	npm pack -> check -> extract (fetch.go)
//	listener ------------------------------> same socket, inherited (package server)
//	503 + reason while there is no child      /?query=… -> libchdb
//	stdin pipe ----------------------------> closed: the parent died, stop
//	"ready" or "failed: …" <---------------- stdout
//
// The engine has a process of its own because it takes 200 MB, dies of its own
// faults, and serves one folder a process. The child accepts on the parent's
// socket itself: no proxy between client and engine, the port never closes
// while the child restarts, and somebody always answers. Both accept on it in
// turns: the parent steps back once the child is ready and returns when it ends.
//
// It is not a boundary: anyone who reaches the port may do anything with the
// data, and read files of this user, hence loopback only. It has one identity
// (default), no HTTP sessions, no external tables and no system logs.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spillway/spillway/deploy/dev/engine/server"
)

// Config of the parent's side.
type Config struct {
	// Command runs Serve in a new process: the binary and its subcommand. The
	// engine appends --lib PATH --dir PATH --max-memory-bytes N, passes the
	// listener as file descriptor 3, its life line as stdin, and reads stdout.
	Command []string
	// Dir keeps the data. One engine at a time may use it.
	Dir string
	// Listen is the loopback address to serve, such as "127.0.0.1:8123"; port 0
	// picks a free one (see Addr).
	Listen string
	// Cache keeps the fetched library, 566 MB, between runs and may be shared
	// by processes. Empty: DefaultCache.
	Cache string
	// MaxMemoryBytes is where the engine refuses a statement (code 241) rather
	// than grow. Zero: 90 % of the machine's memory.
	MaxMemoryBytes int64
	// Logger hears of the engine's life, and at debug of what the child prints.
	Logger *slog.Logger
}

// ServeConfig of the child's side.
type ServeConfig = server.Config

// Serve is the child's side, see server.Serve.
func Serve(ctx context.Context, cfg ServeConfig) error { return server.Serve(ctx, cfg) }

// Inherited is the listener the child gets, see server.Inherited.
func Inherited() (net.Listener, error) { return server.Inherited() }

// Phase is where an engine is in its life.
type Phase string

// The phases. Fetching, Starting and Ready follow each other; a child that dies
// goes back to Starting. Unavailable says why in State.Err; if the cause may
// pass (network, a locked folder) Run goes on trying and may still get to Ready.
const (
	Fetching    Phase = "fetching"
	Starting    Phase = "starting"
	Ready       Phase = "ready"
	Unavailable Phase = "unavailable"
	Stopped     Phase = "stopped" // or stopping, until Run returns
)

// State is what an Engine tells of itself.
type State struct {
	Phase    Phase
	Progress Progress // while Fetching
	Err      error    // while Unavailable: one line that names the remedy
	PID      int      // of the child, while Ready
}

// String is the state in a few words for a person.
func (s State) String() string {
	switch {
	case s.Phase == Fetching && s.Progress.Stage != "":
		return s.Progress.String()
	case s.Err != nil:
		return fmt.Sprintf("%s: %v", s.Phase, s.Err)
	}
	return string(s.Phase)
}

// Engine is the parent's side. Safe for concurrent use.
type Engine struct {
	cfg  Config
	gate *gate

	mu      sync.Mutex
	state   State         // guarded by mu
	changed chan struct{} // guarded by mu; closed and replaced at each change
}

// DefaultCache is where the library is kept if Config does not say:
// spillway/engine in the user's cache folder.
func DefaultCache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder for the ClickHouse engine: %w", err)
	}
	return filepath.Join(dir, "spillway", "engine"), nil
}

// New takes the port and returns at once; Run does the work. Its errors are
// those of the configuration and of a taken port.
func New(cfg Config) (*Engine, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	if err := server.LoopbackOnly(l.Addr()); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	e := &Engine{cfg: cfg, state: State{Phase: Fetching}, changed: make(chan struct{})}
	e.gate = newGate(l.(*net.TCPListener), e)
	return e, nil
}

func (c *Config) validate() (err error) {
	if c.Cache == "" {
		if c.Cache, err = DefaultCache(); err != nil {
			return err
		}
	}
	switch {
	case len(c.Command) == 0:
		return errors.New("engine: Command is empty")
	case c.Dir == "":
		return errors.New("engine: Dir is empty")
	case c.Logger == nil:
		return errors.New("engine: Logger is nil")
	case c.MaxMemoryBytes < 0:
		return fmt.Errorf("engine: MaxMemoryBytes is %d", c.MaxMemoryBytes)
	}
	return nil
}

// Addr is the address it serves, host:port.
func (e *Engine) Addr() string { return e.gate.l.Addr().String() }

// State is the present state and a channel that closes when it is no longer.
func (e *Engine) State() (State, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state, e.changed
}

// WaitReady blocks until the engine serves. It returns State.Err once the
// engine is unavailable, and ctx's error.
func (e *Engine) WaitReady(ctx context.Context) error {
	for {
		s, changed := e.State()
		switch s.Phase {
		case Ready:
			return nil
		case Unavailable:
			return s.Err
		case Stopped:
			return errors.New("the ClickHouse engine was stopped")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (e *Engine) set(s State) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.state = s
	close(e.changed)
	e.changed = make(chan struct{})
}

const (
	// restartMin and restartMax bound the doubling wait before a new child.
	restartMin = 250 * time.Millisecond
	restartMax = 30 * time.Second
	// soundAfter is how long a child must live for the wait to start anew.
	soundAfter = time.Minute
	// hopeless children in a row make the engine unavailable; tries go on.
	hopeless = 3
)

// Run fetches the library if need be, keeps a child alive, and blocks until ctx
// ends and the child is gone. It fails only if the port cannot be served; that
// there is no engine is a state, not an error.
func (e *Engine) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	closed := make(chan error, 1)
	go func() {
		defer cancel()
		closed <- e.gate.serve()
	}()
	if lib, ok := e.fetch(ctx); ok {
		e.keepAlive(ctx, lib)
	}
	<-ctx.Done()
	e.set(State{Phase: Stopped})
	return errors.Join(e.gate.close(), <-closed)
}

// fetch gets the library. It reports false when there can be none, or ctx ended.
func (e *Engine) fetch(ctx context.Context) (lib string, ok bool) {
	wait := newBackoff(2*time.Second, time.Minute)
	for {
		lib, err := Fetch(ctx, e.cfg.Cache, func(p Progress) { e.set(State{Phase: Fetching, Progress: p}) })
		if err == nil {
			return lib, true
		}
		if ctx.Err() != nil {
			return "", false
		}
		e.cfg.Logger.Warn("no ClickHouse engine", "err", err)
		e.set(State{Phase: Unavailable, Err: err})
		if errors.Is(err, errPermanent) || !wait.sleep(ctx) {
			return "", false
		}
	}
}

// keepAlive runs one child after the other until ctx ends.
func (e *Engine) keepAlive(ctx context.Context, lib string) {
	wait := newBackoff(restartMin, restartMax)
	for failed := 0; ctx.Err() == nil; {
		if failed < hopeless {
			e.set(State{Phase: Starting})
		}
		sound, err := e.runChild(ctx, lib)
		if ctx.Err() != nil {
			return
		}
		e.cfg.Logger.Warn("ClickHouse engine ended, starting it again", "err", err)
		if failed++; sound {
			failed = 1
			wait.reset()
		}
		if failed >= hopeless {
			e.set(State{Phase: Unavailable, Err: fmt.Errorf("the ClickHouse engine does not stay up: %w (remedy: --clickhouse URL uses a server instead)", err)})
		}
		if !wait.sleep(ctx) {
			return
		}
	}
}
