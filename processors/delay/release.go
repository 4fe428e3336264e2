package delay

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// A note is what the headers of a waiting record say.
type note struct {
	due        int64 // Unix ms
	origin     schemas.Origin
	generation int
	job        string
	wait       bool // it waits for an answer about its schema or tenant
}

var errNoDue = errors.New("spillway-due is missing")

// readNote reads a waiting record's headers. tier is that of its topic, 0 for
// overflow; what names no due time waits that long.
func readNote(r *kgo.Record, tier time.Duration) (note, error) {
	n := note{due: -1}
	var err error
	hasOrigin := false
	for _, h := range r.Headers {
		switch h.Key {
		case schemas.HeaderDue:
			if n.due, err = strconv.ParseInt(string(h.Value), 10, 64); err != nil {
				return n, fmt.Errorf("spillway-due: %w", err)
			}
		case schemas.HeaderOrigin:
			if n.origin, n.generation, n.job, err = schemas.ParseOriginHeader(h.Value); err != nil {
				return n, err
			}
			hasOrigin = true
		case schemas.HeaderWait:
			n.wait = true
		}
	}
	if n.due < 0 && tier > 0 {
		n.due = r.Timestamp.Add(tier).UnixMilli()
	}
	switch {
	case n.due < 0:
		return n, errNoDue
	case !hasOrigin:
		return n, errors.New("spillway-origin is missing")
	}
	return n, nil
}

// wake is when a record must be looked at: when it is due, or when its tier's
// time is over and it hops into the next.
func (n note) wake(r *kgo.Record, tier time.Duration) int64 {
	if tier == 0 {
		return n.due
	}
	return min(n.due, r.Timestamp.Add(tier).UnixMilli())
}

// A returner makes the record that gives a waiting one back.
type returner struct {
	topics     schemas.Topics
	partitions int32
	secrets    Secrets
	tiers      map[string]time.Duration // by topic; overflow has none
}

// Where a record goes, the metric's label.
const (
	toEvents = "events"
	toWork   = "work"
	toRetry  = "retry"
	toDead   = "dead"
)

// A given is what is to be produced for a record, and where it goes.
type given struct {
	record *kgo.Record
	to     string
	due    int64          // Unix ms; 0 of a dead letter
	reason schemas.Reason // of a dead letter
}

// give returns what is to be produced for r at now. A record whose headers
// cannot be read becomes a dead letter.
func (g returner) give(r *kgo.Record, now int64) given {
	n, err := readNote(r, g.tiers[r.Topic])
	switch {
	case err != nil:
		return given{record: g.dead(r, schemas.Internal, err), to: toDead, reason: schemas.Internal}
	case n.due > now && r.Topic != g.topics.Overflow(): // there it was due when it was taken, though a clock may step back
		return given{record: g.hop(r, n, now), to: toRetry, due: n.due}
	case n.wait || r.Topic == g.topics.Overflow():
		return given{record: g.signed(r, n), to: toEvents, due: n.due}
	}
	return given{record: g.to(g.topics.Work(), r, r.Headers), to: toWork, due: n.due}
}

// signed brings r back to events. If we crash after it is produced and before
// r is committed it is brought back once more, and route drops the second one
// by its place.
func (g returner) signed(r *kgo.Record, n note) *kgo.Record {
	kind := schemas.Release
	if n.wait {
		kind = schemas.Wait
	}
	header := schemas.Return{
		Kind: kind, Origin: n.origin, Generation: n.generation, Job: n.job,
		Of: schemas.Place{Topic: strings.TrimPrefix(r.Topic, g.topics.Prefix), Partition: r.Partition, Offset: r.Offset},
	}.Sign(g.secrets.SigningSecret(), r.Key, r.Value)
	headers := make([]kgo.RecordHeader, 0, len(r.Headers))
	for _, h := range r.Headers {
		if !strings.HasPrefix(h.Key, schemas.HeaderInternal) {
			headers = append(headers, h)
		}
	}
	return g.to(g.topics.Events(), r, append(headers, kgo.RecordHeader{Key: schemas.HeaderReturn, Value: header}))
}

// hop appends r to the tier that fits what is left to wait.
func (g returner) hop(r *kgo.Record, n note, now int64) *kgo.Record {
	left := time.Duration(n.due-now) * time.Millisecond
	tier := schemas.RetryTiers[0]
	for _, t := range schemas.RetryTiers {
		if t <= left {
			tier = t
		}
	}
	return g.to(g.topics.Retry(tier), r, r.Headers)
}

// dead makes r a dead letter: what it carries, and why it could not be given
// back, in place of an earlier why. These headers come last, in route's order.
func (g returner) dead(r *kgo.Record, reason schemas.Reason, why error) *kgo.Record {
	headers := make([]kgo.RecordHeader, 0, len(r.Headers)+3)
	for _, h := range r.Headers {
		switch h.Key {
		case schemas.HeaderReason, schemas.HeaderError, schemas.HeaderStep:
		default:
			headers = append(headers, h)
		}
	}
	text := fmt.Sprintf("%s/%d offset %d: %v", r.Topic, r.Partition, r.Offset, why)
	return g.to(g.topics.Dead(), r, append(headers,
		kgo.RecordHeader{Key: schemas.HeaderReason, Value: []byte(reason)},
		kgo.RecordHeader{Key: schemas.HeaderError, Value: []byte(text[:min(len(text), schemas.MaxAttribute)])},
		kgo.RecordHeader{Key: schemas.HeaderStep, Value: []byte("delay")},
	))
}

// undecodable is a dead letter for the offsets of a batch that nobody can read.
// It says where they are and why, and has no payload.
func (g returner) undecodable(tp partition, topicID schemas.TopicID, b span, now time.Time) given {
	origin := schemas.Origin{Topic: topicID, Partition: tp.number, Offset: b.offset, AcceptedAt: now.UnixMilli()}
	text := fmt.Sprintf("%s/%d offsets %d to %d %s", tp.topic, tp.number, b.offset, b.next-1, b.why)
	return given{to: toDead, reason: schemas.UndecodableBatch, record: &kgo.Record{
		Topic: g.topics.Dead(), Partition: tp.number % g.partitions, Headers: []kgo.RecordHeader{
			{Key: schemas.HeaderOrigin, Value: schemas.OriginHeader(origin, 0, "")},
			{Key: schemas.HeaderReason, Value: []byte(schemas.UndecodableBatch)},
			{Key: schemas.HeaderError, Value: []byte(text[:min(len(text), schemas.MaxAttribute)])},
			{Key: schemas.HeaderStep, Value: []byte("delay")},
		},
	}}
}

func (g returner) to(topic string, r *kgo.Record, headers []kgo.RecordHeader) *kgo.Record {
	return &kgo.Record{Topic: topic, Partition: schemas.HomePartition(r.Key, g.partitions), Key: r.Key, Value: r.Value, Headers: headers}
}
