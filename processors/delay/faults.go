package delay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A fault is an error that comes again and again. There are at most two for
// each partition, and two for the group.
type fault struct {
	err         error
	since, last time.Time
}

// A faultAt is where it is. The partition of the group's has no topic.
type faultAt struct {
	tp   partition
	what string
}

const (
	readingAhead = "reading ahead"
	readingAgain = "reading a payload again"
	committing   = "committing"
)

// fault notes an error. It is logged when it is new, and forgotten when it was
// not repeated for faultStale. The caller holds mu.
func (d *Delay) fault(at faultAt, err error) {
	now := d.cfg.Now()
	f := d.faults[at]
	if f == nil || now.Sub(f.last) > faultStale {
		f = &fault{since: now}
		d.faults[at] = f
		d.cfg.Logger.Warn("a step fails and is tried again", "topic", at.tp.topic, "partition", at.tp.number, "step", at.what, "err", err)
	}
	f.err, f.last = err, now
}

// faulty returns an error that stands for at least so long. The caller holds
// mu.
func (d *Delay) faulty(now time.Time, least time.Duration) error {
	for at, f := range d.faults {
		if now.Sub(f.last) <= faultStale && f.last.Sub(f.since) >= least {
			return fmt.Errorf("%s of %s fails for %s: %w", at.what, at.tp, now.Sub(f.since).Round(time.Second), f.err)
		}
	}
	return nil
}

// fetchError judges what a poll says about a partition, or about the group
// (its topic is ""). Most is repeated by the client and passes.
func (d *Delay) fetchError(ctx context.Context, tp partition, err error) {
	var lossy *kgo.ErrDataLoss
	var tooLarge *kgo.ErrDecompressTooLarge
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return
	case errors.Is(err, kerr.OffsetOutOfRange):
		if err = d.outOfRange(ctx, tp, err); err == nil {
			return
		}
	case errors.As(err, &tooLarge):
		d.skipBatch(ctx, tp, span{tooLarge.Offset, tooLarge.NextOffset, tooLarge.Epoch, fmt.Sprintf("decompress to more than %d bytes", maxBatchBytes)})
		return
	case errors.Is(err, kgo.ErrClientClosed), errors.Is(err, kerr.FencedInstanceID), // another process has our name
		errors.Is(err, kerr.UnknownTopicID), // the topic was made anew: this client reads it no more
		errors.As(err, &lossy):              // the client goes on elsewhere than we think
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.fatal == nil {
			d.fatal = fmt.Errorf("read %s: %w", tp, err)
		}
		return
	case tp.topic != "" && undecodable(err):
		bad, again := d.corrupt(ctx, tp)
		if again == nil {
			d.skipBatch(ctx, tp, bad)
			return
		}
		err = fmt.Errorf("%w; read again: %w", err, again)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault(faultAt{tp, readingAhead}, err)
	if w := d.owned[tp]; w != nil {
		w.retryAt = d.cfg.Now().Add(faultRetry)
	}
}

// skipBatch makes a batch that cannot be decoded a dead letter without payload,
// and goes on behind it. It is committed when Kafka holds the letter.
func (d *Delay) skipBatch(ctx context.Context, tp partition, b span) {
	d.mu.Lock()
	w := d.owned[tp]
	if w == nil || b.next <= w.Next() {
		d.mu.Unlock()
		return
	}
	r := release{w: w, offset: max(b.offset, w.Next())}
	w.AddTaken(r.offset)
	w.Skip(b.next - 1)
	w.begun = true
	delete(d.faults, faultAt{tp, readingAhead})
	d.inFlight++
	g := d.give.undecodable(tp, d.topicIDs[tp.topic], span{r.offset, b.next, b.epoch, b.why}, d.cfg.Now())
	d.mu.Unlock()
	d.cfg.Logger.Error("a batch cannot be decoded and is skipped", "topic", tp.topic, "partition", tp.number, "offset", r.offset, "next", b.next, "err", b.why)
	d.consumer.SetOffsets(map[string]map[int32]kgo.EpochOffset{tp.topic: {tp.number: {Epoch: b.epoch, Offset: b.next}}})
	d.producer.Produce(context.WithoutCancel(ctx), g.record, func(_ *kgo.Record, err error) { d.answered(r, g, err) })
}

// outOfRange goes on at the log's start if retention has passed where we read.
// It returns nil then. Else Kafka has lost what we have read: to begin anew
// would give back everything once more, so that is for a person to decide.
func (d *Delay) outOfRange(ctx context.Context, tp partition, outOfRange error) error {
	start, err := d.logStart(ctx, tp)
	if err != nil {
		return err
	}
	d.mu.Lock()
	w := d.owned[tp]
	at := int64(-1)
	if w != nil {
		if at = w.position(); at < start {
			d.gap(w, start)
		}
	}
	d.mu.Unlock()
	switch {
	case w == nil:
		return nil
	case at >= start:
		return fmt.Errorf("offset %d is not in the log, which starts at %d: has Kafka lost records? %w", at, start, outOfRange)
	}
	d.consumer.SetOffsets(map[string]map[int32]kgo.EpochOffset{tp.topic: {tp.number: {Epoch: -1, Offset: start}}})
	return nil
}

// logStart asks where the log of a partition begins.
func (d *Delay) logStart(ctx context.Context, tp partition) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	starts, err := kadm.NewClient(d.producer).ListStartOffsets(ctx, tp.topic)
	if err != nil {
		return 0, fmt.Errorf("ask where %s starts: %w", tp, err)
	}
	start, ok := starts.Lookup(tp.topic, tp.number)
	if !ok {
		return 0, fmt.Errorf("ask where %s starts: it is not there", tp)
	}
	if start.Err != nil {
		return 0, fmt.Errorf("ask where %s starts: %w", tp, start.Err)
	}
	return start.Offset, nil
}
