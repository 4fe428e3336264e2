package delay

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/spillway/spillway/schemas"
)

// A reading is what one read of payloads brought, for this cycle, and whether
// its neighbours could be kept or not.
type reading struct {
	records []*kgo.Record // in offset order
	start   int64         // where the log starts, if it was found out; no record is below
	bad     span          // a batch that cannot be decoded, if one was met

	lost        int // records that were gone, for one line in the log
	first, last int64
}

// A goneError says that Kafka has a record no more, and why.
type goneError struct {
	why   string // retention, missing
	start int64  // of the log, if it is known
}

func (e *goneError) Error() string { return "the record is gone: " + e.why }

// Why a record is gone, the metric's label.
const (
	goneRetention = "retention" // retention is shorter than the wait
	goneMissing   = "missing"   // the log has others around it
)

var errLater = errors.New("the time of this cycle is over")

// releaseUnread gives back left records of w at most, and returns how many
// more there may be. It begins no reading after until. What cannot be read
// holds what is due after it, and is tried again: one tenant's records keep
// their order.
func (d *Delay) releaseUnread(ctx context.Context, w *waiting, left int, until time.Time) int {
	var read reading
	for ; left > 0; left-- {
		r, ok := d.next(w)
		if !ok {
			break
		}
		var err error
		if r.record == nil {
			r.record, err = d.payload(ctx, r, &read, until)
		}
		if gone := (*goneError)(nil); errors.As(err, &gone) {
			d.lose(r, gone, &read)
			continue
		}
		if bad := (*corruptError)(nil); errors.As(err, &bad) {
			read.bad = bad.span
			d.bury(ctx, r, bad.why)
			continue
		}
		if err != nil {
			d.putBack(r)
			d.hold(ctx, w, err)
			break
		}
		d.produce(ctx, r)
	}
	if read.lost > 0 {
		d.cfg.Logger.Error("Kafka had records no more when they were due; they are lost", "topic", w.tp.topic, "partition", w.tp.number,
			"records", read.lost, "offset", read.first, "last", read.last, "start", read.start)
	}
	return left
}

// payload is the record of r: from what was read last, or read now. What it
// returns shares nothing with its batch.
func (d *Delay) payload(ctx context.Context, r release, read *reading, until time.Time) (*kgo.Record, error) {
	if found := read.find(r.offset); found != nil {
		d.m.reread.Inc()
		return clone(found), nil
	}
	if r.offset < read.start {
		return nil, &goneError{goneRetention, read.start}
	}
	if read.bad.offset <= r.offset && r.offset < read.bad.next {
		return nil, &corruptError{read.bad}
	}
	if !d.cfg.Now().Before(until) || ctx.Err() != nil {
		return nil, errLater
	}
	records, err := d.readFrom(ctx, r.w.tp, r.offset)
	if err != nil {
		return nil, err
	}
	read.records = records
	d.keepSoon(r.w, records)
	found := read.find(r.offset)
	if found == nil {
		return nil, &goneError{why: goneMissing}
	}
	d.m.reread.Inc()
	return clone(found), nil
}

func (read *reading) find(offset int64) *kgo.Record {
	i := sort.Search(len(read.records), func(i int) bool { return read.records[i].Offset >= offset })
	if i == len(read.records) || read.records[i].Offset != offset {
		return nil
	}
	return read.records[i]
}

// keepSoon keeps those that are due soon, for later cycles. Those that were
// given back and wait for their acknowledgement need no copy any more.
func (d *Delay) keepSoon(w *waiting, records []*kgo.Record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w.hold = 0
	delete(d.faults, faultAt{w.tp, readingAgain})
	soon := d.cfg.Now().Add(readSoon).UnixMilli()
	for _, r := range records {
		if due, ok := w.Due(r.Offset); ok && due <= soon {
			d.payloads.keepAgain(w.tp, r)
		}
	}
}

// hold lets w wait after a reading that failed, longer each time. If it never
// works, the fault ends Run.
func (d *Delay) hold(ctx context.Context, w *waiting, err error) {
	if errors.Is(err, errLater) || ctx.Err() != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	w.hold = min(max(firstHold, 2*w.hold), lastHold)
	w.heldBy = d.cfg.Now().Add(w.hold)
	d.fault(faultAt{w.tp, readingAgain}, err)
}

// lose finishes a record whose bytes Kafka has no more: there is nothing that
// a dead letter could keep.
func (d *Delay) lose(r release, gone *goneError, read *reading) {
	if read.lost++; read.lost == 1 {
		read.first = r.offset
	}
	read.last, read.start = r.offset, max(read.start, gone.start)
	d.m.lost.WithLabelValues(gone.why).Inc()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inFlight--
	d.moved = d.cfg.Now()
	r.w.hold = 0
	delete(d.faults, faultAt{r.w.tp, readingAgain})
	r.w.Finish(r.offset)
}

// readFrom reads a partition again, from offset on, readAheadMax bytes or so.
// It asks by the producer's connections: on the consumer's, the answer would
// stand behind that of a fetch that waits for new records.
//
// A goneError says that retention has passed the offset, a corruptError that
// its batch cannot be decoded; any other error may pass.
func (d *Delay) readFrom(ctx context.Context, tp partition, offset int64) ([]*kgo.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	part, err := d.fetch(ctx, d.producer, tp, offset)
	if err != nil {
		d.producer.ForceMetadataRefresh()
		return nil, fmt.Errorf("read %s offset %d again: %w", tp, offset, err)
	}
	got, next := d.process(tp, offset, part)
	switch {
	case undecodable(got.Err) && len(got.Records) > 0: // a batch behind what is asked for
	case undecodable(got.Err):
		return d.readBad(ctx, tp, offset, got.Err)
	case errors.Is(got.Err, kerr.OffsetOutOfRange):
		start, err := d.logStart(ctx, tp)
		if err != nil {
			return nil, err
		}
		if offset < start {
			return nil, &goneError{goneRetention, start}
		}
		return nil, fmt.Errorf("read %s offset %d again: the log starts at %d: %w", tp, offset, start, got.Err)
	case got.Err != nil:
		d.consumer.ForceMetadataRefresh() // the leader may have moved
		return nil, fmt.Errorf("read %s offset %d again: %w", tp, offset, got.Err)
	case len(got.Records) == 0 && next <= offset:
		return nil, fmt.Errorf("read %s offset %d again: the answer is empty", tp, offset)
	}
	return got.Records, nil
}

// readBad reads what cannot be decoded once more, over the consumer's
// connections. What is wrong there too is corrupt.
func (d *Delay) readBad(ctx context.Context, tp partition, offset int64, first error) ([]*kgo.Record, error) {
	part, err := d.fetch(ctx, d.consumer, tp, offset)
	if err != nil {
		return nil, fmt.Errorf("read %s offset %d again: %w; and once more: %w", tp, offset, first, err)
	}
	got, _ := d.process(tp, offset, part)
	bad, ok := schemas.BatchAt(part.RecordBatches, offset)
	switch {
	case len(got.Records) > 0:
		return got.Records, nil
	case undecodable(got.Err) && ok && bad.Raw != nil:
		return nil, &corruptError{span{bad.Offset, bad.Next, bad.Epoch, cannotBeDecoded(got.Err)}}
	case got.Err != nil:
		first = got.Err
	}
	return nil, fmt.Errorf("read %s offset %d again: %w", tp, offset, first)
}

// fetch sends one request to a partition's leader.
func (d *Delay) fetch(ctx context.Context, client *kgo.Client, tp partition, offset int64) (*kmsg.FetchResponseTopicPartition, error) {
	leader, _, err := d.consumer.PartitionLeader(tp.topic, tp.number)
	if err != nil {
		return nil, fmt.Errorf("ask for the leader: %w", err)
	}
	if leader < 0 {
		return nil, kerr.LeaderNotAvailable
	}
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition, part.FetchOffset, part.PartitionMaxBytes = tp.number, offset, readAheadMax
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID, topic.Partitions = tp.topic, d.topicIDs[tp.topic], append(topic.Partitions, part)
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes, req.MaxWaitMillis, req.MinBytes, req.IsolationLevel = readAheadMax, 500, 1, 1
	req.Topics = append(req.Topics, topic)
	answer, err := client.Broker(int(leader)).RetriableRequest(ctx, req)
	if err != nil {
		return nil, err
	}
	resp, ok := answer.(*kmsg.FetchResponse)
	switch {
	case !ok:
		return nil, fmt.Errorf("the answer is a %T", answer)
	case resp.ErrorCode != 0:
		return nil, kerr.ErrorForCode(resp.ErrorCode)
	case len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1:
		return nil, errors.New("the answer is not about the partition")
	}
	return &resp.Topics[0].Partitions[0], nil
}
