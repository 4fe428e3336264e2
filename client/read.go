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
	if s == nil || s.over || l.asking(s) {
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

// frame takes any other frame.
func (c *Client) frame(l *link, f *schemas.ServerFrame) error {
	switch f.T {
	case "ev": // not as nodes write it
		return fmt.Errorf("%w: %q", errBroken, "ev")
	case "adv":
		c.skip(l, f, f.C)
	case "gap":
		if s := c.skip(l, f, f.To); s != nil {
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
		c.refused(l, errorOf(f))
	case "drain":
		if !l.leaving {
			l.leaving = true
			c.moves.Go(func() { c.replace(l, f) })
		}
	}
	return nil
}

// skip moves a subscription to a place without events and returns it; nil if
// the frame is not for it, or says nothing new. A place that is no cursor moves
// nothing: what is missing then shows as a hole with the next event.
func (c *Client) skip(l *link, f *schemas.ServerFrame, to string) *Sub {
	id, err := strconv.Atoi(string(f.Ident))
	if err != nil || len(to) != cursorLen {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := l.ids[id]
	switch {
	case s == nil || s.over || l.asking(s):
		return nil
	case f.T == "gap":
		if f.Why != "epoch" && sameLog(s.cursor, to) && to < s.cursor {
			return nil // the connection before has brought what this one lacks
		}
	case relate(s.cursor, []byte(f.P), []byte(to)) != follows:
		return nil
	case s.acked == s.cursor: // nothing waits in between
		s.acked = to
	}
	s.cursor = to
	return s
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
