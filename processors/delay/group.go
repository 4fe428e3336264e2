package delay

import (
	"context"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// assigned resumes what an earlier owner of this very client may have left
// paused: a pause survives a rebalance.
func (d *Delay) assigned(_ context.Context, c *kgo.Client, got map[string][]int32) {
	c.ResumeFetchPartitions(got)
	d.mu.Lock()
	defer d.mu.Unlock()
	for topic, numbers := range got {
		for _, n := range numbers {
			tp := partition{topic, n}
			d.owned[tp] = &waiting{tp: tp, since: d.cfg.Now(), from: -1}
		}
	}
}

// begin is asked where to begin reading what was assigned. An offset below the
// log's start is moved there, and the gap told: the client would stop at it.
// If Kafka does not say where logs start, outOfRange asks again.
func (d *Delay) begin(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	topics := make([]string, 0, len(offsets))
	for topic := range offsets {
		topics = append(topics, topic)
	}
	var starts kadm.ListedOffsets
	if len(topics) > 0 { // no topics would be all topics
		ctx, cancel := context.WithTimeout(ctx, listTimeout)
		defer cancel()
		var err error
		if starts, err = kadm.NewClient(d.producer).ListStartOffsets(ctx, topics...); err != nil {
			d.cfg.Logger.Warn("where logs start is not known; committed offsets are taken as they are", "err", err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for topic, numbers := range offsets {
		for n, o := range numbers {
			w := d.owned[partition{topic, n}]
			if w == nil {
				continue
			}
			w.begun, w.from = true, o.EpochOffset().Offset
			if start, ok := starts.Lookup(topic, n); ok && start.Err == nil && w.from >= 0 && w.from < start.Offset {
				numbers[n] = kgo.NewOffset().At(start.Offset)
				d.gap(w, start.Offset)
			}
		}
	}
	return offsets, nil
}

// gap goes on at the log's start, which is after where w would read. Markers
// are committed, so records are missing, unless all of them were aborted. The
// caller holds mu.
func (d *Delay) gap(w *waiting, start int64) {
	if from := w.position(); from >= 0 {
		d.m.gaps.Add(float64(start - from))
		d.cfg.Logger.Warn("retention deleted records before they were read; reading goes on at the log's start",
			"topic", w.tp.topic, "partition", w.tp.number, "offset", from, "start", start)
	}
	w.from = start
	w.Skip(start - 1)
}

// revoked waits for what is in flight, and commits it: Kafka would let us
// commit what we no longer own, so it is done now or never.
func (d *Delay) revoked(ctx context.Context, _ *kgo.Client, gone map[string][]int32) {
	d.mu.Lock()
	for topic, numbers := range gone {
		for _, n := range numbers {
			if w := d.owned[partition{topic, n}]; w != nil {
				w.leaving = true
			}
		}
	}
	d.mu.Unlock()
	flush, cancel := context.WithTimeout(ctx, d.cfg.DrainTimeout)
	defer cancel()
	if err := d.producer.Flush(flush); err != nil {
		d.cfg.Logger.Warn("partitions leave with returns in flight; the next owner repeats them", "err", err)
	}
	d.commitMu.Lock()
	defer d.commitMu.Unlock()
	d.commitLocked(ctx)
	d.drop(gone)
}

func (d *Delay) lost(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	d.commitMu.Lock() // a commit under way is over first
	defer d.commitMu.Unlock()
	d.drop(gone)
}

func (d *Delay) drop(gone map[string][]int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for topic, numbers := range gone {
		for _, n := range numbers {
			tp := partition{topic, n}
			delete(d.owned, tp)
			d.payloads.forget(tp)
			delete(d.faults, faultAt{tp, readingAhead})
			delete(d.faults, faultAt{tp, readingAgain})
		}
	}
}

// commit commits the finished prefixes. What cannot be committed is read
// again after a restart, and its return dropped by route. If it never works,
// the fault ends Run.
func (d *Delay) commit(ctx context.Context) {
	d.commitMu.Lock()
	defer d.commitMu.Unlock()
	d.commitLocked(ctx)
}

// commitLocked does it. The caller holds commitMu, which revocation takes: no
// commit of ours is on its way when another owns the partition.
func (d *Delay) commitLocked(ctx context.Context) {
	offsets := d.committable()
	if len(offsets) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.DrainTimeout)
	defer cancel()
	var failed error
	d.consumer.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if failed = err; resp != nil {
			failed = d.committed(offsets, resp)
		}
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	at := faultAt{what: committing}
	if failed == nil {
		delete(d.faults, at)
		return
	}
	d.m.commitFailures.Inc()
	d.fault(at, failed)
}

func (d *Delay) committable() map[string]map[int32]kgo.EpochOffset {
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
	return offsets
}

// committed notes what Kafka took, and returns an error of what it did not.
func (d *Delay) committed(offsets map[string]map[int32]kgo.EpochOffset, resp *kmsg.OffsetCommitResponse) (failed error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				failed = err
			} else if w := d.owned[partition{t.Topic, p.Partition}]; w != nil {
				w.committed = offsets[t.Topic][p.Partition].Offset
			}
		}
	}
	return failed
}
