package fanout

import (
	"context"
	"slices"
	"strconv"

	"github.com/spillway/spillway/schemas"
)

// What a client does to its subscriptions.

// subscribe makes subscriptions and returns those that are; the others are
// refused, in order, one err each. resumed: all continue from a cursor.
func (c *conn) subscribe(reqs []schemas.SubRequest) (made []schemas.Sub, resumed bool) {
	ctx, cancel := context.WithTimeout(c.f.life, subscribeTimeout)
	defer cancel()
	resumed = len(reqs) > 0
	var down *refusal // what fails for one fails for all: not each waits for it
	for i := range reqs {
		s, again, no := (*sub)(nil), false, down
		if no == nil {
			s, again, no = c.subscribeOne(ctx, &reqs[i])
		}
		if no != nil && no.code == schemas.KafkaUnavailable {
			down = no
		}
		resumed = resumed && again
		if no != nil {
			c.refuse(no, 0)
			continue
		}
		made = append(made, schemas.Sub{Ch: s.feed.Pattern, ID: s.feed.ID, Cur: s.from.String()})
	}
	return made, resumed
}

func (c *conn) subscribeOne(ctx context.Context, req *schemas.SubRequest) (*sub, bool, *refusal) {
	from, no := checkSub(c.claims, req)
	if no != nil {
		return nil, false, no
	}
	old := slices.IndexFunc(c.subs, func(s *sub) bool { return s.feed.Pattern == req.Ch })
	if old < 0 && len(c.subs) >= MaxChannels {
		return nil, false, refuse(schemas.ChannelLimit, "channel %q: %d is the most on one connection", req.Ch, MaxChannels)
	}
	if old >= 0 { // subscribed again: from where it says now
		c.drop(old, 0)
	}
	if c.part == nil {
		part, err := c.f.source.acquire(ctx, c.f.home(c.claims.Tenant))
		if err != nil {
			return nil, false, c.f.unavailable(err)
		}
		c.part = part
	}
	s := &sub{part: c.part, onLag: req.OnLag, feed: c.part.tail.Subscribe(c.claims.Tenant, req.Ch, c)}
	resumed, gap, err := s.begin(ctx, c.f.reader, from)
	if err != nil {
		s.feed.Leave(c)
		return nil, false, c.f.unavailable(err)
	}
	s.gap = gap
	s.said = c.f.cfg.Now().UnixMilli()
	c.subs = append(c.subs, s)
	c.f.m.subscriptions.Inc()
	if from.kind == fromCursor {
		c.f.audit.resumed(c.info(), s, from.cursor)
	}
	return s, resumed, nil
}

// flushNotes tells the gaps that subscriptions began with, after they were
// confirmed.
func (c *conn) flushNotes() {
	for _, s := range c.subs {
		if s.gap != nil {
			c.note(s, s.gap)
			s.gap = nil
		}
	}
}

// drop ends the i-th subscription.
func (c *conn) drop(i, closeCode int) {
	s := c.subs[i]
	s.feed.Leave(c)
	c.subs = slices.Delete(c.subs, i, i+1)
	c.f.m.subscriptions.Dec()
	c.f.audit.session(c.info(), s, closeCode)
}

func (c *conn) unsubscribe(ids []int) {
	for _, id := range ids {
		if i := slices.IndexFunc(c.subs, func(s *sub) bool { return s.feed.ID == id }); i >= 0 {
			c.drop(i, 0)
		}
	}
}

// acknowledge notes the cursors that a pong carries. What is no cursor of the
// subscription's log says nothing.
func (c *conn) acknowledge(acks map[string]string) {
	for _, s := range c.subs {
		text, ok := acks[strconv.Itoa(s.feed.ID)]
		if !ok {
			continue
		}
		at, err := schemas.ParseCursor(text)
		if err == nil && at.Epoch == s.at.Epoch && at.Offset <= s.at.Offset {
			s.acked = max(s.acked, at.Offset)
		}
	}
}
