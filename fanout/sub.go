package fanout

import (
	"context"
	"errors"
	"fmt"

	"github.com/spillway/spillway/fanout/tail"
	"github.com/spillway/spillway/schemas"
)

// A sub is a subscription: a place in the log, and what is needed to go on
// from there. One goroutine owns it.
//
//	                ┌── Kafka: from a place that the tail has passed
//	place ─ start ──┤      │ the tail holds all that follows
//	                └──────▼
//	                      tail ──▶ Idle, frame, or lagged: gap and on
type sub struct {
	feed  *tail.Feed
	part  *partition
	onLag string

	log   topicID        // where offsets of old are good
	at    schemas.Cursor // the client has everything up to here, or was told of the gap
	from  schemas.Cursor // at, when it began
	acked int64          // place that the client acknowledged, -1: none
	said  int64          // when it was last told a place, Unix ms
	gap   *note          // to be told once the subscription is confirmed
	old   *lookback      // not nil while it reads Kafka
}

// A lookback is how far a sub has come in reading Kafka.
type lookback struct {
	next   int64 // offset to read
	oldest bool  // next is the oldest that Kafka keeps: what was before it is unknown
	young  bool  // and Kafka has not removed what was before it
	upTo   int64 // cursor up to which all matches are in frames, or were sent
	frames []*tail.Frame
}

// A note is what a client is told beside events: a gap, or with why "" that
// nothing of its channel lies between.
type note struct {
	from, to schemas.Cursor
	why      string
}

// Causes of gaps.
const (
	whyLag       = "lag"
	whyRetention = "retention"
	whyEpoch     = "epoch"
)

// begin places a new sub. It reports whether the client continues from its
// cursor without a gap, or what it is to be told of one.
func (s *sub) begin(ctx context.Context, r *reader, from start) (resumed bool, gap *note, err error) {
	s.at, s.acked = s.feed.Head(), -1
	if s.log, err = r.log(ctx, s.part.id); err != nil {
		return false, nil, err
	}
	switch from.kind {
	case fromCursor:
		gap, err = s.beginAt(ctx, r, from.cursor)
		resumed = err == nil && gap == nil
	case fromBegin:
		err = s.beginOldest(ctx, r)
	case fromTime:
		err = s.beginTime(ctx, r, from.ms)
	case fromLast:
		err = s.beginLast(ctx, r, from.last)
	}
	s.from = s.at
	return resumed, gap, err
}

// beginAt continues from a cursor. A place beyond the end of `events` is not of
// this log, whatever its epoch says; one that only this node has not reached
// yet is waited for.
func (s *sub) beginAt(ctx context.Context, r *reader, at schemas.Cursor) (*note, error) {
	head := s.at
	if at.Epoch != head.Epoch {
		return &note{at, head, whyEpoch}, nil
	}
	if at.Offset > head.Offset {
		end, err := r.eventsEnd(ctx, s.part.id)
		if err != nil {
			return nil, err
		}
		if at.Offset >= end {
			return &note{at, head, whyEpoch}, nil
		}
	}
	s.at = at
	if s.feed.Covers(at) {
		if s.part.bare && at.Offset < head.Offset { // all records are gone, who knows which
			return &note{at, at, whyRetention}, nil
		}
		return nil, nil
	}
	offset, oldest, err := r.locate(ctx, s.part.id, at)
	// Before the first record of a topic from which nothing was removed yet:
	// that is not the log which the cursor is from, unless it is from before all.
	s.old = &lookback{next: offset, oldest: offset == oldest && (oldest > 0 || at.Offset >= 0), young: oldest == 0, upTo: at.Offset}
	return nil, err
}

func (s *sub) beginOldest(ctx context.Context, r *reader) error {
	oldest, end, err := r.bounds(ctx, s.part.id)
	if err != nil {
		return err
	}
	return s.beginOffset(ctx, r, oldest, end)
}

func (s *sub) beginTime(ctx context.Context, r *reader, ms int64) error {
	offset, err := r.afterTime(ctx, s.part.id, ms)
	if err != nil {
		return err
	}
	_, end, err := r.bounds(ctx, s.part.id)
	if err != nil {
		return err
	}
	return s.beginOffset(ctx, r, offset, end)
}

// beginOffset begins before the first event at an offset or after it.
func (s *sub) beginOffset(ctx context.Context, r *reader, offset, end int64) error {
	found, at, err := r.probe(ctx, s.part.id, offset, end)
	if err != nil || found >= end || at.Epoch != s.at.Epoch {
		if found < end && err == nil { // the oldest records are of an older epoch
			s.at = s.feed.Start()
		}
		return err
	}
	s.at.Offset = at.Offset - 1
	if !s.feed.Covers(s.at) {
		s.old = &lookback{next: found, upTo: s.at.Offset}
	}
	return nil
}

// lastBytes bounds how far back Kafka is read for "last": past that, fewer
// events than asked for are sent.
const lastBytes = 32 << 20

// beginLast begins before the n newest matches.
func (s *sub) beginLast(ctx context.Context, r *reader, n int) error {
	at, have := s.feed.Last(n)
	if s.at = at; have == n {
		return nil
	}
	oldest, end, err := r.bounds(ctx, s.part.id)
	if err != nil {
		return err
	}
	hi, read := end, 0
	var newest []int64 // cursors of matches, newest first
	for step := int64(256); hi > oldest && len(newest) < n && read < lastBytes; step *= 2 {
		lo := max(oldest, hi-step)
		found, size, err := s.matches(ctx, r, lo, hi)
		if err != nil {
			return err
		}
		for i := len(found) - 1; i >= 0 && len(newest) < n; i-- {
			newest = append(newest, found[i])
		}
		hi, read = lo, read+size
	}
	if len(newest) > have {
		s.at.Offset = newest[len(newest)-1] - 1
		if !s.feed.Covers(s.at) {
			s.old = &lookback{next: hi, upTo: s.at.Offset}
		}
	}
	return nil
}

// matches returns the cursors of this sub's events between two offsets.
func (s *sub) matches(ctx context.Context, r *reader, lo, hi int64) (found []int64, size int, err error) {
	for lo < hi {
		c, err := r.fetch(ctx, s.part.id, lo, chunkBytes)
		if err != nil {
			return nil, 0, err
		}
		for i := range c.records {
			rec := &c.records[i]
			size += len(rec.JSON)
			if c.offsets[i] < hi && rec.Epoch == s.at.Epoch && s.wants(rec) {
				found = append(found, rec.Cursor)
			}
		}
		if c.next <= lo {
			break
		}
		lo = c.next
	}
	return found, size, nil
}

func (s *sub) wants(r *tail.Record) bool {
	return r.Tenant == s.feed.Tenant && schemas.Match(s.feed.Pattern, r.Channel)
}

// pending reports whether next would find something.
func (s *sub) pending() bool { return s.old != nil || s.feed.Pending(s.at) }

// next returns what follows: one frame, or one note, or nothing. chunks reads
// Kafka.
func (s *sub) next(ctx context.Context, chunks *chunks) (*tail.Frame, *note, error) {
	if s.old != nil {
		return s.nextOld(ctx, chunks)
	}
	if !s.feed.Pending(s.at) {
		return nil, nil, nil
	}
	frame, status := s.feed.Next(s.at)
	switch status {
	case tail.Ready:
		s.at = frame.C
		return frame, nil, nil
	case tail.Lagged:
		return s.lagged()
	case tail.NewEpoch:
		if s.at.Offset < 0 && s.at.Epoch == s.feed.Head().Epoch { // it began before the first event there ever was
			return nil, s.jump(s.feed.Start(), ""), nil
		}
		return nil, s.jump(s.feed.Start(), whyEpoch), nil
	}
	return nil, nil, nil
}

func (s *sub) jump(to schemas.Cursor, why string) *note {
	n := &note{from: s.at, to: to, why: why}
	s.at = to
	return n
}

// nextOld goes on in Kafka until the tail holds all that follows.
func (s *sub) nextOld(ctx context.Context, chunks *chunks) (*tail.Frame, *note, error) {
	old := s.old
	if len(old.frames) > 0 {
		frame := old.frames[0]
		old.frames[0] = nil
		old.frames = old.frames[1:]
		s.at = frame.C
		return frame, nil, nil
	}
	there := schemas.Cursor{Epoch: s.at.Epoch, Offset: old.upTo}
	if s.feed.Head().Epoch != s.at.Epoch || s.feed.Covers(there) {
		s.old, chunks.newest = nil, nil // up to a batch of memory for each connection else
		if old.upTo > s.at.Offset {
			return nil, s.jump(there, ""), nil
		}
		return nil, nil, nil
	}
	c, err := chunks.get(ctx, s.part.id, old.next)
	if errors.Is(err, errPassed) {
		oldest, _, err := chunks.r.bounds(ctx, s.part.id)
		old.next, old.oldest, old.young = oldest, true, false
		return nil, nil, err
	}
	if err != nil {
		return nil, nil, err
	}
	if c.log != s.log { // made anew meanwhile: the tail tells what is lost
		s.old = nil
		return nil, nil, nil
	}
	return nil, s.take(c), nil
}

// take makes frames of a chunk, or finds that what lies before it is gone.
func (s *sub) take(c *chunk) *note {
	old := s.old
	if len(c.records) > 0 && old.oldest {
		old.oldest = false
		if first := &c.records[0]; first.Epoch == s.at.Epoch && first.Cursor > old.upTo+1 {
			old.upTo = first.Cursor - 1
			why := whyRetention
			if old.young {
				why = whyEpoch
			}
			return s.jump(schemas.Cursor{Epoch: first.Epoch, Offset: old.upTo}, why)
		}
	}
	if c.next <= old.next { // the end, and the tail is elsewhere: it will tell
		s.old = nil
		return nil
	}
	if old.next = c.next; c.hole > 0 { // what is before the next record is unknown
		old.oldest, old.young = true, false
	}
	var events []tail.Event
	size, p := 0, s.at
	for i := range c.records {
		r := &c.records[i]
		if r.Epoch != s.at.Epoch || r.Cursor <= old.upTo {
			continue
		}
		old.upTo = r.Cursor
		if !s.wants(r) {
			continue
		}
		if size += len(r.JSON) + 1; size > tail.FrameBytes && len(events) > 0 {
			p = s.queue(p, events)
			events, size = nil, len(r.JSON)+1
		}
		events = append(events, r.Event)
	}
	if len(events) > 0 {
		s.queue(p, events)
	}
	return nil
}

func (s *sub) queue(p schemas.Cursor, events []tail.Event) schemas.Cursor {
	frame := tail.NewFrame(s.feed.ID, p, events)
	frame.Tenant, frame.Home = s.feed.Tenant, s.part.id
	s.old.frames = append(s.old.frames, frame)
	return frame.C
}

// advance moves over what is not for this sub, if nothing else is due.
func (s *sub) advance() *note {
	to := schemas.Cursor{Epoch: s.at.Epoch}
	if s.old != nil {
		if len(s.old.frames) > 0 || s.old.upTo <= s.at.Offset {
			return nil
		}
		to.Offset = s.old.upTo
		return s.jump(to, "")
	}
	to, ok := s.feed.Advance(s.at)
	if !ok {
		return nil
	}
	return s.jump(to, "")
}

// chunks reads Kafka for the subs of one connection. Those that resume
// together read the same stretch, so it keeps the newest chunk.
type chunks struct {
	r      *reader
	offset int64
	part   int32
	newest *chunk
}

func (c *chunks) get(ctx context.Context, part int32, offset int64) (*chunk, error) {
	if c.newest != nil && c.part == part && c.offset == offset && len(c.newest.records) > 0 {
		return c.newest, nil
	}
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	got, err := c.r.fetch(ctx, part, offset, chunkBytes)
	if err != nil {
		return nil, fmt.Errorf("read for a client: %w", err)
	}
	c.newest, c.part, c.offset = &got, part, offset
	return &got, nil
}
