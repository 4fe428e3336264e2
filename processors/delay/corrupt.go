package delay

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/spillway/spillway/schemas"
)

// A span is a batch that cannot be decoded: offsets [offset, next).
type span struct {
	offset, next int64
	epoch        int32
	why          string // what its offsets do, for a person
}

// A corruptError says that a payload lies in a batch which cannot be decoded.
type corruptError struct{ span }

func (e *corruptError) Error() string { return e.why }

// corrupt reports which batch it is that a poll could not decode. It reads the
// batch again, on another connection: only one that is wrong there too is
// skipped, for what the network spoilt comes whole the next time. Nor is one
// that has good records before it, for those come with the next polls.
func (d *Delay) corrupt(ctx context.Context, tp partition) (span, error) {
	d.mu.Lock()
	at := int64(-1)
	if w := d.owned[tp]; w != nil {
		at = max(0, w.position())
	}
	d.mu.Unlock()
	if at < 0 {
		return span{}, errors.New("it is not ours any more")
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	part, err := d.fetch(ctx, d.producer, tp, at)
	if err != nil {
		return span{}, err
	}
	if err := kerr.ErrorForCode(part.ErrorCode); err != nil {
		return span{}, err
	}
	for {
		b, ok := schemas.BatchAt(part.RecordBatches, at)
		if !ok || b.Raw == nil {
			return span{}, fmt.Errorf("offset %d is not in what is read again", at)
		}
		one := *part
		one.RecordBatches = b.Raw
		got, _ := d.process(tp, at, &one)
		if undecodable(got.Err) {
			return span{b.Offset, b.Next, b.Epoch, cannotBeDecoded(got.Err)}, nil
		}
		if len(got.Records) > 0 {
			return span{}, fmt.Errorf("offset %d can be decoded when it is read again", at)
		}
		at = b.Next
	}
}

// undecodable reports an error that is not Kafka's but about bytes.
func undecodable(err error) bool {
	var code *kerr.Error
	return err != nil && !errors.As(err, &code)
}

func cannotBeDecoded(err error) string { return fmt.Sprintf("cannot be decoded: %v", err) }

// process decodes what a fetch brought, within the bound of a batch.
func (d *Delay) process(tp partition, offset int64, part *kmsg.FetchResponseTopicPartition) (kgo.FetchPartition, int64) {
	bounded, ok := d.consumer.OptValue(kgo.WithDecompressor).(kgo.Decompressor)
	if !ok {
		panic("delay: the client has no decompressor")
	}
	return kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: offset, Topic: tp.topic, Partition: tp.number, IsolationLevel: kgo.ReadCommitted(),
	}, part, bounded, nil)
}

// bury gives back a record whose bytes are corrupt as a dead letter without
// payload, for this offset alone: what else the batch holds has its own time.
func (d *Delay) bury(ctx context.Context, r release, why string) {
	d.mu.Lock()
	r.w.hold = 0
	delete(d.faults, faultAt{r.w.tp, readingAgain})
	d.mu.Unlock()
	d.cfg.Logger.Error("a record is in a batch that is corrupt and is a dead letter", "topic", r.w.tp.topic, "partition", r.w.tp.number,
		"offset", r.offset, "err", why)
	g := d.give.undecodable(r.w.tp, d.topicIDs[r.w.tp.topic], span{offset: r.offset, next: r.offset + 1, why: why}, d.cfg.Now())
	d.producer.Produce(context.WithoutCancel(ctx), g.record, func(_ *kgo.Record, err error) { d.answered(r, g, err) })
}
