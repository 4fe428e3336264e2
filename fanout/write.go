package fanout

import (
	"encoding/json"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/spillway/spillway/fanout/tail"
	"github.com/spillway/spillway/schemas"
)

// A socket takes whole WebSocket frames. It is the connection under the
// WebSocket library, which here does the handshake, reads, and writes only
// control frames: data frames are built once for all and go out as they are,
// without a copy and a context each. Frames do not mix, for a net.Conn writes
// one call's bytes in one piece.
type socket interface {
	Write(b []byte) (int, error)
	SetWriteDeadline(t time.Time) error
	Close() error
}

// An outbox is what the next write of a connection takes.
type outbox struct {
	parts  [][]byte
	frames []*tail.Frame // those parts that are shared
	size   int
	failed bool // a write has failed: no other is tried
}

func (o *outbox) add(b []byte) {
	o.parts = append(o.parts, b)
	o.size += len(b)
}

func (o *outbox) addFrame(f *tail.Frame) {
	o.add(f.Bytes)
	o.frames = append(o.frames, f)
}

func (o *outbox) reset() {
	clear(o.parts)
	clear(o.frames)
	o.parts, o.frames, o.size = o.parts[:0], o.frames[:0], 0
}

// joined are buffers in which small frames become one write: copying them
// costs less than a writev.
var joined = sync.Pool{New: func() any { b := make([]byte, 0, writeBytes); return &b }}

// flush writes what is in the outbox.
func (c *conn) flush() error {
	o := &c.out
	if len(o.parts) == 0 {
		return nil
	}
	defer o.reset()
	if o.failed {
		return nil
	}
	err := c.writeParts(o.parts)
	if err != nil {
		o.failed = true
		return err
	}
	now := c.f.cfg.Now()
	c.ping.wrote = now
	c.f.m.bytes.Add(float64(o.size))
	for _, f := range o.frames {
		c.f.written(f, now)
	}
	return nil
}

func (c *conn) writeParts(parts [][]byte) error {
	if len(parts) == 1 {
		return c.write(parts[0])
	}
	buf := joined.Get().(*[]byte)
	defer joined.Put(buf)
	b := (*buf)[:0]
	for _, p := range parts {
		if len(b)+len(p) > cap(b) && len(b) > 0 {
			if err := c.write(b); err != nil {
				return err
			}
			b = b[:0]
		}
		if len(p) > cap(b) {
			if err := c.write(p); err != nil {
				return err
			}
			continue
		}
		b = append(b, p...)
	}
	return c.write(b)
}

// stop ends the connection from outside, even while it waits for the client to
// take a write.
func (c *conn) stop() {
	c.cut.Store(true)
	if !c.shaken.Load() {
		return // run sees cut before it writes
	}
	c.sock.SetWriteDeadline(time.Unix(1, 0))
	c.Wake()
}

// say puts a frame of this connection's own into the outbox.
func (c *conn) say(f schemas.ServerFrame) { c.out.add(encodeFrame(f)) }

func encodeFrame(f schemas.ServerFrame) []byte {
	payload, err := json.Marshal(f)
	if err != nil {
		panic("fanout: a frame does not encode: " + err.Error()) // its only raw member is made here
	}
	return tail.AppendText(make([]byte, 0, len(payload)+4), payload)
}

func (c *conn) refuse(r *refusal, n int64) {
	c.f.m.errors.WithLabelValues(string(r.code)).Inc()
	c.say(errFrame(r, n))
}

// note tells a gap, or that nothing of a channel lies between.
func (c *conn) note(s *sub, n *note) {
	s.said = c.f.cfg.Now().UnixMilli()
	f := schemas.ServerFrame{T: "adv", Ident: strconv.AppendInt(nil, int64(s.feed.ID), 10)}
	if n.why == "" {
		f.P, f.C = n.from.String(), n.to.String()
	} else {
		c.f.m.gaps.WithLabelValues(n.why).Inc()
		f.T, f.From, f.To, f.Why = "gap", n.from.String(), n.to.String(), n.why
		f.Replay = replayAddress(s.feed.Tenant, n)
	}
	c.say(f)
}

// replayAddress is where what a gap leaves out can be read, on the audit role.
func replayAddress(tenant string, n *note) string {
	q := url.Values{"tenant": {tenant}, "from": {n.from.String()}, "to": {n.to.String()}}
	return "/v1/events?" + q.Encode()
}

// A pinger knows when an idle connection was last known to be alive.
type pinger struct {
	wrote time.Time // last write
	n     int64     // newest ping
	sent  time.Time // when; zero: none is open
}

// tick does what is due once a second.
func (c *conn) tick(now time.Time) error {
	if c.claims == nil {
		return nil
	}
	if exp := c.claims.ExpiresAt; !exp.IsZero() && now.After(exp.Add(expiryLeeway)) {
		c.refuse(refuse(schemas.TokenExpired, "the token expired at %s", exp.UTC().Format(time.RFC3339)), 0)
		return endWith(schemas.CloseTokenExpired)
	}
	if no := c.f.checkTenant(c.claims.Tenant); no != nil && no.code == schemas.TenantSuspended {
		c.refuse(no, 0)
		return endWith(schemas.CloseSuspended)
	}
	if err := c.pingIdle(now); err != nil {
		return err
	}
	for _, s := range c.subs {
		if now.UnixMilli()-s.said < advanceEvery.Milliseconds() {
			continue
		}
		if n := s.advance(); n != nil {
			c.note(s, n)
		}
	}
	if now.Sub(c.ranged) >= rangeEvery {
		c.ranged = now
		for _, s := range c.subs {
			c.f.audit.session(c.info(), s, 0)
		}
	}
	return nil
}

// pingIdle pings a connection to which nothing was written for a while. One
// that takes what is written is alive without.
func (c *conn) pingIdle(now time.Time) error {
	p, every := &c.ping, c.f.cfg.PingInterval
	if !p.sent.IsZero() {
		switch {
		case c.heard.Load() >= p.sent.UnixMilli():
			p.sent = time.Time{}
		case now.Sub(p.sent) >= 2*every:
			return endWith(schemas.CloseIdle)
		}
	}
	if p.sent.IsZero() && now.Sub(p.wrote) >= every {
		p.n++
		p.sent = now
		for _, s := range c.subs { // the pong's ack shall be about now
			if n := s.advance(); n != nil {
				c.note(s, n)
			}
		}
		c.say(schemas.ServerFrame{T: "ping", N: p.n})
	}
	return nil
}

// announceDrain sends the drain frame, once.
func (c *conn) announceDrain() {
	after := c.drained.Load()
	if after <= 0 {
		return
	}
	c.drained.Store(-1)
	c.say(schemas.ServerFrame{T: "drain", After: int(after - 1), Deadline: int(c.f.cfg.DrainTimeout.Milliseconds())})
}
