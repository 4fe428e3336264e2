package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/coder/websocket"

	"github.com/spillway/spillway/schemas"
)

// run reads the socket and mends it until ctx ends or a node refuses for good.
func (c *Conn) run(ctx context.Context, socket *websocket.Conn, welcome schemas.ServerFrame) {
	defer close(c.ended)
	defer close(c.messages)
	for {
		c.welcomed(socket, welcome)
		err := c.serve(ctx, socket)
		_ = socket.CloseNow()
		c.broken()
		c.cfg.Logger.Debug("connection broke", "err", err)
		if socket, welcome, err = c.mend(ctx, err); err != nil {
			c.mu.Lock()
			c.err = err
			c.mu.Unlock()
			return
		}
	}
}

// mend connects again, as often and as late as the break allows.
func (c *Conn) mend(ctx context.Context, cause error) (*websocket.Conn, schemas.ServerFrame, error) {
	err := cause
	for n := 0; ; n++ {
		wait, final := next(err, n)
		if ctx.Err() != nil {
			final = ErrClosed
		}
		if final != nil {
			return nil, schemas.ServerFrame{}, final
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			continue
		}
		socket, welcome, failed := c.connect(ctx)
		if failed == nil {
			if !c.hand(ctx, Resumed{Node: welcome.Node, Err: cause}) {
				_ = socket.CloseNow()
				return nil, welcome, ErrClosed
			}
			return socket, welcome, nil
		}
		err = failed
	}
}

// welcomed makes socket the present one.
func (c *Conn) welcomed(socket *websocket.Conn, welcome schemas.ServerFrame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.socket, c.byID = socket, map[int]*sub{}
	c.confirm(welcome.Subs)
	close(c.up)
}

// confirm notes where the node says that subscriptions are. Callers hold mu.
func (c *Conn) confirm(subs []schemas.Sub) {
	for _, s := range subs {
		n, ok := c.subs[s.Ch]
		if !ok {
			continue
		}
		n.id = s.ID
		if n.cursor == "" {
			n.cursor = s.Cur
		}
		c.byID[s.ID] = n
		select {
		case <-n.confirmed:
		default:
			close(n.confirmed)
		}
	}
}

// broken takes the socket away; who waits for an answer tries again.
func (c *Conn) broken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.socket, c.up = nil, make(chan struct{})
	for n, got := range c.waiting {
		got <- answer{err: errBroken}
		delete(c.waiting, n)
	}
}

// serve reads frames until the socket breaks.
func (c *Conn) serve(ctx context.Context, socket *websocket.Conn) error {
	for {
		f, err := read(ctx, socket)
		if err != nil {
			return err
		}
		if err := c.frame(ctx, socket, f); err != nil {
			return err
		}
	}
}

func (c *Conn) frame(ctx context.Context, socket *websocket.Conn, f schemas.ServerFrame) error {
	switch f.T {
	case "ev":
		return c.events(ctx, f)
	case "adv":
		_, err := c.move(f)
		return err
	case "gap":
		return c.gap(ctx, f)
	case "subs":
		c.mu.Lock()
		c.confirm(f.Subs)
		c.mu.Unlock()
	case "ack":
		var id string
		_ = json.Unmarshal(f.Ident, &id) // an id that is none reads as ""
		c.answer(f.N, answer{id: id})
	case "err":
		return c.refusal(f)
	case "ping":
		return write(ctx, socket, schemas.ClientFrame{T: "pong", N: f.N, Ack: c.acks()})
	case "drain":
		c.drain(socket, f)
	}
	return nil // a frame of a newer node is passed over
}

var errHole = errors.New("client: events are missing before this frame")

// move takes a frame's p and c: it returns the subscription if the frame
// follows, nil if it is a repeat or of nobody, errHole if something is missing.
func (c *Conn) move(f schemas.ServerFrame) (*sub, error) {
	var id int
	if err := json.Unmarshal(f.Ident, &id); err != nil {
		return nil, fmt.Errorf("client: %s frame without id: %w", f.T, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.byID[id]
	switch {
	case n == nil:
		return nil, nil // unsubscribed a moment ago
	case n.cursor != "" && !sameEpoch(n.cursor, f.P), n.cursor != "" && f.P > n.cursor:
		return nil, errHole
	case n.cursor != "" && f.C <= n.cursor:
		return nil, nil
	}
	n.cursor = f.C
	return n, nil
}

// sameEpoch compares the epochs of two cursors: 'c' and 12 hex digits.
func sameEpoch(a, b string) bool {
	const epoch = 13
	return len(a) >= epoch && len(b) >= epoch && a[:epoch] == b[:epoch]
}

func (c *Conn) events(ctx context.Context, f schemas.ServerFrame) error {
	n, err := c.move(f)
	if n == nil || err != nil {
		return err
	}
	for i, raw := range f.E {
		id := eventID(raw)
		if !n.seen.add(id) && !c.cfg.KeepRepeats {
			continue
		}
		cursor := f.P // resuming inside a frame repeats it, and skips nothing
		if i == len(f.E)-1 {
			cursor = f.C
		}
		if !c.hand(ctx, Event{Pattern: n.Channel, ID: id, Cursor: cursor, Raw: raw}) {
			return ctx.Err()
		}
	}
	return nil
}

func (c *Conn) gap(ctx context.Context, f schemas.ServerFrame) error {
	var id int
	if err := json.Unmarshal(f.Ident, &id); err != nil {
		return fmt.Errorf("client: gap without id: %w", err)
	}
	c.mu.Lock()
	n := c.byID[id]
	if n != nil {
		n.cursor = f.To
	}
	c.mu.Unlock()
	if n != nil && !c.hand(ctx, Gap{Pattern: n.Channel, From: f.From, To: f.To, Why: f.Why, Replay: f.Replay}) {
		return ctx.Err()
	}
	return nil
}

func (c *Conn) answer(n int64, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if got, ok := c.waiting[n]; ok {
		got <- a
		delete(c.waiting, n)
	}
}

// refusal is an err frame: of a publish if it has its number, else of the
// connection.
func (c *Conn) refusal(f schemas.ServerFrame) error {
	r := &Refused{f.Code, f.Msg}
	if f.N != 0 {
		c.answer(f.N, answer{err: r})
		return nil
	}
	if f.Retry == "no" {
		return r
	}
	return nil
}

func (c *Conn) acks() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	acks := make(map[string]string, len(c.byID))
	for id, n := range c.byID {
		acks[fmt.Sprint(id)] = n.cursor
	}
	return acks
}

// drain leaves a node that is going away, when and whither it says.
func (c *Conn) drain(socket *websocket.Conn, f schemas.ServerFrame) {
	if f.To != "" {
		to := withPath(f.To)
		c.url.Store(&to)
	}
	time.AfterFunc(time.Duration(f.After)*time.Millisecond, func() { _ = socket.CloseNow() }) // one timer a socket; on a closed one it does nothing
}

// hand gives m to the reader of Messages; it waits while that is busy.
func (c *Conn) hand(ctx context.Context, m Message) bool {
	select {
	case c.messages <- m:
		return true
	case <-ctx.Done():
		return false
	}
}
