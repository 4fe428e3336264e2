package explain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// KafkaConfig is what it takes to tell a story from Kafka alone.
type KafkaConfig struct {
	// Kafka finds and enters the cluster. Required.
	Kafka  []kgo.Opt
	Topics schemas.Topics
	// SchemaIDs are the registry's ids of the system records, by full name.
	SchemaIDs map[string]int32
	// SecretKey finds the key of a return's secret. Nil: a record with a return
	// header counts as a return.
	SecretKey func(id string) ([]byte, bool)
	// Since bounds how far back it reads. Zero: as far as the topics reach.
	Since time.Time
	// Progress is told now and then how many of how many records are read.
	// Nil: nobody is told.
	Progress func(read, total int64)
}

// Kafka is the source that reads events, audit and dead from Since to where
// they end now, and the receipts in a second pass. It holds in memory only what
// is about the event.
func Kafka(cfg KafkaConfig) Source { return &topics{cfg: cfg} }

type topics struct {
	cfg         KafkaConfig
	read, total int64
}

func (*topics) Name() string { return "Kafka" }

// bounds are the first offset to read and the one to stop before.
type bounds struct{ from, to int64 }

// ranges are bounds by topic and partition.
type ranges map[string]map[int32]bounds

// search is one run over the topics.
type search struct {
	*topics
	id, tenant string
	origin     schemas.Origin // of the id, if it is one
	isOrigin   bool
	f          Facts
	first      map[int32]int64 // by partition of audit: offset of the first transition found
}

// Facts reads the topics.
func (k *topics) Facts(ctx context.Context, id, tenant string) (Facts, error) {
	k.read, k.total = 0, 0
	s := &search{topics: k, id: id, tenant: tenant, first: map[int32]int64{}}
	s.origin, s.isOrigin = parseOrigin(id)
	t := k.cfg.Topics
	events, err := k.ranges(ctx, kgo.ReadUncommitted(), t.Events())
	if err != nil {
		return Facts{}, err
	}
	system, err := k.ranges(ctx, kgo.ReadCommitted(), t.Audit(), t.Dead())
	if err != nil {
		return Facts{}, err
	}
	if err := k.scan(ctx, kgo.ReadUncommitted(), events, s.event); err != nil {
		return Facts{}, err
	}
	if err := k.scan(ctx, kgo.ReadCommitted(), system, s.system); err != nil {
		return Facts{}, err
	}
	if err := s.missing(ctx, events[t.Events()]); err != nil {
		return Facts{}, err
	}
	return s.f, s.receipts(ctx, system[t.Audit()])
}

// missing reads the events that only their transitions name, because the
// policy took the id from the payload.
func (s *search) missing(ctx context.Context, have map[int32]bounds) error {
	known := map[place]bool{}
	for _, a := range s.f.Accepted {
		known[placeOf(a.Origin)] = true
	}
	for _, t := range s.f.Transitions {
		b, ok := have[t.Origin.Partition]
		if known[placeOf(t.Origin)] || !ok || t.Origin.Offset < b.from || t.Origin.Offset >= b.to {
			continue
		}
		known[placeOf(t.Origin)] = true
		one := ranges{s.cfg.Topics.Events(): {t.Origin.Partition: {t.Origin.Offset, t.Origin.Offset + 1}}}
		if err := s.scan(ctx, kgo.ReadUncommitted(), one, func(id schemas.TopicID, rec *kgo.Record) {
			if a, ok := s.accepted(id, rec); ok && placeOf(a.Origin) == placeOf(t.Origin) {
				s.f.Accepted = append(s.f.Accepted, a)
			}
		}); err != nil {
			return err
		}
	}
	return nil
}

// receipts reads audit again, from the first transition of the event on.
func (s *search) receipts(ctx context.Context, audit map[int32]bounds) error {
	again := ranges{}
	for partition, from := range s.first {
		if b := audit[partition]; from < b.to {
			if again[s.cfg.Topics.Audit()] == nil {
				again[s.cfg.Topics.Audit()] = map[int32]bounds{}
			}
			again[s.cfg.Topics.Audit()][partition] = bounds{from, b.to}
		}
	}
	return s.scan(ctx, kgo.ReadCommitted(), again, s.receipt)
}

// ranges finds where to begin and to end.
func (k *topics) ranges(ctx context.Context, isolation kgo.IsolationLevel, names ...string) (ranges, error) {
	cl, err := kgo.NewClient(append(append([]kgo.Opt{}, k.cfg.Kafka...), kgo.FetchIsolationLevel(isolation))...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	list := admin.ListStartOffsets
	if !k.cfg.Since.IsZero() {
		list = func(ctx context.Context, names ...string) (kadm.ListedOffsets, error) {
			return admin.ListOffsetsAfterMilli(ctx, k.cfg.Since.UnixMilli(), names...)
		}
	}
	starts, err := list(ctx, names...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list start offsets: %w", err)
	}
	listEnd := admin.ListEndOffsets
	if isolation == kgo.ReadCommitted() {
		listEnd = admin.ListCommittedOffsets // an open transaction must not make us wait
	}
	ends, err := listEnd(ctx, names...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list end offsets: %w", err)
	}
	out := ranges{}
	starts.Each(func(start kadm.ListedOffset) {
		end, ok := ends.Lookup(start.Topic, start.Partition)
		if !ok || start.Offset < 0 || start.Offset >= end.Offset {
			return
		}
		if out[start.Topic] == nil {
			out[start.Topic] = map[int32]bounds{}
		}
		out[start.Topic][start.Partition] = bounds{start.Offset, end.Offset}
		k.total += end.Offset - start.Offset
	})
	return out, nil
}

// scan calls fn with each record of the ranges.
func (k *topics) scan(ctx context.Context, isolation kgo.IsolationLevel, all ranges, fn func(schemas.TopicID, *kgo.Record)) error {
	from, left := map[string]map[int32]kgo.Offset{}, 0
	for topic, partitions := range all {
		from[topic] = map[int32]kgo.Offset{}
		for p, b := range partitions {
			from[topic][p] = kgo.NewOffset().At(b.from)
			left++
		}
	}
	if left == 0 {
		return nil
	}
	cl, err := kgo.NewClient(append(append([]kgo.Opt{}, k.cfg.Kafka...),
		kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(isolation),
		kgo.KeepControlRecords(), // the last offset of a partition may be a marker
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MaxDecompressBatchBytes(schemas.MaxRouteBatch))...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer cl.Close()
	done := map[string]map[int32]bool{}
	for topic := range all {
		done[topic] = map[int32]bool{}
	}
	passed := func(topic string, partition int32, next int64) {
		if !done[topic][partition] && next >= all[topic][partition].to {
			done[topic][partition] = true
			left--
		}
	}
	for left > 0 {
		fetches := cl.PollRecords(ctx, 10_000)
		for _, e := range fetches.Errors() {
			var tooLarge *kgo.ErrDecompressTooLarge
			if !errors.As(e.Err, &tooLarge) {
				return fmt.Errorf("read %s/%d: %w", e.Topic, e.Partition, e.Err)
			}
			cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{e.Topic: {e.Partition: {Epoch: tooLarge.Epoch, Offset: tooLarge.NextOffset}}})
			passed(e.Topic, e.Partition, tooLarge.NextOffset)
		}
		fetches.EachTopic(func(t kgo.FetchTopic) {
			t.EachRecord(func(rec *kgo.Record) {
				if !rec.Attrs.IsControl() && rec.Offset < all[rec.Topic][rec.Partition].to {
					fn(t.TopicID, rec)
				}
				passed(rec.Topic, rec.Partition, rec.Offset+1)
			})
		})
		k.read += int64(fetches.NumRecords())
		if k.cfg.Progress != nil {
			k.cfg.Progress(k.read, max(k.total, k.read))
		}
	}
	return nil
}

// accepted reads a record of events; false if it is a return.
func (s *search) accepted(topic schemas.TopicID, rec *kgo.Record) (Accepted, bool) {
	s.f.Now = max(s.f.Now, rec.Timestamp.UnixMilli())
	var ev schemas.Event
	ev.Reset(schemas.Origin{Topic: topic, Partition: rec.Partition, Offset: rec.Offset, AcceptedAt: rec.Timestamp.UnixMilli()}, rec.Topic, rec.Key, rec.Value)
	for _, h := range rec.Headers {
		ev.SetHeader(h.Key, h.Value)
	}
	if h := ev.ReturnHeader(); h != nil {
		if s.cfg.SecretKey == nil {
			return Accepted{}, false
		}
		if _, err := schemas.ParseReturn(h, rec.Key, rec.Value, s.cfg.SecretKey); err == nil {
			return Accepted{}, false
		}
	}
	a := Accepted{
		Origin: ev.Origin, Type: ev.Type, Channel: ev.Channel, Source: ev.SourceText(), Time: ev.Time, SchemaID: -1, Bytes: len(rec.Value),
	}
	a.Tenant, a.ID = NameOf(&ev)
	if a.Channel == "" {
		a.Channel = schemas.DefaultChannel // unless a policy takes it from the payload, which Kafka alone does not tell
	}
	if id, _, ok := schemas.WireHeader(rec.Value); ok {
		a.SchemaID = id
	}
	if len(ev.Traceparent) >= 35 {
		a.TraceID = ev.Traceparent[3:35]
	}
	return a, true
}

// wants reports whether a record with this id and origin is about the event.
func (s *search) wants(tenant, id string, o schemas.Origin) bool {
	return (s.tenant == "" || tenant == s.tenant) && (id == s.id || s.isOrigin && placeOf(o) == placeOf(s.origin))
}

func (s *search) event(topic schemas.TopicID, rec *kgo.Record) {
	a, ok := s.accepted(topic, rec)
	if !ok || !s.wants(a.Tenant, a.ID, a.Origin) {
		return
	}
	if len(s.f.Accepted) == maxEvents {
		s.f.More = true
		return
	}
	s.f.Accepted = append(s.f.Accepted, a)
}

func (s *search) system(_ schemas.TopicID, rec *kgo.Record) {
	s.f.Now = max(s.f.Now, rec.Timestamp.UnixMilli())
	if rec.Topic == s.cfg.Topics.Dead() {
		s.letter(rec)
		return
	}
	id, body, ok := schemas.WireHeader(rec.Value)
	if !ok || id != s.cfg.SchemaIDs[schemas.TransitionName] {
		return
	}
	if !bytes.Contains(body, []byte(s.id)) && !(s.isOrigin && bytes.Contains(body, s.origin.Topic[:])) {
		return // decoding each record of a day takes long
	}
	t, err := schemas.DecodeTransition(body)
	if err != nil || !s.wants(t.Tenant, t.EventID, t.Origin) {
		return
	}
	if len(s.f.Transitions) == 100*maxEvents {
		s.f.More = true
		return
	}
	s.f.Transitions = append(s.f.Transitions, t)
	if _, ok := s.first[rec.Partition]; !ok {
		s.first[rec.Partition] = rec.Offset
	}
}

func (s *search) letter(rec *kgo.Record) {
	var ev schemas.Event
	ev.Reset(schemas.Origin{}, rec.Topic, rec.Key, nil)
	l := Letter{At: rec.Timestamp.UnixMilli(), Origin: schemas.Origin{Partition: rec.Partition, Offset: rec.Offset, AcceptedAt: rec.Timestamp.UnixMilli()}}
	for _, h := range rec.Headers {
		switch v := string(h.Value); h.Key {
		case schemas.HeaderID:
			ev.ID = v
		case schemas.HeaderOrigin:
			if o, generation, _, err := schemas.ParseOriginHeader(h.Value); err == nil {
				l.Origin, l.Generation = o, int32(generation)
			}
		case schemas.HeaderReason:
			l.Reason = schemas.Reason(v)
		case schemas.HeaderError:
			l.Error = v
		case schemas.HeaderStep:
			l.Step = v
		case schemas.HeaderAttempt:
			if n, err := strconv.ParseInt(v, 10, 32); err == nil {
				l.Attempt = int32(n)
			}
		}
	}
	ev.Origin = l.Origin
	l.Tenant, l.ID = NameOf(&ev)
	if s.wants(l.Tenant, l.ID, l.Origin) && len(s.f.Letters) < 10*maxEvents {
		s.f.Letters = append(s.f.Letters, l)
	}
}

func (s *search) receipt(_ schemas.TopicID, rec *kgo.Record) {
	id, body, ok := schemas.WireHeader(rec.Value)
	if !ok || id != s.cfg.SchemaIDs[schemas.ReceiptName] {
		return
	}
	r, err := schemas.DecodeReceipt(body)
	if err != nil {
		return
	}
	for _, t := range s.f.Transitions {
		if t.Cursor < 0 || r.Tenant != t.Tenant || r.Home != t.Home || uint64(r.Epoch) != schemas.Epoch(t.Origin.Topic, t.Home) {
			continue
		}
		for _, d := range r.Deliveries {
			if d.Cursor == t.Cursor && len(s.f.Receipts) < 100*maxEvents {
				s.f.Receipts = append(s.f.Receipts, Receipt{
					Tenant: r.Tenant, Home: r.Home, Epoch: uint64(r.Epoch), Cursor: d.Cursor, Region: r.Region, Node: r.Node,
					Appended: d.Appended, At: r.At, Sessions: d.Sessions, LatencyUS: d.LatencyUS,
				})
			}
		}
	}
}
