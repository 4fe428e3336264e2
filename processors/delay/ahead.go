package delay

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// poll reads ahead until something comes, is due, or maxPoll is over. An
// acknowledgement does not end it: only a full flight waits for one, see
// awaitRoom.
func (d *Delay) poll(ctx context.Context) {
	pollCtx, cancel := context.WithTimeout(ctx, max(time.Millisecond, d.untilDue()))
	fetches := d.consumer.PollRecords(pollCtx, pollRecords)
	cancel()
	d.mu.Lock()
	fetches.EachTopic(func(t kgo.FetchTopic) {
		if t.TopicID != ([16]byte{}) { // an error of the client's own names none
			d.topicIDs[t.Topic] = t.TopicID
		}
		for _, p := range t.Partitions {
			d.look(partition{t.Topic, p.Partition}, p)
		}
	})
	d.mu.Unlock()
	fetches.EachError(func(topic string, n int32, err error) { d.fetchError(ctx, partition{topic, n}, err) })
	d.mu.Lock()
	pause, resume := d.pace(d.cfg.Now())
	d.mu.Unlock()
	if len(pause) > 0 {
		d.consumer.PauseFetchPartitions(pause)
	}
	if len(resume) > 0 {
		d.consumer.ResumeFetchPartitions(resume)
	}
}

// look takes what was read of one partition. The caller holds mu.
func (d *Delay) look(tp partition, p kgo.FetchPartition) {
	w := d.owned[tp]
	if w == nil {
		return // revoked meanwhile: the next owner reads it
	}
	if p.Err == nil && len(p.Records) > 0 {
		w.begun = true
		delete(d.faults, faultAt{tp, readingAhead})
	}
	for _, r := range p.Records {
		switch {
		case r.Offset < w.Next(): // looked at before
		case r.Attrs.IsControl():
			w.Skip(r.Offset)
		default:
			d.add(w, r)
		}
	}
}

// add looks at one record. One that cannot be read is due at once, and becomes
// a dead letter.
func (d *Delay) add(w *waiting, r *kgo.Record) {
	due, tier := int64(0), d.give.tiers[r.Topic]
	if n, err := readNote(r, tier); err == nil {
		due = n.wake(r, tier)
	}
	w.Add(due, r.Offset)
	d.payloads.keep(w.tp, r)
}

// untilDue is how long nothing is due, maxPoll at most.
func (d *Delay) untilDue() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.cfg.Now().UnixMilli()
	next := now + maxPoll.Milliseconds()
	waiting := 0
	for _, w := range d.owned {
		waiting += w.Waiting()
		if due, ok := w.NextDue(); ok && !w.leaving {
			next = min(next, max(due, w.heldBy.UnixMilli()))
		}
	}
	d.m.waiting.Set(float64(waiting))
	d.m.payloads.Set(float64(d.payloads.size))
	return time.Duration(next-now) * time.Millisecond
}

// Why a partition is read no further, the metric's label.
const (
	pausedWaiting = "waiting" // MaxRecords wait
	pausedPinned  = "pinned"  // few wait, but one is so far that a restart would repeat very much
	pausedError   = "error"   // faultRetry after an error
)

// pause says why w must be read no further, "" if it may be. What was paused
// is resumed when there is room for a while.
func (w *waiting) pause(maxRecords int, now time.Time) string {
	records, span := maxRecords, int64(spanRecords*maxRecords)
	switch w.paused {
	case pausedWaiting:
		records /= 2
	case pausedPinned:
		span -= span / 8
	}
	switch {
	case now.Before(w.retryAt):
		return pausedError
	case w.Waiting() >= records:
		return pausedWaiting
	case w.Span() >= span:
		return pausedPinned
	}
	return ""
}

// pace says which partitions to pause and to resume. The caller holds mu.
func (d *Delay) pace(now time.Time) (pause, resume map[string][]int32) {
	pause, resume = map[string][]int32{}, map[string][]int32{}
	counts := map[string]float64{pausedWaiting: 0, pausedPinned: 0, pausedError: 0}
	for tp, w := range d.owned {
		why := w.pause(d.cfg.MaxRecords, now)
		switch {
		case why != "" && w.paused == "":
			pause[tp.topic] = append(pause[tp.topic], tp.number)
		case why == "" && w.paused != "":
			resume[tp.topic] = append(resume[tp.topic], tp.number)
		}
		if why == pausedPinned && w.paused != pausedPinned {
			at, _ := w.Committable()
			d.cfg.Logger.Warn("one record is due so late that the partition is read no further", "topic", tp.topic, "partition", tp.number, "offset", at)
		}
		if w.paused = why; why != "" {
			counts[why]++
		}
	}
	for why, n := range counts {
		d.m.paused.WithLabelValues(why).Set(n)
	}
	return pause, resume
}
