package delay

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A release is a record whose time has come.
type release struct {
	w      *waiting
	offset int64
	wake   int64       // what it was looked for at
	record *kgo.Record // nil: its payload was not kept
	bytes  int64       // what it adds to inFlightBytes
}

// releaseDue produces the returns of what is due, in order of due times within
// a partition. First what is at hand: where a payload must be read, the rest
// of the partition waits for it.
func (d *Delay) releaseDue(ctx context.Context) {
	left := maxRelease
	var unread []*waiting
	for _, w := range d.dueNow() {
		for ; left > 0; left-- {
			r, ok := d.next(w)
			if !ok {
				break
			}
			if r.record == nil {
				d.putBack(r)
				unread = append(unread, w)
				break
			}
			d.produce(ctx, r)
		}
	}
	until := d.cfg.Now().Add(readBudget)
	for _, w := range unread {
		left = d.releaseUnread(ctx, w, left, until)
	}
}

// dueNow are the partitions in which something is due.
func (d *Delay) dueNow() (due []*waiting) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.cfg.Now()
	d.due = d.inFlight > 0
	for _, w := range d.owned {
		if at, ok := w.NextDue(); !ok || at > now.UnixMilli() || w.leaving {
			continue
		}
		d.due = true
		if !now.Before(w.heldBy) {
			due = append(due, w)
		}
	}
	if !d.due {
		d.moved = now
	}
	return due
}

// next takes the next record of a partition that is due, if there is room in
// flight.
func (d *Delay) next(w *waiting) (release, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w.leaving || d.full() {
		return release{}, false
	}
	wake, _ := w.NextDue()
	offset, ok := w.Take(d.cfg.Now().UnixMilli())
	if !ok {
		return release{}, false
	}
	d.inFlight++
	return release{w: w, offset: offset, wake: wake, record: d.payloads.take(w.tp, offset)}, true
}

// putBack lets a record wait again that could not be read.
func (d *Delay) putBack(r release) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inFlight--
	r.w.PutBack(r.wake, r.offset)
}

// produce gives r back. It is not bound to ctx: what was begun is finished, so
// that the prefix can be committed.
func (d *Delay) produce(ctx context.Context, r release) {
	r.bytes = recordBytes(r.record)
	d.mu.Lock()
	d.inFlightBytes += r.bytes
	d.mu.Unlock()
	g := d.give.give(r.record, d.cfg.Now().UnixMilli())
	r.record = nil
	d.producer.Produce(context.WithoutCancel(ctx), g.record, func(_ *kgo.Record, err error) { d.answered(r, g, err) })
}

// answered notes that a return is held by Kafka, or that it never will be. It
// may come when the partition has left, or left and come back: then it is not
// of the waiting that we have now, and the next owner repeats it.
func (d *Delay) answered(r release, g given, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inFlight--
	d.inFlightBytes -= r.bytes
	d.tellRoom()
	if err != nil {
		if d.fatal == nil {
			d.fatal = fmt.Errorf("give back %s offset %d: %w", r.w.tp, r.offset, err)
		}
		return // never committed: read again after the restart
	}
	now := d.cfg.Now()
	d.moved = now
	d.m.released.WithLabelValues(g.to).Inc()
	switch g.to {
	case toEvents, toWork:
		d.m.lateness.Observe(float64(now.UnixMilli()-g.due) / 1000)
	case toDead:
		d.m.dead.WithLabelValues(string(g.reason)).Inc()
	}
	if d.owned[r.w.tp] == r.w && r.w.Finish(r.offset) {
		d.payloads.take(r.w.tp, r.offset)
	}
}

// full says that no more may be in flight. The caller holds mu.
func (d *Delay) full() bool { return d.inFlight >= maxInFlight || d.inFlightBytes >= maxInFlightBytes }

// awaitRoom waits until a quarter of what is in flight was answered, if it is
// full, maxPoll at most.
func (d *Delay) awaitRoom(ctx context.Context) {
	d.mu.Lock()
	if d.noRoom = d.full(); !d.noRoom {
		d.mu.Unlock()
		return
	}
	select {
	case <-d.room: // of an earlier wait that had timed out
	default:
	}
	d.mu.Unlock()
	timer := time.NewTimer(maxPoll)
	defer timer.Stop()
	select {
	case <-d.room:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// tellRoom ends awaitRoom. The caller holds mu.
func (d *Delay) tellRoom() {
	if !d.noRoom || d.inFlight > maxInFlight*3/4 || d.inFlightBytes > maxInFlightBytes*3/4 {
		return
	}
	d.noRoom = false
	select {
	case d.room <- struct{}{}:
	default:
	}
}
