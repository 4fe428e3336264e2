package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/processors/audit/rows"
	"github.com/spillway/spillway/processors/audit/table"
	"github.com/spillway/spillway/schemas"
)

// A batch is the rows of some records and the offsets behind them. It is owned
// by one reader.
type batch struct {
	events      *rows.Events
	transitions *rows.Transitions
	receipts    *rows.Receipts
	ranges      *rows.Ranges
	dead        *rows.DeadLetters
	odd         *rows.Undecodable

	tables []*table.Table
	late   []lateRecord // without a row yet: see settle
	bytes  int
	oldest int64 // append time of the oldest record, Unix ms
	next   offsets

	sink  *Sink
	names *names
	ev    schemas.Event // scratch
}

// offsets are the next ones to read, by topic and partition.
type offsets map[string]map[int32]kgo.EpochOffset

func newBatch(s *Sink) *batch {
	b := &batch{
		events: rows.NewEvents(), transitions: rows.NewTransitions(), receipts: rows.NewReceipts(), ranges: rows.NewRanges(),
		dead: rows.NewDeadLetters(), odd: rows.NewUndecodable(), next: offsets{}, sink: s, names: newNames(&s.cfg),
	}
	b.tables = []*table.Table{&b.events.Table, &b.transitions.Table, &b.receipts.Table, &b.ranges.Table, &b.dead.Table, &b.odd.Table}
	return b
}

// reset empties the batch; its memory is used again.
func (b *batch) reset() {
	for _, t := range b.tables {
		t.Reset()
	}
	clear(b.late)
	b.late, b.bytes, b.oldest, b.next = b.late[:0], 0, 0, offsets{}
}

// A lateRecord is one whose names the registry has not told yet.
type lateRecord struct {
	rec   *kgo.Record
	topic schemas.TopicID
}

// settle writes the rows of late records, after a bounded wait for their names.
// It comes before each insert: offsets of a batch are committed with it.
func (b *batch) settle(ctx context.Context) {
	if len(b.late) == 0 {
		return
	}
	b.names.settle(ctx)
	over, cancel := context.WithCancel(ctx)
	cancel() // no more questions
	for _, l := range b.late {
		rows.ReadEvent(&b.ev, l.rec, l.topic)
		b.names.complete(over, &b.ev)
		b.addNamed(l.rec)
	}
	clear(b.late)
	b.late = b.late[:0]
}

func (b *batch) rows() (n int) {
	n = len(b.late)
	for _, t := range b.tables {
		n += t.Rows
	}
	return n
}

// add takes the records of one partition, and an error if a batch of it cannot
// be read.
func (b *batch) add(ctx context.Context, topic schemas.TopicID, p kgo.FetchTopicPartition) {
	for _, rec := range p.Records {
		ms := rec.Timestamp.UnixMilli()
		if b.oldest == 0 || ms < b.oldest {
			b.oldest = ms
		}
		b.addRecord(ctx, topic, rec)
		b.bytes += len(rec.Key) + len(rec.Value) + 128
		for _, h := range rec.Headers {
			b.bytes += len(h.Key) + len(h.Value)
		}
	}
	if n := len(p.Records); n > 0 {
		last := p.Records[n-1]
		b.next.set(p.Topic, p.Partition, kgo.EpochOffset{Epoch: last.LeaderEpoch, Offset: last.Offset + 1})
	}
}

// addRecord writes the row of one record. There is no record without one.
func (b *batch) addRecord(ctx context.Context, topic schemas.TopicID, rec *kgo.Record) {
	t := b.sink.cfg.Topics
	switch rec.Topic {
	case t.Events():
		b.addEvent(ctx, topic, rec)
	case t.Dead():
		rows.ReadEvent(&b.ev, rec, topic)
		b.complete(ctx, topic, rec)
	default:
		if err := b.addSystem(rec); err != nil {
			b.addOdd(rec, rec.Offset+1, err)
		}
	}
}

// addEvent leaves out what came back: it has its row since it first arrived.
// A return without a valid hash counts as none, and so does route.
func (b *batch) addEvent(ctx context.Context, topic schemas.TopicID, rec *kgo.Record) {
	rows.ReadEvent(&b.ev, rec, topic)
	if h := b.ev.ReturnHeader(); h != nil {
		if _, err := schemas.ParseReturn(h, rec.Key, rec.Value, b.sink.cfg.Secrets.SecretKey); err == nil {
			return
		}
	}
	b.complete(ctx, topic, rec)
}

// complete writes the row of rec, which ev is, when its names are known.
func (b *batch) complete(ctx context.Context, topic schemas.TopicID, rec *kgo.Record) {
	if b.names.complete(ctx, &b.ev) {
		b.late = append(b.late, lateRecord{rec, topic})
		return
	}
	b.addNamed(rec)
}

func (b *batch) addNamed(rec *kgo.Record) {
	if rec.Topic == b.sink.cfg.Topics.Dead() {
		b.dead.Add(rec, &b.ev)
		return
	}
	b.events.Add(rec, &b.ev)
}

func (b *batch) addSystem(rec *kgo.Record) error {
	id, body, ok := schemas.WireHeader(rec.Value)
	if !ok {
		return errors.New(schemas.NotWireFormat.Text())
	}
	switch kind := b.sink.kindOf(id); kind {
	case schemas.TransitionName:
		t, err := schemas.DecodeTransition(body)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		b.transitions.Add(&t, rows.Clamp(rec.Timestamp.UnixMilli()))
	case schemas.ReceiptName:
		r, err := schemas.DecodeReceipt(body)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		b.receipts.Add(&r, rec)
	case schemas.SessionRangeName:
		r, err := schemas.DecodeSessionRange(body)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		b.ranges.Add(&r, rec)
	default:
		return fmt.Errorf("schema id %d is none of the audit's records", id)
	}
	return nil
}

func (b *batch) addOdd(rec *kgo.Record, next int64, why error) {
	b.odd.Add(rec, next, why)
	b.sink.metrics.undecodable.WithLabelValues(rec.Topic).Inc()
}

// skip writes the row of a whole batch of records that cannot be decompressed
// within the bound, and goes on behind it. Its append time is unknown; the day
// is near enough, and the same if it is met again.
func (b *batch) skip(e *kgo.ErrDecompressTooLarge) {
	b.addOdd(&kgo.Record{Topic: e.Topic, Partition: e.Partition, Offset: e.Offset, Timestamp: b.sink.cfg.Now().Truncate(24 * time.Hour)}, e.NextOffset, e)
	b.next.set(e.Topic, e.Partition, kgo.EpochOffset{Epoch: e.Epoch, Offset: e.NextOffset})
}

func (o offsets) set(topic string, partition int32, next kgo.EpochOffset) {
	m := o[topic]
	if m == nil {
		m = map[int32]kgo.EpochOffset{}
		o[topic] = m
	}
	m[partition] = next
}

// merge takes newer's offsets over o's.
func (o offsets) merge(newer offsets) {
	for topic, m := range newer {
		for p, next := range m {
			o.set(topic, p, next)
		}
	}
}

// drop forgets partitions.
func (o offsets) drop(lost map[string][]int32) {
	for topic, partitions := range lost {
		for p := range o[topic] {
			if slices.Contains(partitions, p) {
				delete(o[topic], p)
			}
		}
		if len(o[topic]) == 0 {
			delete(o, topic)
		}
	}
}
