// Package process is the life of a process that runs roles: its admin port, its
// log, the order in which parts start and stop, and what SIGHUP does.
//
//	start: control … ingest        stop, one after the other: ingest … control
//
// A part that ends by itself ends the process; what was started later is
// stopped first, so what was accepted is still decided, delivered and audited.
// It knows no role.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/spillway/spillway/control/admin"
)

// Role is what every layer gives its wiring.
type Role interface {
	// Run works until ctx ends and returns when all it started has ended.
	Run(ctx context.Context) error
	// Ready says at once why the role cannot do its work now, nil if it can.
	Ready() error
}

// A Process runs parts. One goroutine starts them and waits.
type Process struct {
	Log     *slog.Logger
	Metrics *prometheus.Registry
	Admin   *admin.Server

	ctx   context.Context // ends when the parts shall stop
	end   context.CancelCauseFunc
	parts []part // in the order in which they were started

	hangup chan os.Signal // never closed

	mu      sync.Mutex
	reloads []reload
}

// A part runs until its stop is called.
type part struct {
	stop context.CancelFunc
	done chan error // its end; closed
}

// A reload is something that is read again at SIGHUP.
type reload struct {
	what string
	read func() error
}

// New returns a process without parts. It ends when ctx does.
func New(ctx context.Context, version admin.Version, log *slog.Logger) *Process {
	p := &Process{Log: log, Metrics: prometheus.NewRegistry()}
	p.Metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	p.Admin = admin.New(version, p.Metrics)
	p.ctx, p.end = context.WithCancelCause(ctx)
	p.hangup = make(chan os.Signal, 1)
	signal.Notify(p.hangup, syscall.SIGHUP) // before anything can be told to send one
	p.Run("reload", p.onHangup)
	return p
}

// Context ends when the parts shall stop.
func (p *Process) Context() context.Context { return p.ctx }

// End has the parts stop.
func (p *Process) End(cause error) { p.end(cause) }

// Start runs r as part of the process and has /readyz ask it.
func (p *Process) Start(name string, r Role) {
	p.Admin.Check(name, r.Ready)
	p.Run(name, r.Run)
}

// Run runs a part until it is its turn to stop.
func (p *Process) Run(name string, run func(context.Context) error) {
	ctx, stop := context.WithCancel(context.WithoutCancel(p.ctx))
	done := make(chan error, 1)
	go func() {
		defer close(done)
		err := run(ctx)
		switch {
		case ctx.Err() == nil && err == nil:
			err = errors.New("ended by itself")
		case ctx.Err() != nil && errors.Is(err, context.Canceled):
			err = nil
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
			p.end(err)
			done <- err
		}
	}()
	p.parts = append(p.parts, part{stop, done})
}

// Wait returns when the process shall end and all its parts have ended.
func (p *Process) Wait() error {
	<-p.ctx.Done()
	var errs []error
	for _, part := range slices.Backward(p.parts) {
		part.stop()
		errs = append(errs, <-part.done)
	}
	return errors.Join(errs...)
}

// OnHangup has something read again at SIGHUP.
func (p *Process) OnHangup(what string, read func() error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reloads = append(p.reloads, reload{what, read})
}

func (p *Process) onHangup(ctx context.Context) error {
	defer signal.Stop(p.hangup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.hangup:
		}
		p.mu.Lock()
		all := slices.Clone(p.reloads)
		p.mu.Unlock()
		for _, r := range all {
			if err := r.read(); err != nil {
				p.Log.Error("not read again, the old ones stay", "what", r.what, "err", err)
				continue
			}
			p.Log.Info("read again", "what", r.what)
		}
	}
}

// ServeAdmin opens the admin port. On an address that others can reach, verify
// says whether a token is an operator's; it may be nil on loopback only.
func (p *Process) ServeAdmin(address, flag string, verify func(token string) error) error {
	l, err := Listen(address, flag)
	if err != nil {
		return err
	}
	if !Loopback(l) {
		if verify == nil {
			l.Close()
			return fmt.Errorf("%s %s: others can reach this address, so operators must show a token there: give --auth-keys or --auth-jwks", flag, address)
		}
		p.Admin.Operators(verify)
	}
	p.Run("admin", func(ctx context.Context) error { return p.Admin.Run(ctx, l) })
	return nil
}

// Listen opens a port; the error names it and the flag that moves it.
func Listen(address, flag string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s is taken or cannot be opened (%w): choose another with %s", address, err, flag)
	}
	return l, nil
}

// Loopback reports whether only this machine can reach a listener.
func Loopback(l net.Listener) bool {
	address, ok := l.Addr().(*net.TCPAddr)
	return ok && address.IP.IsLoopback()
}

// Logger writes lines of a level (debug, info, warn, error) and above as text
// or as json.
func Logger(w io.Writer, level, format string) *slog.Logger {
	var least slog.Level
	_ = least.UnmarshalText([]byte(level)) // flags are enums; nonsense is info
	o := &slog.HandlerOptions{Level: least}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
