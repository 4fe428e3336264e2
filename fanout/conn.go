package fanout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/spillway/spillway/fanout/tail"
	"github.com/spillway/spillway/schemas"
)

// An ending is why a connection ends. Its code is ours, the client's, or 1006
// where there was no closing handshake.
type ending struct {
	code    int
	reason  schemas.Reason
	noShake bool // the client is gone or takes nothing: no handshake
}

func (e *ending) Error() string { return fmt.Sprintf("closed %d %s", e.code, e.reason) }

func endWith(code schemas.CloseCode) *ending {
	return &ending{code: int(code), reason: code.Reason()}
}

// A message comes to a connection's owner from its reader or its publisher.
type message struct {
	frame schemas.ClientFrame
	err   error  // of parseFrame
	reply []byte // a text frame to write
}

// A conn is one WebSocket connection.
type conn struct {
	f        *Fanout
	id       string // session id
	ws       *websocket.Conn
	sock     socket
	shaken   atomic.Bool // ws and sock are there
	openedAt time.Time
	bearer   string // token of the upgrade request, or ""

	inbox chan message  // never closed
	woken chan struct{} // something may be due; never closed
	done  chan struct{} // closed when the owner has ended
	gone  chan struct{} // closed when the reader has ended
	lost  error         // why the reader ended; read after gone

	heard   atomic.Int64 // when the client last sent something, Unix ms
	ticked  atomic.Bool  // the second has passed
	drained atomic.Int64 // ms after which to leave for another node, +1; 0: stay
	cut     atomic.Bool  // end now

	// Owned by run.
	claims  *schemas.Claims // nil until auth
	token   string
	part    *partition
	subs    []*sub
	turn    int // which sub is first in the next pass
	chunks  chunks
	out     outbox
	ping    pinger
	ranged  time.Time // when SessionRanges were last written
	pubs    chan schemas.ClientFrame
	pubDone sync.WaitGroup
}

// Wake tells the owner that a feed has something new.
func (c *conn) Wake() {
	select {
	case c.woken <- struct{}{}:
	default: // it will look anyway
	}
}

// run is the owner: it ends when the connection does.
func (c *conn) run(ctx context.Context) {
	go c.read()
	end := c.loop(ctx)
	c.finish(end)
}

func (c *conn) loop(ctx context.Context) *ending {
	c.say(schemas.ServerFrame{
		T: "hello", V: schemas.ProtocolVersion, Node: c.f.cfg.Node, Ping: int(c.f.cfg.PingInterval.Milliseconds()), MaxIn: MaxFrameIn,
	})
	if err := c.flush(); err != nil {
		return endOf(err)
	}
	late := time.NewTimer(authTimeout)
	defer late.Stop()
	for more := false; ; {
		err := c.wait(more, late.C)
		if err == nil {
			err = c.due()
		}
		if err == nil {
			more, err = c.pass(ctx)
		}
		if err != nil {
			return endOf(errors.Join(err, c.flush()))
		}
	}
}

// endOf is the ending in a chain of errors; the first one counts.
func endOf(err error) *ending {
	var end *ending
	if errors.As(err, &end) {
		return end
	}
	return &ending{code: int(websocket.StatusAbnormalClosure), noShake: true}
}

// wait blocks until there is something to do, unless more is.
func (c *conn) wait(more bool, late <-chan time.Time) error {
	if more {
		select {
		case m := <-c.inbox:
			return c.handle(m)
		case <-c.gone:
			return c.left()
		default:
			return nil
		}
	}
	select {
	case m := <-c.inbox:
		return c.handle(m)
	case <-c.gone:
		return c.left()
	case <-c.woken:
	case <-late:
		if c.claims == nil {
			c.refuse(refuse(schemas.AuthRequired, "no auth frame within %s", authTimeout), 0)
			return endWith(schemas.CloseAuthRequired)
		}
	}
	return nil
}

// due does what the node or the second asks for.
func (c *conn) due() error {
	if c.cut.Load() {
		return endWith(schemas.CloseDrain)
	}
	c.announceDrain()
	if c.ticked.Swap(false) {
		return c.tick(c.f.cfg.Now())
	}
	return nil
}

// left is the ending after the reader has ended. What the reader has put into
// the inbox before comes first.
func (c *conn) left() error {
	select {
	case m := <-c.inbox:
		return c.handle(m)
	default:
	}
	code := websocket.CloseStatus(c.lost)
	if code < 0 {
		code = websocket.StatusAbnormalClosure
	}
	return &ending{code: int(code), noShake: true}
}

// read hands the client's frames to the owner until the connection ends.
func (c *conn) read() {
	defer close(c.gone)
	buf := make([]byte, 0, 512)
	for {
		typ, r, err := c.ws.Reader(context.Background())
		if err != nil {
			c.lost = err
			return
		}
		buf, err = readAll(buf[:0], io.LimitReader(r, MaxFrameIn+1))
		if err != nil {
			c.lost = err
			return
		}
		c.heard.Store(c.f.cfg.Now().UnixMilli())
		m := message{}
		if typ != websocket.MessageText {
			m.err = errors.New("a binary frame")
		} else {
			m.frame, m.err = parseFrame(buf)
		}
		if !c.post(m) || m.err != nil && !errors.Is(m.err, errUnknownType) {
			return
		}
	}
}

// readAll appends what r has to dst.
func readAll(dst []byte, r io.Reader) ([]byte, error) {
	for {
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, len(dst)+512)
		}
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if errors.Is(err, io.EOF) {
			return dst, nil
		}
		if err != nil {
			return dst, err
		}
	}
}

// post gives a message to the owner. It waits while the owner is behind, which
// is how a client that asks too much is slowed down.
func (c *conn) post(m message) bool {
	select {
	case c.inbox <- m:
		return true
	case <-c.done:
		return false
	}
}

// handle does what a message asks for.
func (c *conn) handle(m message) error {
	if m.reply != nil {
		c.out.add(m.reply)
		return nil
	}
	if errors.Is(m.err, errUnknownType) {
		c.refuse(refuse(schemas.BadFrame, "%s", m.err), 0)
		return nil
	}
	if m.err != nil {
		c.refuse(refuse(schemas.BadFrame, "%s", m.err), 0)
		return endWith(schemas.CloseBadFrame)
	}
	f := &m.frame
	if c.claims == nil && f.T != "auth" {
		c.refuse(refuse(schemas.AuthRequired, "the first frame must be auth"), 0)
		return endWith(schemas.CloseAuthRequired)
	}
	switch f.T {
	case "auth":
		return c.auth(f)
	case "sub":
		subs, _ := c.subscribe(f.Subs)
		c.say(schemas.ServerFrame{T: "subs", Subs: subs})
		c.flushNotes()
	case "unsub":
		c.unsubscribe(f.ID)
	case "pub":
		c.publish(f)
	case "pong":
		c.acknowledge(f.Ack)
	}
	return nil
}

// auth opens the connection for a token.
func (c *conn) auth(f *schemas.ClientFrame) error {
	if c.claims != nil {
		c.refuse(refuse(schemas.BadFrame, "this connection has a token already"), 0)
		return nil
	}
	c.token = f.Tok
	if c.token == "" {
		c.token = c.bearer
	}
	claims, no := c.f.admit(c.token)
	if no != nil {
		c.refuse(no, 0)
		return endWith(closeCodeOf(no.code))
	}
	if !c.f.enter(claims.Tenant) {
		c.refuse(refuse(schemas.ConnectionLimit, "tenant %s has all its connections open", claims.Tenant), 0)
		return endWith(schemas.CloseConnectionLimit)
	}
	c.claims, c.ranged = &claims, c.f.cfg.Now()
	subs, resumed := c.subscribe(f.Subs)
	c.say(schemas.ServerFrame{T: "welcome", SID: c.id, Tenant: claims.Tenant, Region: c.f.cfg.Region, Resumed: resumed, Subs: subs})
	c.flushNotes()
	return nil
}

// pass takes what is there for each subscription, a frame at most each, and
// writes it. more: there may be more.
func (c *conn) pass(ctx context.Context) (more bool, err error) {
	for i := range c.subs {
		s := c.subs[(c.turn+i)%len(c.subs)]
		if c.out.size >= writeBytes {
			more = true
			break
		}
		if !s.pending() {
			continue
		}
		frame, n, err := s.next(ctx, &c.chunks)
		switch {
		case errors.Is(err, errSlow):
			return false, endWith(schemas.CloseSlow)
		case err != nil:
			c.refuse(c.f.unavailable(err), 0)
			return false, endWith(schemas.CloseOverloaded)
		case frame != nil:
			c.out.addFrame(frame)
			s.said = c.f.cfg.Now().UnixMilli()
		case n != nil:
			c.note(s, n)
		}
		more = more || s.pending()
	}
	c.turn++
	return more, c.flush()
}

// finish closes the connection and gives back all it held.
func (c *conn) finish(end *ending) {
	close(c.done)
	for len(c.subs) > 0 {
		c.drop(len(c.subs)-1, end.code)
	}
	if c.part != nil {
		c.f.source.release(c.part)
	}
	if c.claims != nil {
		c.f.leave(c.claims.Tenant)
	}
	c.f.m.closed(end.code)
	if end.noShake || c.out.failed {
		c.ws.CloseNow()
	} else {
		c.sock.SetWriteDeadline(c.f.cfg.Now().Add(closeTimeout))
		late := time.AfterFunc(closeTimeout, func() { c.sock.Close() }) // the library would wait 5 s for the client's word
		c.ws.Close(websocket.StatusCode(end.code), string(end.reason))
		late.Stop()
	}
	<-c.gone
	c.pubDone.Wait()
}

func (c *conn) info() sessionInfo { return sessionInfo{c.id, c.claims.Subject, c.openedAt} }

var _ tail.Waker = (*conn)(nil)
