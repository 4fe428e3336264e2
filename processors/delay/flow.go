package delay

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A release is a record whose time has come.
type release struct {
	tp     partition
	w      *waiting
	offset int64
	due    int64
	record *kgo.Record // nil: its payload was not kept
}

// maxRelease is how many records one cycle gives back at most, so that reading
// ahead and committing get their turn.
const maxRelease = 5000

// releaseDue produces the returns of what is due.
func (d *Delay) releaseDue(ctx context.Context) error {
	for _, r := range d.takeDue() {
		if r.record == nil {
			if r.record = d.kept(r); r.record == nil {
				var err error
				if r.record, err = d.readAgain(ctx, r); err != nil {
					return err
				}
			}
		}
		now := d.cfg.Now().UnixMilli()
		d.m.lateness.Observe(float64(now-r.due) / 1000)
		d.produce(ctx, r.tp, r.record, now)
	}
	return nil
}

// takeDue takes what is due out of those that wait, in order of due times
// within a partition.
func (d *Delay) takeDue() []release {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.cfg.Now().UnixMilli()
	var out []release
	for tp, w := range d.owned {
		for !w.leaving && d.inFlight < maxInFlight && len(out) < maxRelease {
			due, _ := w.NextDue()
			offset, ok := w.Take(now)
			if !ok {
				break
			}
			d.inFlight++
			out = append(out, release{tp, w, offset, due, d.payloads.take(tp, offset)})
		}
	}
	d.due = d.inFlight > 0
	if !d.due {
		d.moved = d.cfg.Now()
	}
	return out
}

// kept looks once more: an earlier release of this cycle may have read it.
func (d *Delay) kept(r release) *kgo.Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.payloads.take(r.tp, r.offset)
}

// readAgain reads a payload that was not kept, and as many after it as fit.
func (d *Delay) readAgain(ctx context.Context, r release) (*kgo.Record, error) {
	records, err := readFrom(ctx, d.cfg.Kafka, r.tp, r.offset)
	for n := 1; err != nil; n++ {
		if n == readAttempts || ctx.Err() != nil || errors.Is(err, errGone) {
			return nil, err
		}
		d.cfg.Logger.Warn("reading a payload again", "topic", r.tp.topic, "partition", r.tp.number, "offset", r.offset, "err", err)
		records, err = readFrom(ctx, d.cfg.Kafka, r.tp, r.offset)
	}
	d.m.reread.Add(float64(len(records)))
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, more := range records[1:] {
		if r.w.Holds(more.Offset) {
			d.payloads.keepAgain(r.tp, more)
		}
	}
	return records[0], nil
}

// produce gives r back. It is not bound to ctx: what was begun is finished, so
// that the prefix can be committed.
func (d *Delay) produce(ctx context.Context, tp partition, r *kgo.Record, now int64) {
	out, to := d.give.give(r, now)
	d.producer.Produce(context.WithoutCancel(ctx), out, func(_ *kgo.Record, err error) { d.answered(tp, r.Offset, to, err) })
}

// answered notes that a return is held by Kafka, or that it never will be.
func (d *Delay) answered(tp partition, offset int64, to string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inFlight--
	if err != nil {
		if d.fatal == nil {
			d.fatal = fmt.Errorf("give back %s/%d offset %d: %w", tp.topic, tp.number, offset, err)
		}
		return // never committed: read again after the restart
	}
	d.moved = d.cfg.Now()
	d.m.released.WithLabelValues(to).Inc()
	w := d.owned[tp]
	if w == nil || !w.Finish(offset) {
		return // revoked meanwhile
	}
	if w.paused && w.Len() < d.cfg.MaxRecords/2 {
		w.paused = false
		d.consumer.ResumeFetchPartitions(map[string][]int32{tp.topic: {tp.number}})
	}
}

// commit commits the finished prefixes, under the lock that revocation takes.
// What cannot be committed is read again, and its return dropped by route.
func (d *Delay) commit(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for tp, w := range d.owned {
		at, ok := w.Committable()
		if !ok || at <= w.committed {
			continue
		}
		if offsets[tp.topic] == nil {
			offsets[tp.topic] = map[int32]kgo.EpochOffset{}
		}
		offsets[tp.topic][tp.number] = kgo.EpochOffset{Epoch: -1, Offset: at}
	}
	if len(offsets) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.DrainTimeout)
	defer cancel()
	var failed error
	d.consumer.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		failed = err
		for _, t := range commitTopics(resp) {
			for _, p := range t.Partitions {
				if e := kerr.ErrorForCode(p.ErrorCode); e != nil {
					failed = e
					continue
				}
				if w := d.owned[partition{t.Topic, p.Partition}]; w != nil {
					w.committed = offsets[t.Topic][p.Partition].Offset
				}
			}
		}
	})
	if failed != nil {
		d.cfg.Logger.Warn("commit offsets", "err", failed)
	}
}

func commitTopics(resp *kmsg.OffsetCommitResponse) []kmsg.OffsetCommitResponseTopic {
	if resp == nil {
		return nil
	}
	return resp.Topics
}
