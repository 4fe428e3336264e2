package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spillway/spillway/schemas"
)

// errBroken is a frame that no node sends.
var errBroken = errors.New("the node's frame cannot be read")

// read reads frames until the connection ends.
func (c *Client) read(l *link) error {
	var buf []byte
	for {
		_, r, err := l.ws.Reader(context.Background())
		if err != nil {
			return err
		}
		if buf, err = readAll(buf[:0], r); err != nil {
			return err
		}
		l.heard.Store(time.Now().UnixNano())
		if ev, ok := parseEv(buf); ok {
			if err := c.event(l, buf, ev); err != nil {
				return err
			}
			continue
		}
		var f schemas.ServerFrame
		if err := json.Unmarshal(buf, &f); err != nil {
			return fmt.Errorf("%w: %w", errBroken, err)
		}
		if err := c.frame(l, &f); err != nil {
			return err
		}
	}
}

func readAll(dst []byte, r io.Reader) ([]byte, error) {
	for {
		if len(dst) == cap(dst) {
			dst = append(dst, make([]byte, max(4096, cap(dst)))...)[:len(dst)]
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

// event takes an ev frame. Frames that follow are handed on, repeats are
// dropped, and after a hole the subscription is asked for again.
func (c *Client) event(l *link, frame []byte, f evFrame) error {
	c.mu.Lock()
	s := l.ids[f.id]
	if s == nil || s.over || s.asking {
		c.mu.Unlock()
		return nil
	}
	where := relate(s.cursor, f.p, f.c)
	c.mu.Unlock()
	switch where {
	case repeats:
		return nil
	case hole:
		c.again(l, s)
		return nil
	}
	if s.handler == nil { // the queue keeps it
		frame = append([]byte(nil), frame...)
		f, _ = parseEv(frame)
	}
	_, err := s.deliver(frame, f)
	return err
}

// again subscribes from where a subscription is.
func (c *Client) again(l *link, s *Sub) {
	c.askMu.Lock()
	defer c.askMu.Unlock()
	c.mu.Lock()
	c.count.Holes++
	c.note(s)
	frame := s.frame()
	c.mu.Unlock()
	l.send(frame)
}

// frame takes any other frame.
func (c *Client) frame(l *link, f *schemas.ServerFrame) error {
	switch f.T {
	case "ev": // not as nodes write it
		return fmt.Errorf("%w: %q", errBroken, "ev")
	case "adv":
		c.skip(l, f, f.P, f.C)
	case "gap":
		if s := c.skip(l, f, "", f.To); s != nil {
			s.tell(&Gap{Channel: s.channel, From: f.From, To: f.To, Why: f.Why, Replay: f.Replay})
		}
	case "subs":
		return c.subscribed(l, f.Subs)
	case "ping":
		l.send(schemas.ClientFrame{T: "pong", N: f.N, Ack: c.acks(l)})
	case "ack":
		var id string
		if err := json.Unmarshal(f.Ident, &id); err != nil {
			return fmt.Errorf("%w: %w", errBroken, err)
		}
		c.published(f.N, id, nil)
	case "err":
		if f.N > 0 {
			c.published(f.N, "", errorOf(f))
			return nil
		}
		c.refused(errorOf(f))
	case "drain":
		go c.replace(l, f)
	}
	return nil
}

// skip moves a subscription to a place, from p on if that is given, and
// returns it.
func (c *Client) skip(l *link, f *schemas.ServerFrame, p, to string) *Sub {
	id, err := strconv.Atoi(string(f.Ident))
	if err != nil || len(to) != cursorLen {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := l.ids[id]
	if s == nil || s.over || s.asking {
		return nil
	}
	if p != "" && relate(s.cursor, []byte(p), []byte(to)) != follows {
		return nil // a hole shows with the next event
	}
	if s.acked == s.cursor {
		s.acked = to
	}
	s.cursor = to
	return s
}

// subscribed takes the answer to the oldest sub frame.
func (c *Client) subscribed(l *link, made []schemas.Sub) error {
	c.mu.Lock()
	if len(c.asks) == 0 {
		c.mu.Unlock()
		return nil
	}
	a := c.asks[0]
	c.mu.Unlock()
	return c.confirm(l, []*Sub{a.sub}, made, a.errs)
}

// refused notes an err frame for the oldest sub frame; without one it is about
// the connection, which its close code tells.
func (c *Client) refused(err *Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.asks) > 0 {
		c.asks[0].errs = append(c.asks[0].errs, err)
	}
	c.cfg.Logger.Debug("node", "err", err)
}

// acks is what a pong carries: up to where events were taken.
func (c *Client) acks(l *link) map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	acks := make(map[string]string, len(l.ids))
	for id, s := range l.ids {
		if s.acked != "" {
			acks[strconv.Itoa(id)] = s.acked
		}
	}
	return acks
}

// replace leaves a draining node for another when its time has come: first the
// new connection, then the old one goes.
func (c *Client) replace(old *link, f *schemas.ServerFrame) {
	url := c.url
	if to, err := address(f.To); f.To != "" && err == nil {
		url = to
	}
	for wait := time.Duration(f.After) * time.Millisecond; ; wait = 2 * time.Second {
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-old.gone: // closed before: run connects again
			t.Stop()
			return
		case <-c.ctx.Done():
			t.Stop()
			return
		}
		ctx, cancel := context.WithTimeout(c.ctx, 15*time.Second)
		l, err := c.connect(ctx, url)
		cancel()
		if err == nil {
			c.hand(old, l)
			return
		}
	}
}

// hand makes l the next connection, unless the old one has ended meanwhile.
func (c *Client) hand(old, l *link) {
	c.mu.Lock()
	late := c.link != old || c.err != nil
	if !late {
		c.next = l
	}
	c.mu.Unlock()
	if late {
		l.close()
		return
	}
	old.leave()
}
