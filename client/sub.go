package client

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"iter"
	"slices"
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
// reads the connection: as long as it takes, nothing else is read. So it must
// not call Client.Close, nor wait for Subscribe or Publish.
type Handler struct {
	// OnEvent takes an event. Its Raw, and all that is cut from it (Data,
	// Attribute), lies in the buffer that the next frame is read into: it is
	// valid only until OnEvent returns. Copy what is to be kept (bytes.Clone).
	// What the other methods of Event return is a copy.
	OnEvent func(Event)
	OnGap   func(*Gap) // nil: gaps are ignored
}

// A Sub is a subscription. Its methods may be called concurrently.
type Sub struct {
	c       *Client
	channel string
	from    From
	onLag   string
	handler *Handler      // nil: events go to queue
	queue   chan batch    // never closed
	ready   chan struct{} // closed when a node has confirmed it for the first time
	ended   chan struct{}

	// Guarded by c.mu.
	cursor  string  // place up to which events were handed on; "" before the node said
	overlap string  // frames that begin before it may hold events that were handed on
	acked   string  // place up to which they were taken; "" before the node said
	left    []batch // what loops over Events did not take of their frames
	err     error   // why it ended; set before ended is closed
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
// the Client. A loop that is left loses nothing: the next one goes on after
// the last event that was yielded. Only one loop at a time makes sense. Raw of
// the events is their own and stays as it is.
func (s *Sub) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			b, ok := s.next(ctx)
			if !ok {
				if err := cmp.Or(ctx.Err(), s.Err()); err != nil {
					yield(Event{}, err)
				}
				return
			}
			if !s.yieldBatch(b, yield) {
				return
			}
		}
	}
}

// next waits for what no loop has taken. It reports false when the Sub or ctx
// has ended; a Sub's queue is emptied before.
func (s *Sub) next(ctx context.Context) (b batch, ok bool) {
	if ctx.Err() != nil {
		return b, false
	}
	if b, ok = s.takeLeft(); ok {
		return b, true
	}
	select {
	case b = <-s.queue:
		return b, true
	default:
	}
	select {
	case b = <-s.queue:
		return b, true
	case <-ctx.Done():
	case <-s.ended:
	}
	return b, false
}

func (s *Sub) yieldBatch(b batch, yield func(Event, error) bool) bool {
	if b.gap != nil {
		s.took(b.c)
		return yield(Event{}, b.gap)
	}
	defer func() { s.leave(b) }() // also when the loop panics
	for len(b.events) > 0 {
		ev := Event{Raw: b.events[0], Cursor: b.p}
		if b.events = b.events[1:]; len(b.events) == 0 {
			ev.Cursor = b.c
			s.took(b.c)
		}
		if !yield(ev, nil) {
			return false
		}
	}
	return true
}

// leave keeps what a loop did not take for the next one: at most one frame a
// loop.
func (s *Sub) leave(b batch) {
	if len(b.events) == 0 {
		return
	}
	s.c.mu.Lock()
	s.left = append(s.left, b)
	s.c.mu.Unlock()
}

func (s *Sub) takeLeft() (b batch, ok bool) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if len(s.left) == 0 {
		return b, false
	}
	b = s.left[0]
	s.left = slices.Delete(s.left, 0, 1)
	return b, true
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

// Close ends the subscription: no event is handed on that is not being handed
// on now. A handler may call it.
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

// relate compares places of the same log as texts: they are of one width. What
// is no place leaves a hole.
func relate(cursor string, p, c []byte) place {
	switch {
	case len(p) != cursorLen || len(c) != cursorLen:
		return hole
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
			if s.isOver() { // closed by the handler, or meanwhile
				return false, nil
			}
			ev := Event{Raw: raw, Cursor: p}
			if i == len(events)-1 {
				ev.Cursor = c
			}
			s.handler.OnEvent(ev)
		}
		s.moved(c, true)
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
	s.moved(c, len(events) == 0)
	return true, nil
}

func (s *Sub) isOver() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// moved notes that a frame up to cursor was handed on. taken: and nothing of
// it waits in the queue.
func (s *Sub) moved(cursor string, taken bool) {
	s.c.mu.Lock()
	if taken && (s.handler != nil || s.acked == s.cursor) {
		s.acked = cursor
	}
	s.cursor = cursor
	s.c.mu.Unlock()
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
		s.took(g.To)
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
