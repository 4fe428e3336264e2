package client

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"iter"
	"strconv"
	"time"

	"github.com/spillway/spillway/schemas"
)

// A From says where a subscription begins: Live, Begin, Since, Last, or the
// text of a cursor.
type From string

const (
	Live  From = "live"  // what comes from now on
	Begin From = "begin" // all that Kafka keeps for sockets
)

// Since begins with what was appended at t or later.
func Since(t time.Time) From {
	return From(fmt.Appendf(nil, `{"ts":%d}`, t.UnixMilli()))
}

// Last begins with the n newest events; nodes refuse more than 1000.
func Last(n int) From { return From(`{"last":` + strconv.Itoa(n) + `}`) }

func (f From) json() json.RawMessage {
	if len(f) > 0 && f[0] == '{' {
		return json.RawMessage(f)
	}
	return schemas.AppendJSONString(nil, string(f))
}

// A Gap says that events between two places did not come, and will not.
type Gap struct {
	Channel  string
	From, To string // cursors
	Why      string // "lag": this client was too slow; "retention": it was away too long; "epoch": it is another log
	Replay   string // path on the audit role that has the rest
}

// Error says what is missing.
func (g *Gap) Error() string {
	return fmt.Sprintf("channel %s: events between %s and %s are missing (%s)", g.Channel, g.From, g.To, g.Why)
}

// A Handler is called for what comes on a subscription, by the goroutine that
// reads the connection: as long as it takes, nothing else is read, and Close
// must not be called from it. An event's Raw is good until OnEvent returns.
type Handler struct {
	OnEvent func(Event)
	OnGap   func(*Gap) // nil: gaps are ignored
}

// A Sub is a subscription. Its methods may be called concurrently.
type Sub struct {
	c       *Client
	channel string
	from    From
	onLag   string
	handler *Handler   // nil: events go to queue
	queue   chan batch // never closed
	ended   chan struct{}

	// Guarded by c.mu.
	cursor  string // place up to which events were handed on; "" before the node said
	resumed string // place from which the newest connection goes on
	overlap string // frames that begin before it may hold events that were handed on
	acked   string // place up to which they were taken
	asking  bool   // a sub frame of it waits for its answer
	err     error  // why it ended; set before ended is closed
	over    bool
	repeats int64

	recent recent       // owned by the reading goroutine
	pieces [][]byte     // scratch of the reading goroutine
	seed   maphash.Seed //
}

// A batch is one frame's worth for a Sub.
type batch struct {
	events [][]byte
	p, c   string
	gap    *Gap
}

// Channel is the channel or pattern.
func (s *Sub) Channel() string { return s.channel }

// Cursor is the place up to which events were taken: resuming from it misses
// nothing. "" before anything is known.
func (s *Sub) Cursor() string {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.acked == "" {
		return s.cursor
	}
	return s.acked
}

// Repeats counts events that came again and were dropped.
func (s *Sub) Repeats() int64 {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.repeats
}

// Events yields what comes, in order. With a *Gap as error it goes on after
// it; any other error is the last one. It ends with ctx, with Close, or with
// the Client. Only one loop at a time makes sense.
func (s *Sub) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			select {
			case b := <-s.queue:
				if !s.yieldBatch(b, yield) {
					return
				}
				continue
			default:
			}
			select {
			case b := <-s.queue:
				if !s.yieldBatch(b, yield) {
					return
				}
			case <-ctx.Done():
				yield(Event{}, ctx.Err())
				return
			case <-s.ended:
				if err := s.Err(); err != nil {
					yield(Event{}, err)
				}
				return
			}
		}
	}
}

func (s *Sub) yieldBatch(b batch, yield func(Event, error) bool) bool {
	if b.gap != nil {
		s.took(b.c)
		return yield(Event{}, b.gap)
	}
	for i, raw := range b.events {
		ev := Event{Raw: raw, Cursor: b.p}
		if i == len(b.events)-1 {
			ev.Cursor = b.c
			s.took(b.c)
		}
		if !yield(ev, nil) {
			return false
		}
	}
	return true
}

func (s *Sub) took(cursor string) {
	s.c.mu.Lock()
	s.acked = cursor
	s.c.mu.Unlock()
}

// Err is why the subscription ended, nil if it has not or was closed.
func (s *Sub) Err() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.err
}

// Close ends the subscription.
func (s *Sub) Close() {
	s.c.unsubscribe(s)
}

// end marks the subscription as over, c.mu held.
func (s *Sub) end(err error) {
	if !s.over {
		s.over, s.err = true, err
		close(s.ended)
	}
}

// request is the subscription as a frame asks for it: from where it is, or
// from where it was told to begin. c.mu held.
func (s *Sub) request() schemas.SubRequest {
	r := schemas.SubRequest{Ch: s.channel, OnLag: s.onLag}
	if s.cursor != "" {
		r.From = From(s.cursor).json()
	} else {
		r.From = s.from.json()
	}
	return r
}

// place says how a frame relates to where the subscription is.
type place int

const (
	follows place = iota
	repeats       // all of it was handed on
	hole          // something between is missing
)

// relate compares places of the same log as texts: they are of one width.
func relate(cursor string, p, c []byte) place {
	const epochLen = 13
	switch {
	case cursor == "":
		return follows
	case string(p[:epochLen]) != cursor[:epochLen] || string(p) > cursor:
		return hole
	case string(c) <= cursor:
		return repeats
	}
	return follows
}

// deliver hands the events of a frame on. It reports false when the Sub or the
// Client has ended.
func (s *Sub) deliver(frame []byte, f evFrame) (ok bool, err error) {
	pieces, ok := split(s.pieces[:0], f.events)
	if !ok {
		return false, fmt.Errorf("an ev frame of %d bytes cannot be taken apart", len(frame))
	}
	p, c := string(f.p), string(f.c)
	events := s.fresh(pieces, s.overlaps(p))
	s.pieces = pieces
	if s.handler != nil {
		for i, raw := range events {
			ev := Event{Raw: raw, Cursor: p}
			if i == len(events)-1 {
				ev.Cursor = c
			}
			s.handler.OnEvent(ev)
		}
		s.c.moved(s, c, true)
		return true, nil
	}
	if len(events) > 0 {
		s.pieces = nil // the queue has it now
		select {
		case s.queue <- batch{events: events, p: p, c: c}:
		case <-s.ended:
			return false, nil
		}
	}
	s.c.moved(s, c, false)
	return true, nil
}

// overlaps reports whether a frame that begins at p may hold events that an
// earlier connection has brought.
func (s *Sub) overlaps(p string) bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return sameLog(s.overlap, p) && p < s.overlap
}

// fresh drops the events that came before, by source and id, in place. Replays
// repeat on purpose.
func (s *Sub) fresh(events [][]byte, overlap bool) [][]byte {
	out := events[:0]
	for _, raw := range events {
		if s.recent.add(s.identity(raw)) || !overlap && (s.c.cfg.KeepRepeats || member(raw, "replayid") != nil) {
			out = append(out, raw)
			continue
		}
		s.c.mu.Lock()
		s.repeats++
		s.c.mu.Unlock()
	}
	return out
}

func (s *Sub) identity(raw []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	h.Write(member(raw, "id"))
	h.WriteByte(0)
	h.Write(member(raw, "source"))
	return h.Sum64()
}

// tell hands a gap on.
func (s *Sub) tell(g *Gap) {
	if s.handler != nil {
		if s.handler.OnGap != nil {
			s.handler.OnGap(g)
		}
		return
	}
	select {
	case s.queue <- batch{gap: g, c: g.To}:
	case <-s.ended:
	}
}

// recentEvents is how many events a Sub remembers to know a repeat. What comes
// again after a reconnect is at most the frames that were under way.
const recentEvents = 1024

// recent is a set of the newest hashes.
type recent struct {
	has  map[uint64]struct{}
	ring []uint64
	next int
}

// add reports whether h is new, and remembers it.
func (r *recent) add(h uint64) bool {
	if r.has == nil {
		r.has = make(map[uint64]struct{}, recentEvents)
	}
	if _, ok := r.has[h]; ok {
		return false
	}
	r.has[h] = struct{}{}
	if len(r.ring) < recentEvents {
		r.ring = append(r.ring, h)
		return true
	}
	delete(r.has, r.ring[r.next])
	r.ring[r.next] = h
	r.next = (r.next + 1) % recentEvents
	return true
}
