// Package explain answers for what happened: the story of one event, step by
// step with times and reasons, and the events of a time or of a gap.
//
//	ClickHouse ─┐ facts                        ┌─▶ Story.String   spillway explain
//	            ├───────▶ tell (pure) ─▶ Story ┤
//	Kafka ──────┘                              └─▶ JSON           GET /v1/events/{id}
//
// ClickHouse answers in milliseconds from the tables that package audit writes.
// Kafka alone answers by reading events, audit and dead from a given time on:
// slower, but it needs nothing else to be up.
package explain

import (
	"context"
	"errors"
	"fmt"

	"github.com/spillway/spillway/schemas"
)

// ErrNotFound is returned by Explain when nothing is known of the event.
var ErrNotFound = errors.New("no such event")

// A Source finds what is known of an event: ClickHouse or Kafka.
type Source interface {
	// Facts are all rows or records about events with this id, of one tenant or,
	// if it is empty, of all. None is no error.
	Facts(ctx context.Context, id, tenant string) (Facts, error)
	// Name says who it is, for a person.
	Name() string
}

// Facts are what a source knows; each may be incomplete, and repeats count once.
type Facts struct {
	Accepted    []Accepted
	Transitions []schemas.Transition
	Letters     []Letter
	Receipts    []Receipt
	Now         int64 // the source's clock, Unix ms: how far it knows
	More        bool  // there are more events than a story tells
}

// Accepted is an event as it was first appended.
type Accepted struct {
	Origin                                     schemas.Origin
	Tenant, ID, Type, Channel, Source, TraceID string
	Time                                       string // ce_time as the producer wrote it
	SchemaID                                   int32
	Bytes                                      int
}

// A Letter is a dead letter.
type Letter struct {
	Origin              schemas.Origin
	Tenant, ID          string
	Generation, Attempt int32
	Reason              schemas.Reason
	Error, Step         string
	At                  int64 // Unix ms
}

// A Receipt is one node's word on one event.
type Receipt struct {
	Tenant       string
	Home         int32
	Epoch        uint64
	Cursor       int64
	Region, Node string
	Appended, At int64 // Unix ms
	Sessions     int32
	LatencyUS    int64
}

// maxEvents is how many events of one id a story tells: the first, its
// duplicates, and namesakes of other sources and tenants.
const maxEvents = 20

// Explain tells the story of an event. The id is its own (ce_id) or its
// origin; an empty tenant asks for every tenant's. It returns ErrNotFound when
// the source knows nothing of it.
func Explain(ctx context.Context, src Source, id, tenant string) (Story, error) {
	if id == "" || len(id) > schemas.MaxHeaders {
		return Story{}, fmt.Errorf("explain: event id of %d bytes", len(id))
	}
	f, err := src.Facts(ctx, id, tenant)
	if err != nil {
		return Story{}, fmt.Errorf("explain %q from %s: %w", id, src.Name(), err)
	}
	s := tell(f)
	if len(s.Events) == 0 {
		return Story{}, fmt.Errorf("explain %q from %s: %w", id, src.Name(), ErrNotFound)
	}
	s.ID, s.From = id, src.Name()
	return s, nil
}

// parseOrigin reads an id that is an origin as text; false if it is none.
func parseOrigin(id string) (o schemas.Origin, ok bool) {
	if len(id) < 26 || id[22] != '/' {
		return o, false
	}
	topic, err := schemas.ParseTopicID(id[:22])
	if err != nil {
		return o, false
	}
	o.Topic = topic
	if n, err := fmt.Sscanf(id[22:], "/%d/%d", &o.Partition, &o.Offset); n != 2 || err != nil || o.String() != id {
		return schemas.Origin{}, false
	}
	return o, true
}
