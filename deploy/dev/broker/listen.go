package broker

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// errFrame says that a connection does not speak the Kafka protocol, or sends
// more at once than is taken. The connection is closed.
var errFrame = errors.New("broker: not a Kafka request")

// listener hands kfake only connections whose frames it can stand: kfake
// allocates whatever a frame's length says (the bytes "GET " are 1.2 GB) and
// panics at a request key that it does not know.
type listener struct {
	net.Listener
	max     int
	log     *slog.Logger
	metrics *metrics
	known   []bool // by request key

	mu   sync.Mutex
	open map[*conn]struct{}
	wg   sync.WaitGroup
}

func newListener(ln net.Listener, max int, log *slog.Logger, m *metrics) *listener {
	known := make([]bool, kmsg.MaxKey+1)
	for key := range known {
		known[key] = kmsg.RequestForKey(int16(key)) != nil
	}
	return &listener{Listener: ln, max: max, log: log, metrics: m, known: known, open: make(map[*conn]struct{})}
}

// Accept returns the next connection within the bound.
func (l *listener) Accept() (net.Conn, error) {
	for {
		tcp, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: tcp, l: l, r: bufio.NewReaderSize(tcp, 64<<10)}
		if l.add(c) {
			return c, nil
		}
		l.metrics.refused.WithLabelValues(refusedConns).Inc()
		l.log.Warn("broker: too many connections", "max", l.max, "peer", tcp.RemoteAddr().String())
		_ = tcp.Close() // refused: nothing was said on it
	}
}

func (l *listener) add(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= l.max {
		return false
	}
	l.open[c] = struct{}{}
	l.wg.Add(1)
	return true
}

func (l *listener) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.open[c]; ok {
		delete(l.open, c)
		l.wg.Done()
	}
}

func (l *listener) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// wait returns when kfake has closed every connection, or after limit.
func (l *listener) wait(limit time.Duration) error {
	done := make(chan struct{})
	go func() {
		l.wg.Wait()
		close(done)
	}()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-done:
		return nil
	case <-t.C:
		return fmt.Errorf("broker: connections still open after %s", limit)
	}
}

// conn is one client connection. Each frame is an int32 length, then an int16
// request key and the rest. Read and Close are called by different goroutines.
type conn struct {
	net.Conn
	l    *listener
	r    *bufio.Reader
	left int // bytes of the present frame still to be read, its length included
}

// Read reads within one frame, after a look at its beginning.
func (c *conn) Read(p []byte) (int, error) {
	if c.left == 0 {
		if err := c.begin(); err != nil {
			return 0, err
		}
	}
	n, err := c.r.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

func (c *conn) begin() error {
	head, err := c.r.Peek(6)
	if err != nil {
		return err
	}
	size := int(int32(binary.BigEndian.Uint32(head)))
	key := int(int16(binary.BigEndian.Uint16(head[4:])))
	// The shortest request header is key, version and correlation id.
	if size < 8 || size > maxRequestBytes || key < 0 || key >= len(c.l.known) || !c.l.known[key] {
		c.l.metrics.refused.WithLabelValues(refusedFrame).Inc()
		c.l.log.Warn("broker: connection closed, it sent no Kafka request", "peer", c.RemoteAddr().String(), "bytes", size, "key", key)
		return errFrame
	}
	c.left = 4 + size
	return nil
}

// Close closes the connection; again is harmless.
func (c *conn) Close() error {
	c.l.remove(c) // before: whoever sees that it is closed sees its place free
	return c.Conn.Close()
}
