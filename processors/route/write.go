package route

import (
	"context"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/schemas"
)

// write produces what decision d about the event s.ev, record r, wants.
func (s *session) write(r *kgo.Record, d processors.Decision) {
	switch d.Verdict {
	case processors.Forward:
		s.writeForward(r)
		return // its decision is made at home
	case processors.Stale:
		return // its decision was made the first time
	case processors.Deliver:
		s.writeFanout(r)
	case processors.Work:
		out := s.produced(r, s.cfg.Topics.Work())
		out.Headers = append(s.originals(r, 2), kgo.RecordHeader{Key: schemas.HeaderAttempt, Value: zero})
		s.send(out)
	case processors.Overflow:
		out := s.produced(r, s.cfg.Topics.Overflow())
		due := s.out.keep(strconv.AppendInt(s.out.buffer(20), s.ev.Due, 10))
		out.Headers = append(s.originals(r, 3), kgo.RecordHeader{Key: schemas.HeaderDue, Value: due})
		if !hasHeader(r, schemas.HeaderPriority) { // the policy's word of now: its tenant is behind in this class
			out.Headers = append(out.Headers, kgo.RecordHeader{Key: schemas.HeaderPriority, Value: priorities[s.ev.Class]})
		}
		s.send(out)
	case processors.Wait:
		out := s.produced(r, s.cfg.Topics.Retry(waitTier))
		what := waitSchema
		if d.Reason == schemas.AwaitTenant {
			what = waitTenant
		}
		out.Headers = append(s.originals(r, 2), kgo.RecordHeader{Key: schemas.HeaderWait, Value: what})
		s.send(out)
	case processors.Dead:
		s.writeDead(r, d)
	}
	s.writeAudit(r, d)
}

// waitTier is the retry topic in which events wait for a fresh answer.
const waitTier = 16 * time.Second

var (
	priorities = map[schemas.Class][]byte{schemas.Fast: []byte(schemas.Fast.String()), schemas.SlowClass: []byte(schemas.SlowClass.String())}

	zero       = []byte("0")
	waitSchema = []byte("schema")
	waitTenant = []byte("tenant")
)

func hasHeader(r *kgo.Record, key string) bool {
	for i := range r.Headers {
		if r.Headers[i].Key == key {
			return true
		}
	}
	return false
}

// produced is a record for topic with r's key and value, on the event's home
// partition.
func (s *session) produced(r *kgo.Record, topic string) *kgo.Record {
	out := s.out.record(placeOf{r.Partition, r.Offset})
	out.Topic, out.Partition, out.Key, out.Value = topic, s.homeOf(r), r.Key, r.Value
	return out
}

// homeOf is the event's home partition; what has no tenant stays on its own.
func (s *session) homeOf(r *kgo.Record) int32 {
	if !schemas.ValidTenant(s.ev.Tenant) {
		return r.Partition
	}
	return schemas.HomePartition(r.Key, s.cfg.Partitions)
}

// originals are r's own headers and spillway-origin, with room for more.
func (s *session) originals(r *kgo.Record, room int) []kgo.RecordHeader {
	return append(s.out.originals(r, room), kgo.RecordHeader{
		Key: schemas.HeaderOrigin, Value: schemas.OriginHeader(s.ev.Origin, s.ev.Return.Generation, s.ev.Return.Job),
	})
}

func (s *session) send(r *kgo.Record) {
	s.gts.Produce(context.Background(), r, s.out.promise) // End waits for it, within its own time
}

// writeFanout writes the CloudEvent as clients get it, to each region.
func (s *session) writeFanout(r *kgo.Record) {
	ev := &s.ev
	if ev.Traceparent == "" {
		ev.Traceparent = s.newTrace()
	}
	if ev.Replayed() {
		ev.Return.Kind = schemas.Replay // also if it had to wait in between: clients see its replayid
	}
	value := s.out.keep(schemas.AppendCloudEvent(s.out.buffer(len(ev.JSON)+envelope), &ev.Event, ev.JSON))
	channel := s.out.keep(append(s.out.buffer(len(ev.Channel)), ev.Channel...))
	cursor := s.out.keep(schemas.Cursor{Epoch: s.epoch(r.Partition), Offset: r.Offset}.AppendTo(s.out.buffer(32)))
	for _, region := range ev.Regions {
		out := s.produced(r, s.fanoutTopic(region))
		out.Value, out.Timestamp = value, time.UnixMilli(ev.Appended)
		out.Headers = append(s.out.headersOf(2),
			kgo.RecordHeader{Key: schemas.HeaderSubject, Value: channel},
			kgo.RecordHeader{Key: schemas.HeaderCursor, Value: cursor})
		s.send(out)
	}
}

// envelope is about what a CloudEvent takes beside its data, in bytes.
const envelope = 768

// epoch of the cursors of a home partition; the line delivers at home only.
func (s *session) epoch(home int32) uint64 {
	e, ok := s.epochs[home]
	if !ok {
		e = schemas.Epoch(s.topic, home)
		s.epochs[home] = e
	}
	return e
}

// fanoutTopic is Topics.Fanout without an allocation each.
func (s *session) fanoutTopic(region string) string {
	t, ok := s.fanouts[region]
	if !ok {
		t = s.cfg.Topics.Fanout(region)
		s.fanouts[region] = t
	}
	return t
}

// writeForward gives the record to its home partition, signed.
func (s *session) writeForward(r *kgo.Record) {
	ret := schemas.Return{Kind: schemas.Forward, Origin: s.ev.Origin, Of: schemas.Place{
		Topic: schemas.Topics{}.Events(), Partition: r.Partition, Offset: r.Offset,
	}}
	out := s.out.record(placeOf{r.Partition, r.Offset})
	out.Topic, out.Partition, out.Key, out.Value = s.cfg.Topics.Events(), schemas.HomePartition(r.Key, s.cfg.Partitions), r.Key, r.Value
	out.Headers = append(s.out.originals(r, 1), kgo.RecordHeader{
		Key: schemas.HeaderReturn, Value: ret.Sign(s.cfg.Secrets.SigningSecret(), r.Key, r.Value),
	})
	s.pending.produce(s.forwards, out)
}

// writeDead keeps the original bytes and says why. Letters over_quota carry no
// payload, so that a flood does not fill dead; neither does one that Kafka
// refused for its size: the bytes are in events at spillway-origin.
func (s *session) writeDead(r *kgo.Record, d processors.Decision) {
	out := s.produced(r, s.cfg.Topics.Dead())
	if d.Reason == schemas.OverQuota {
		out.Value = nil
	}
	if s.tooLarge[placeOf{r.Partition, r.Offset}] {
		out.Key, out.Value = bounded(out.Key), nil
	}
	detail := d.Detail
	if detail == "" {
		detail = d.Reason.Text()
	}
	out.Headers = append(s.originals(r, 4),
		kgo.RecordHeader{Key: schemas.HeaderReason, Value: []byte(d.Reason)},
		kgo.RecordHeader{Key: schemas.HeaderError, Value: bounded([]byte(detail))},
		kgo.RecordHeader{Key: schemas.HeaderStep, Value: []byte(d.Step)})
	s.send(out)
}

// bounded is at most the first 1024 bytes of b.
func bounded(b []byte) []byte { return b[:min(len(b), schemas.MaxAttribute)] }

// writeAudit tells the decision to `audit`. An event that waits again says
// nothing new.
func (s *session) writeAudit(r *kgo.Record, d processors.Decision) {
	ev := &s.ev
	if d.Verdict == processors.Wait && ev.Return.Kind == schemas.Wait {
		return
	}
	home := s.homeOf(r)
	t := schemas.Transition{
		Tenant: ev.Tenant, Origin: ev.Origin, EventID: ev.IDText(), Reason: d.Reason,
		Generation: int32(ev.Return.Generation), At: ev.Appended,
		LatencyUS: max(-1, s.cfg.Now().UnixMicro()-1000*ev.Origin.AcceptedAt),
		Node:      s.cfg.Node, TraceID: traceID(ev.Traceparent), Replay: ev.Return.Job, Home: home, Cursor: -1,
	}
	switch d.Verdict {
	case processors.Deliver:
		t.Status, t.Path, t.Cursor = schemas.Processing, "fast", r.Offset
	case processors.Work:
		t.Status, t.Path = schemas.Pending, "slow"
	case processors.Overflow:
		t.Status, t.Path = schemas.Pending, "overflow"
	case processors.Wait:
		t.Status, t.Path = schemas.Pending, "wait"
	case processors.Duplicate:
		t.Status = schemas.Dup
	case processors.Dropped:
		t.Status = schemas.Dropped
	default:
		t.Status = schemas.DeadStatus
	}
	key := r.Key
	if !schemas.ValidTenant(t.Tenant) {
		t.Tenant, key = "", nil
	}
	if len(t.EventID) > schemas.MaxID || !utf8.ValidString(t.EventID) {
		t.EventID = ev.Origin.String()
	}
	out := s.out.record(placeOf{r.Partition, r.Offset})
	out.Topic, out.Partition, out.Key = s.cfg.Topics.Audit(), home, key
	out.Value = s.out.keep(t.AppendAvro(schemas.AppendWireHeader(s.out.buffer(512), s.transitionID)))
	s.send(out)
}

// traceID is the 32 hex digits of a traceparent (W3C Trace Context, section
// 3.2), "" if it is not one.
func traceID(traceparent string) string {
	if len(traceparent) < 55 || traceparent[2] != '-' || traceparent[35] != '-' {
		return ""
	}
	id := traceparent[3:35]
	for i := range len(id) {
		if c := id[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return ""
		}
	}
	return id
}
