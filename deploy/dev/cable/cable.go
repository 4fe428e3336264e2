// Package cable is a process's network to Kafka for tests of crashes: at one
// request it is cut, as kill -9 does, or everything is held, as SIGSTOP does.
//
//	client ─ Dial ─▶ cable ─▶ broker
//	                   ▲ the left-th request At: cut or held, just before it is sent or just after
package cable

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrCut is what dialing and writing give once the cable is cut.
var ErrCut = errors.New("the network is cut")

// A Point says at which request something happens.
type Point struct {
	At    kmsg.Key // its kind
	Left  int      // how many of them pass before
	After bool     // it is sent, its answer is not heard
}

// A Cable may be used by any number of connections at once.
type Cable struct {
	point Point
	holds bool
	done  chan struct{}

	mu     sync.Mutex
	passed int
	conns  []net.Conn
	cut    bool
	held   chan struct{} // not nil: nothing moves until it is closed
}

// Cut is cut at the point: from then on nothing reaches Kafka any more.
func Cut(p Point) *Cable { return &Cable{point: p, done: make(chan struct{})} }

// Hold holds everything at the point until Resume: what was about to be sent
// is sent then, however late.
func Hold(p Point) *Cable { return &Cable{point: p, holds: true, done: make(chan struct{})} }

// Done is closed once the cable is cut, or holds.
func (c *Cable) Done() <-chan struct{} { return c.done }

// Dial is for kgo.Dialer.
func (c *Cable) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c.wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return nil, ErrCut
	}
	var d net.Dialer
	tcp, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c.conns = append(c.conns, tcp)
	return &conn{Conn: tcp, c: c}, nil
}

// Sever cuts the cable now.
func (c *Cable) Sever() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return
	}
	c.cut = true
	for _, tcp := range c.conns {
		_ = tcp.Close()
	}
	close(c.done)
}

// Resume ends what Hold began. Call it once, after Done.
func (c *Cable) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.held)
	c.held = nil
}

func (c *Cable) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = make(chan struct{})
}

func (c *Cable) wait() {
	c.mu.Lock()
	held := c.held
	c.mu.Unlock()
	if held != nil {
		<-held
	}
}

// reached counts a request and reports whether this is the one.
func (c *Cable) reached(request []byte) bool {
	if len(request) < 8 || kmsg.Key(binary.BigEndian.Uint16(request[4:])) != c.point.At {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.passed++
	return c.passed == c.point.Left+1
}

type conn struct {
	net.Conn
	c       *Cable
	writing sync.Mutex
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.c.wait()
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.c.wait()
	this := c.c.reached(b)
	switch {
	case this && c.c.holds:
		return c.writeHeld(b)
	case this && !c.c.point.After:
		c.c.Sever()
		return 0, ErrCut
	}
	n, err := c.Conn.Write(b)
	if this {
		c.c.Sever()
	}
	return n, err
}

func (c *conn) writeHeld(b []byte) (int, error) {
	c.c.hold()
	if c.c.point.After {
		defer close(c.c.done)
		return c.Conn.Write(b)
	}
	close(c.c.done)
	c.c.wait()
	return c.Conn.Write(b)
}

// SetWriteDeadline and Close leave alone what a held process is about to send.
func (c *conn) SetWriteDeadline(t time.Time) error {
	if c.c.holds {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}

func (c *conn) Close() error {
	if c.c.holds {
		c.c.wait()
		c.writing.Lock()
		defer c.writing.Unlock()
	}
	return c.Conn.Close()
}
