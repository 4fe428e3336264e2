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
		b.place(over, l.topic, l.rec, true)
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

// addRecord writes the row of one record, or keeps it for settle. There is no
// record without one.
func (b *batch) addRecord(ctx context.Context, topic schemas.TopicID, rec *kgo.Record) {
	if b.place(ctx, topic, rec, false) {
		b.late = append(b.late, lateRecord{rec, topic})
	}
}

// place writes the row of a record. It reports true, and writes none, if the
// registry has not told yet what belongs into it; the last time it writes what
// is known.
func (b *batch) place(ctx context.Context, topic schemas.TopicID, rec *kgo.Record, last bool) (late bool) {
	t := b.sink.cfg.Topics
	switch rec.Topic {
	case t.Events():
		rows.ReadEvent(&b.ev, rec, topic)
		if b.isReturn(rec) {
			return false
		}
		if late = b.names.complete(ctx, &b.ev) && !last; !late {
			b.events.Add(rec, &b.ev)
		}
	case t.Dead():
		rows.ReadEvent(&b.ev, rec, topic)
		if late = b.names.complete(ctx, &b.ev) && !last; !late {
			b.dead.Add(rec, &b.ev)
		}
	default:
		id, body, ok := schemas.WireHeader(rec.Value)
		if !ok {
			b.addOdd(rec, rec.Offset+1, errors.New(schemas.NotWireFormat.Text()))
			return false
		}
		kind, unsaid := b.kindOf(ctx, id)
		if late = unsaid && !last; late {
			return true
		}
		if err := b.addSystem(rec, kind, id, body); err != nil {
			b.addOdd(rec, rec.Offset+1, err)
		}
	}
	return late
}

// isReturn reports whether the event came back: it has its row since it first
// arrived. A return without a valid hash counts as none, and so does route.
func (b *batch) isReturn(rec *kgo.Record) bool {
	h := b.ev.ReturnHeader()
	if h == nil {
		return false
	}
	_, err := schemas.ParseReturn(h, rec.Key, rec.Value, b.sink.cfg.Secrets.SecretKey)
	return err == nil
}

// kindOf is the name of the system record with this schema id, "" for others.
// An id that the configuration does not know may be a later registration.
func (b *batch) kindOf(ctx context.Context, id int32) (name string, late bool) {
	if name, ok := b.sink.kinds[id]; ok {
		return name, false
	}
	s, late := b.names.schema(ctx, id)
	if s == nil {
		return "", late
	}
	return s.Name(), false
}

func (b *batch) addSystem(rec *kgo.Record, kind string, id int32, body []byte) error {
	switch kind {
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
