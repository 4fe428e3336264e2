package rows

import (
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/processors/audit/table"
	"github.com/spillway/spillway/schemas"
)

// DeadLetters is the table dead_letters.
type DeadLetters struct {
	table.Table
	identity
	generation, attempt   []int32
	replay                []string
	kind, channel, source []string
	reason, err, step     []string
	deadAt                []int64
	partition             []int32
	offset                []int64
	key                   []string
	headers               []Headers
	payload               []string
}

// NewDeadLetters returns an empty one.
func NewDeadLetters() *DeadLetters {
	r := &DeadLetters{}
	r.Table = table.Define("dead_letters", append(r.identity.columns(),
		table.Int32s("generation", &r.generation), table.Int32s("attempt", &r.attempt), table.Text("replay", &r.replay),
		table.Text("type", &r.kind), table.Text("channel", &r.channel), table.Text("source", &r.source),
		table.Text("reason", &r.reason), table.Text("error", &r.err), table.Text("step", &r.step),
		table.Millis("dead_at", &r.deadAt), table.Int32s("dead_partition", &r.partition), table.Int64s("dead_offset", &r.offset),
		table.Text("key", &r.key), table.Maps("headers", &r.headers), table.Text("payload", &r.payload))...)
	return r
}

// Add appends the row of a dead letter: ev is rec, read and completed, with
// its own place as origin until the letter's headers say better.
func (r *DeadLetters) Add(rec *kgo.Record, ev *schemas.Event) {
	deadAt := ev.Origin.AcceptedAt
	l := readLetter(rec)
	if l.origin != (schemas.Origin{}) {
		ev.Origin = l.origin
		ev.Origin.AcceptedAt = sane(l.origin.AcceptedAt, deadAt)
	}
	r.identity.addEvent(ev)
	r.generation = append(r.generation, max(int32(l.generation), 0))
	r.attempt = append(r.attempt, l.attempt)
	r.replay = append(r.replay, l.job)
	r.kind = append(r.kind, ev.Type)
	r.channel = append(r.channel, ev.Channel)
	r.source = append(r.source, ev.SourceText())
	r.reason = append(r.reason, l.reason)
	r.err = append(r.err, l.err)
	r.step = append(r.step, l.step)
	r.deadAt = append(r.deadAt, deadAt)
	r.partition = append(r.partition, rec.Partition)
	r.offset = append(r.offset, rec.Offset)
	r.key = append(r.key, view(rec.Key))
	r.headers = append(r.headers, l.original)
	r.payload = append(r.payload, view(rec.Value))
	r.Rows++
}

// A letter is what the headers of a record on dead say about it.
type letter struct {
	origin            schemas.Origin // zero: the header is missing or cannot be read
	generation        int
	attempt           int32
	job               string
	reason, err, step string
	original          Headers // without the internal ones
}

// readLetter reads the internal headers. One that cannot be read counts as
// missing: the letter is kept whatever its headers say.
func readLetter(rec *kgo.Record) letter {
	l := letter{original: make(Headers, 0, len(rec.Headers))}
	for _, h := range rec.Headers {
		if !strings.HasPrefix(h.Key, schemas.HeaderInternal) {
			l.original = append(l.original, h)
			continue
		}
		switch v := view(h.Value); h.Key {
		case schemas.HeaderOrigin:
			if o, generation, job, err := schemas.ParseOriginHeader(h.Value); err == nil {
				l.origin, l.generation, l.job = o, generation, job
			}
		case schemas.HeaderAttempt:
			if n, err := strconv.ParseInt(v, 10, 32); err == nil {
				l.attempt = max(int32(n), 0)
			}
		case schemas.HeaderReason:
			l.reason = v
		case schemas.HeaderError:
			l.err = v
		case schemas.HeaderStep:
			l.step = v
		}
	}
	return l
}

// Undecodable is the table undecodable.
type Undecodable struct {
	table.Table
	topic        []string
	partition    []int32
	offset, next []int64
	appendedAt   []int64
	err          []string
	key, value   []string
}

// NewUndecodable returns an empty one.
func NewUndecodable() *Undecodable {
	r := &Undecodable{}
	r.Table = table.Define("undecodable",
		table.Text("topic", &r.topic), table.Int32s("partition", &r.partition), table.Int64s("offset", &r.offset), table.Int64s("next_offset", &r.next),
		table.Millis("appended_at", &r.appendedAt), table.Text("error", &r.err), table.Text("key", &r.key), table.Text("value", &r.value))
	return r
}

// Add appends what cannot be read, up to offset next, and why.
func (r *Undecodable) Add(rec *kgo.Record, next int64, why error) {
	r.topic = append(r.topic, rec.Topic)
	r.partition = append(r.partition, rec.Partition)
	r.offset = append(r.offset, rec.Offset)
	r.next = append(r.next, next)
	r.appendedAt = append(r.appendedAt, Clamp(rec.Timestamp.UnixMilli()))
	r.err = append(r.err, why.Error())
	r.key = append(r.key, view(rec.Key))
	r.value = append(r.value, view(rec.Value))
	r.Rows++
}
