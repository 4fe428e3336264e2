package engine

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// gate answers on the port while no child does: 503 and the reason, in one
// line. It owns the listener for the engine's whole life and only stops
// accepting while a child, which has the same socket, accepts itself.
//
//	serve --accepts--> 503       pause: parked, the child accepts
//	  ^______ resume ______________________|
type gate struct {
	l   *net.TCPListener
	srv *http.Server

	mu     sync.Mutex
	moved  sync.Cond // at each change of the fields below
	paused bool
	parked bool // Accept has noticed the pause
	closed bool
}

func newGate(l *net.TCPListener, e *Engine) *gate {
	g := &gate{l: l}
	g.moved.L = &g.mu
	g.srv = &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, _ := e.State()
		w.Header().Set("Retry-After", "1")
		w.Header().Set("Connection", "close") // the next attempt may be the child's
		http.Error(w, fmt.Sprintf("the ClickHouse engine is not ready: %s", s), http.StatusServiceUnavailable)
	})}
	return g
}

// serve answers until close.
func (g *gate) serve() error {
	if err := g.srv.Serve(g); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("engine port: %w", err)
	}
	return nil
}

// pause returns once no connection is accepted here any more.
func (g *gate) pause() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = true
	_ = g.l.SetDeadline(time.Unix(1, 0)) // wakes Accept; fails only when closed
	for !g.parked && !g.closed {
		g.moved.Wait()
	}
}

// resume accepts again.
func (g *gate) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = false
	_ = g.l.SetDeadline(time.Time{})
	g.moved.Broadcast()
}

// close ends serve. It cuts connections: they only carry refusals.
func (g *gate) close() error { return g.srv.Close() }

// Accept, Close and Addr make the gate the listener of its own server.
func (g *gate) Accept() (net.Conn, error) {
	for {
		g.mu.Lock()
		for g.paused && !g.closed {
			g.parked = true
			g.moved.Broadcast()
			g.moved.Wait()
		}
		g.parked = false
		g.mu.Unlock()
		c, err := g.l.Accept()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return c, err
		}
	}
}

// Close is for the server's use.
func (g *gate) Close() error {
	g.mu.Lock()
	g.closed = true
	g.moved.Broadcast()
	g.mu.Unlock()
	return g.l.Close()
}

// Addr is the listener's.
func (g *gate) Addr() net.Addr { return g.l.Addr() }
