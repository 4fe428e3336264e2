package client

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/coder/websocket"

	"github.com/spillway/spillway/schemas"
)

// The life of a client: connection after connection.

// connectTimeout bounds an attempt to connect, from the token to the welcome.
const connectTimeout = 15 * time.Second

// run reads connection after connection.
func (c *Client) run(l *link) {
	defer close(c.done)
	defer c.moves.Wait()
	for attempt := 0; ; {
		opened := time.Now()
		err := c.read(l)
		l.close()
		c.mu.Lock()
		next := c.next
		c.link = nil
		c.mu.Unlock()
		if next == nil {
			if time.Since(opened) > 5*time.Second {
				attempt = 0
			}
			next, err = c.reconnect(err, &attempt)
			if err != nil {
				c.fail(err)
				return
			}
		}
		if !c.install(next) {
			return
		}
		l = next
	}
}

// reconnect tries until a node welcomes the client, or until trying again
// cannot help.
func (c *Client) reconnect(why error, attempt *int) (*link, error) {
	for {
		wait, fatal := c.backoff(why, *attempt)
		if c.ctx.Err() != nil {
			return nil, ErrClosed
		}
		if fatal {
			return nil, why
		}
		c.cfg.Logger.Info("connecting again", "after", wait, "err", why)
		*attempt++
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-c.ctx.Done():
			t.Stop()
			return nil, ErrClosed
		}
		ctx, cancel := context.WithTimeout(c.ctx, connectTimeout)
		l, err := c.connect(ctx, c.url)
		cancel()
		if err == nil {
			return l, nil
		}
		why = err
	}
}

// backoff says how long to wait before connecting again, or that there is no
// use: close codes 40xx stop, 41xx back off, 42xx resume now.
func (c *Client) backoff(why error, attempt int) (wait time.Duration, fatal bool) {
	base := min(100*time.Millisecond<<min(attempt, 10), 10*time.Second)
	code := schemas.CloseCode(websocket.CloseStatus(why))
	var refused *refusedError
	var no *Error
	if errors.As(why, &no) {
		base = max(base, no.After)
	}
	switch {
	case errors.As(why, &refused):
		if refused.fatal() {
			return 0, true
		}
		base = max(base, refused.after)
		return base + rand.N(base/2+1), false
	case code == schemas.CloseTokenExpired:
		if c.cfg.TokenSource == nil {
			return 0, true
		}
	case code >= 4000 && code < 4100:
		return 0, true
	case code >= 4100 && code < 4200:
		base = max(base, time.Second)
	}
	return rand.N(base) + base/2, false
}

// install makes l the connection and asks on it for what its auth frame did
// not: subscriptions made meanwhile, and publishes without an answer. It
// reports false, and closes l, when the client has ended: Close may have looked
// for links before this one was there.
func (c *Client) install(l *link) bool {
	c.askMu.Lock()
	defer c.askMu.Unlock()
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		l.close()
		return false
	}
	c.link, c.next = l, nil
	c.count.Connects++
	frames := c.catchUp(l)
	c.mu.Unlock()
	for _, f := range frames {
		l.send(f)
	}
	return true
}

// catchUp is what a new connection has to be told, c.mu and askMu held. What
// ended goes first: its channel may have been subscribed anew.
func (c *Client) catchUp(l *link) (frames []schemas.ClientFrame) {
	for id, s := range l.ids {
		if s.over {
			frames = append(frames, schemas.ClientFrame{T: "unsub", ID: []int{id}})
			delete(l.ids, id)
		}
	}
	for _, s := range c.subs {
		switch from := l.resumed[s]; {
		case l.idOf(s) < 0:
			frames = append(frames, l.ask(s))
		case sameLog(s.cursor, from) && s.cursor > from: // the connection before has brought more since
			s.overlap = s.cursor
		}
	}
	l.resumed = nil
	pubs := slices.SortedFunc(maps.Values(c.pubs), func(a, b *pub) int { return int(a.frame.N - b.frame.N) })
	for _, p := range pubs { // same key: what was taken already is not taken twice
		frames = append(frames, p.frame)
	}
	return frames
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
		case <-old.ctx.Done(): // closed before: run connects again, or the client has ended
			t.Stop()
			return
		}
		ctx, cancel := context.WithTimeout(old.ctx, connectTimeout)
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
