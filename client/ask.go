package client

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spillway/spillway/schemas"
)

// Asking for subscriptions. A node answers sub frames in order, so each link
// keeps its own list: what one connection confirms says nothing about what is
// under way on another.

// An ask is a sub frame.
type ask struct {
	sub *Sub
	err *Error // the first err frame that came since
}

// ask notes that a subscription is asked for on l and returns the frame. c.mu
// held; askMu too until the frame is sent.
func (l *link) ask(s *Sub) schemas.ClientFrame {
	l.asks = append(l.asks, &ask{sub: s})
	return schemas.ClientFrame{T: "sub", Subs: []schemas.SubRequest{s.request()}}
}

// asking reports whether a sub frame of s waits for its answer: until then
// what comes is from before. c.mu held.
func (l *link) asking(s *Sub) bool {
	return slices.ContainsFunc(l.asks, func(a *ask) bool { return a.sub == s })
}

// add asks for a new subscription; with no connection now, the next one does.
func (c *Client) add(s *Sub) error {
	c.askMu.Lock()
	defer c.askMu.Unlock()
	c.mu.Lock()
	switch {
	case c.err != nil:
		defer c.mu.Unlock()
		return c.err
	case c.subs[s.channel] != nil:
		c.mu.Unlock()
		return fmt.Errorf("channel %s is subscribed already", s.channel)
	}
	c.subs[s.channel] = s
	l := c.link
	if l == nil {
		c.mu.Unlock()
		return nil
	}
	frame := l.ask(s)
	c.mu.Unlock()
	l.send(frame)
	return nil
}

// again subscribes from where a subscription is.
func (c *Client) again(l *link, s *Sub) {
	c.askMu.Lock()
	defer c.askMu.Unlock()
	c.mu.Lock()
	c.count.Holes++
	frame := l.ask(s)
	c.mu.Unlock()
	l.send(frame)
}

// unsubscribe ends a subscription. One that is not confirmed yet is ended on
// the node by confirm.
func (c *Client) unsubscribe(s *Sub) {
	c.mu.Lock()
	if c.subs[s.channel] == s {
		delete(c.subs, s.channel)
	}
	s.end(nil)
	l, id := c.link, -1
	if l != nil {
		if id = l.idOf(s); id >= 0 {
			delete(l.ids, id)
		}
	}
	c.mu.Unlock()
	if id >= 0 {
		c.forget(l, []schemas.Sub{{Ch: s.channel, ID: id}})
	}
}

// forget ends on the node what nobody wants any more. A channel that was
// subscribed anew meanwhile has the same number there, and stays.
func (c *Client) forget(l *link, made []schemas.Sub) {
	c.askMu.Lock()
	defer c.askMu.Unlock()
	var ids []int
	c.mu.Lock()
	for _, m := range made {
		if c.subs[m.Ch] == nil {
			ids = append(ids, m.ID)
		}
	}
	c.mu.Unlock()
	if len(ids) > 0 {
		l.send(schemas.ClientFrame{T: "unsub", ID: ids})
	}
}

// subscribed takes the answer to the oldest sub frame of l.
func (c *Client) subscribed(l *link, made []schemas.Sub) error {
	c.mu.Lock()
	if len(l.asks) == 0 {
		c.mu.Unlock()
		return nil
	}
	a := l.asks[0]
	l.asks = slices.Delete(l.asks, 0, 1)
	c.mu.Unlock()
	var errs []*Error
	if a.err != nil {
		errs = append(errs, a.err)
	}
	return c.confirm(l, []*Sub{a.sub}, made, errs)
}

// refused notes an err frame for the oldest sub frame of l; without one it is
// about the connection, which its close code tells.
func (c *Client) refused(l *link, err *Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(l.asks) > 0 && l.asks[0].err == nil {
		l.asks[0].err = err
	}
	c.cfg.Logger.Debug("node", "err", err)
}

// confirm notes which of the subscriptions that were asked for on l are made.
// The others were refused, in order, by errs. It returns an error if the node
// cannot serve one for the moment that had been made before, or answers what
// cannot be read: then another connection must.
func (c *Client) confirm(l *link, asked []*Sub, made []schemas.Sub, errs []*Error) (again error) {
	var unwanted []schemas.Sub // cancelled while the answer was under way
	byChannel := make(map[string]schemas.Sub, len(made))
	for _, m := range made {
		byChannel[m.Ch] = m
	}
	c.mu.Lock()
	for _, s := range asked {
		m, ok := byChannel[s.channel]
		switch {
		case ok && s.over:
			unwanted = append(unwanted, m)
		case ok && len(m.Cur) != cursorLen:
			again = fmt.Errorf("%w: channel %s is at %q", errBroken, m.Ch, m.Cur)
		case ok:
			l.made(s, m)
		default:
			err := &Error{Code: schemas.Internal, Msg: "the node did not confirm channel " + s.channel, Retry: "no"}
			if len(errs) > 0 {
				err, errs = errs[0], errs[1:]
			}
			again = errors.Join(again, c.unmade(s, err))
		}
	}
	c.mu.Unlock()
	if len(unwanted) > 0 {
		c.forget(l, unwanted)
	}
	return again
}

// made notes that s goes on as the node says, c.mu held.
func (l *link) made(s *Sub, m schemas.Sub) {
	l.ids[m.ID] = s
	if l.resumed != nil {
		l.resumed[s] = m.Cur
	}
	if !sameLog(s.cursor, m.Cur) || m.Cur > s.cursor {
		s.cursor = m.Cur
	}
	if s.acked == "" { // the first answer
		s.acked = m.Cur
		close(s.ready)
	}
}

// unmade ends a subscription that was refused, c.mu held. If another
// connection may serve it, it stays and why is returned.
func (c *Client) unmade(s *Sub, why *Error) error {
	if why.Retry != "no" && s.cursor != "" && !s.over {
		return why
	}
	if c.subs[s.channel] == s {
		delete(c.subs, s.channel)
	}
	s.end(why)
	return nil
}
