// Package look answers why route decided as it did about one record: it makes
// the state of just before it from route.state, walks the log up to it down the
// same line, and tells each step's answer.
//
//	route.state p   w···r···r │ r            records up to the one whose batch holds the offset
//	events p               from···offset     the rest of that batch, walked one by one
//
// It reads Kafka and changes nothing. The line is pure and its state is in
// Kafka, so the answer is the one that route gave, unless the policies have
// changed since: a Report says which version decided and which was asked.
package look

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/processors/route/entry"
	"github.com/spillway/spillway/schemas"
)

// ErrNotFound says that the log does not hold the record, or no longer what was
// remembered before it.
var ErrNotFound = errors.New("not found")

// Config says what to look at. All fields are required.
type Config struct {
	Kafka      []kgo.Opt
	Topics     schemas.Topics
	Partitions int32
	Tenants    processors.Tenants // of now
	Policies   int64              // their version
	Secrets    Secrets
	Schemas    processors.Schemas
	Learn      func(ctx context.Context, id int) // makes Schemas know an id, if the registry does
}

// Secrets are the cluster's, from control.
type Secrets interface {
	SecretKey(id string) (key []byte, ok bool)
	DedupeKey() []byte
}

// An Answer is what one step said.
type Answer struct {
	Step    string `json:"step"`
	Verdict string `json:"verdict"` // keep, or the decision
	Reason  string `json:"reason,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

// A Report is what the line says about one record of events.
type Report struct {
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Tenant    string    `json:"tenant"`
	EventID   string    `json:"event_id"`
	Appended  time.Time `json:"appended"`
	Clock     time.Time `json:"clock"`            // of the partition, once it had read the record
	Return    string    `json:"return,omitempty"` // kind of spillway-return, if it had a valid one
	Keys      int       `json:"keys"`             // remembered before it
	Answers   []Answer  `json:"answers"`
	Due       time.Time `json:"due,omitzero"` // with overflow
	Decided   bool      `json:"decided"`      // its decision is committed; else this is what it would be now
	With      int64     `json:"decided_with"` // version of the policies that decided
	Now       int64     `json:"policies"`     // version that was asked here
}

// Record explains the record at offset of a partition of topic. One of another
// topic than events is taken for the record of events that its spillway-origin
// names.
func Record(ctx context.Context, cfg Config, topic string, partition int32, offset int64) (*Report, error) {
	l, err := newLook(cfg)
	if err != nil {
		return nil, err
	}
	defer l.client.Close()
	if topic != cfg.Topics.Events() {
		if partition, offset, err = l.origin(ctx, topic, partition, offset); err != nil {
			return nil, err
		}
	}
	return l.explain(ctx, partition, offset)
}

type look struct {
	Config
	client *kgo.Client
	line   processors.Line
	topic  schemas.TopicID
	ev     processors.Event
}

func newLook(cfg Config) (*look, error) {
	line, err := processors.New(processors.Config{
		Partitions: cfg.Partitions, Key: cfg.Secrets.DedupeKey(), Tenants: cfg.Tenants, Schemas: cfg.Schemas,
	})
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(cfg.Kafka...)
	return &look{Config: cfg, client: client, line: line}, err
}

func (l *look) explain(ctx context.Context, partition int32, offset int64) (*Report, error) {
	described, err := kadm.NewClient(l.client).ListTopics(ctx, l.Topics.Events())
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", l.Topics.Events(), err)
	}
	l.topic = schemas.TopicID(described[l.Topics.Events()].ID)
	before, err := l.stateBefore(ctx, partition, offset)
	if err != nil {
		return nil, err
	}
	report := &Report{Partition: partition, Offset: offset, Decided: before.decided, With: before.policies, Now: l.Policies}
	found := false
	err = l.read(ctx, l.Topics.Events(), partition, before.reached, offset, kgo.ReadUncommitted(), func(r *kgo.Record) error {
		if id, _, ok := schemas.WireHeader(r.Value); ok {
			l.Learn(ctx, int(id))
		}
		entry.Read(&l.ev, l.topic, r, l.Secrets.SecretKey)
		if r.Offset < offset {
			l.line.Walk(&l.ev, before.state)
			return nil
		}
		found = true
		l.tell(report, before.state)
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("%s/%d has no record at offset %d: %w", l.Topics.Events(), partition, offset, ErrNotFound)
	}
	return report, err
}

// tell walks the event itself.
func (l *look) tell(report *Report, st *processors.State) {
	report.Keys = st.Stats().Keys
	d := l.line.Trace(&l.ev, st, func(step string, d processors.Decision) {
		detail := d.Detail
		if detail == "" && d.Reason != "" {
			detail = d.Reason.Text()
		}
		report.Answers = append(report.Answers, Answer{step, d.Verdict.String(), string(d.Reason), detail})
	})
	report.Tenant, report.EventID = l.ev.Tenant, l.ev.IDText()
	report.Appended, report.Clock = time.UnixMilli(l.ev.Appended).UTC(), time.UnixMilli(st.Clock()).UTC()
	report.Return = string(l.ev.Return.Kind)
	if d.Verdict == processors.Overflow {
		report.Due = time.UnixMilli(l.ev.Due).UTC()
	}
}

// origin is the place in events that a record of another topic comes from.
func (l *look) origin(ctx context.Context, topic string, partition int32, offset int64) (int32, int64, error) {
	var found *schemas.Origin
	err := l.read(ctx, topic, partition, offset, offset, kgo.ReadUncommitted(), func(r *kgo.Record) error {
		for _, h := range r.Headers {
			if h.Key == schemas.HeaderOrigin {
				o, _, _, err := schemas.ParseOriginHeader(h.Value)
				found = &o
				return err
			}
		}
		return fmt.Errorf("%s/%d/%d has no %s: it does not come from route", topic, partition, offset, schemas.HeaderOrigin)
	})
	if err == nil && found == nil {
		err = fmt.Errorf("%s/%d has no record at offset %d: %w", topic, partition, offset, ErrNotFound)
	}
	if err != nil {
		return 0, 0, err
	}
	return found.Partition, found.Offset, nil
}

// questions are what the steps ask.
var questions = map[string]string{
	"home": "is this the partition this key belongs to?", "valid": "do size, attributes and schema hold?",
	"tenant": "is the tenant known and active?", "dedupe": "is its key new in 24 h?", "quota": "is it within the day's budget?",
	"rate": "has its class a token now, and is the tenant not behind?", "route": "which regions, or which endpoint?",
}

// WriteTo writes the report for a person.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "events/%d offset %d: tenant %q, event %q", r.Partition, r.Offset, r.Tenant, r.EventID)
	if r.Return != "" {
		fmt.Fprintf(&b, ", came back (%s)", r.Return)
	}
	fmt.Fprintf(&b, "\nappended %s, clock of the partition %s, %d keys remembered before it\n", stamp(r.Appended), stamp(r.Clock), r.Keys)
	for _, a := range r.Answers {
		fmt.Fprintf(&b, "  %-7s %-62s %s", a.Step, questions[a.Step], a.Verdict)
		if a.Reason != "" {
			fmt.Fprintf(&b, " %s: %s", a.Reason, a.Detail)
		}
		b.WriteByte('\n')
	}
	if !r.Due.IsZero() {
		fmt.Fprintf(&b, "due %s\n", stamp(r.Due))
	}
	switch {
	case !r.Decided:
		b.WriteString("Not decided yet: this is what the answer would be now.\n")
	case r.With != r.Now:
		fmt.Fprintf(&b, "Decided with version %d of the policies; these answers are those of version %d.\n", r.With, r.Now)
	}
	return b.WriteTo(w)
}

func stamp(t time.Time) string { return t.Format("2006-01-02T15:04:05.000Z07:00") }
