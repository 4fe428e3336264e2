package rows

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/processors/audit/explain"
	"github.com/spillway/spillway/processors/audit/table"
	"github.com/spillway/spillway/schemas"
)

// maxTenant is how much is kept of a tenant that a system record names: more is
// garbage.
const maxTenant = 256

// Events is the table events.
type Events struct {
	table.Table
	identity
	kind, channel, source   []string
	occurredAt              []int64
	region, class           []string
	idempotencyKey, traceID []string
	schemaID                []int32
	headers                 []Headers
	payload                 []string
}

// NewEvents returns an empty one.
func NewEvents() *Events {
	r := &Events{}
	r.Table = table.Define("events", append(r.identity.columns(),
		table.Text("type", &r.kind), table.Text("channel", &r.channel), table.Text("source", &r.source), table.Millis("occurred_at", &r.occurredAt),
		table.Text("region", &r.region), table.Text("class", &r.class), table.Text("idempotency_key", &r.idempotencyKey), table.Text("trace_id", &r.traceID),
		table.Int32s("schema_id", &r.schemaID), table.Maps("headers", &r.headers), table.Text("payload", &r.payload))...)
	return r
}

// Add appends the row of ev, which rec is: read, completed by names, no return.
func (r *Events) Add(rec *kgo.Record, ev *schemas.Event) {
	r.identity.addEvent(ev)
	r.kind = append(r.kind, ev.Type)
	r.channel = append(r.channel, ev.Channel)
	r.source = append(r.source, ev.SourceText())
	r.occurredAt = append(r.occurredAt, occurredAt(ev))
	r.region = append(r.region, ev.Region)
	r.class = append(r.class, ev.Class.String())
	r.idempotencyKey = append(r.idempotencyKey, ev.IdempotencyKey)
	r.traceID = append(r.traceID, traceID(ev.Traceparent))
	r.schemaID = append(r.schemaID, ev.SchemaID)
	r.headers = append(r.headers, rec.Headers)
	r.payload = append(r.payload, view(rec.Value))
	r.Rows++
}

// identity is the columns of an event's origin, which four tables share.
type identity struct {
	tenant          []string
	acceptedAt      []int64
	originTopic     []string
	originPartition []int32
	originOffset    []int64
	eventID         []string
}

func (id *identity) columns() []table.Column {
	return []table.Column{
		table.Text("tenant", &id.tenant), table.Millis("accepted_at", &id.acceptedAt),
		table.Text("origin_topic", &id.originTopic), table.Int32s("origin_partition", &id.originPartition), table.Int64s("origin_offset", &id.originOffset),
		table.Text("event_id", &id.eventID),
	}
}

func (id *identity) addEvent(ev *schemas.Event) {
	tenant, eventID := explain.NameOf(ev)
	id.add(tenant, ev.Origin, eventID)
}

func (id *identity) add(tenant string, o schemas.Origin, eventID string) {
	id.tenant = append(id.tenant, tenant)
	id.acceptedAt = append(id.acceptedAt, o.AcceptedAt)
	id.originTopic = append(id.originTopic, o.Topic.String())
	id.originPartition = append(id.originPartition, o.Partition)
	id.originOffset = append(id.originOffset, o.Offset)
	id.eventID = append(id.eventID, eventID)
}

// ReadEvent fills ev from a record of events, or of dead, which keeps the
// original headers. A value without a wire format header has schema id -1.
func ReadEvent(ev *schemas.Event, rec *kgo.Record, topic schemas.TopicID) {
	ev.Reset(schemas.Origin{
		Topic: topic, Partition: rec.Partition, Offset: rec.Offset, AcceptedAt: Clamp(rec.Timestamp.UnixMilli()),
	}, rec.Topic, rec.Key, rec.Value)
	for _, h := range rec.Headers {
		ev.SetHeader(h.Key, h.Value)
	}
	if id, _, ok := schemas.WireHeader(rec.Value); ok {
		ev.SchemaID = id
	}
}

// The first and the last ms that the column occurred_at is given: the server
// holds 1900 to 2299, but the client counts nanoseconds, which end in 2262.
const (
	MinOccurred = -2_208_988_800_000
	MaxOccurred = 9_223_372_036_854
)

// occurredAt is ce_time in Unix ms, or else the append time, which is also
// taken for a time that the column cannot hold: headers keep it as it was said.
// Nothing is partitioned by it, sorted by it or expires by it.
func occurredAt(ev *schemas.Event) int64 {
	if ev.Time == "" || len(ev.Time) > 64 {
		return ev.Origin.AcceptedAt
	}
	t, err := time.Parse(time.RFC3339Nano, ev.Time)
	if err != nil {
		return ev.Origin.AcceptedAt
	}
	if ms := t.UnixMilli(); ms >= MinOccurred && ms <= MaxOccurred {
		return ms
	}
	return ev.Origin.AcceptedAt
}

// traceID is the trace id of a W3C traceparent, "" if there is none.
func traceID(traceparent string) string {
	if len(traceparent) < 55 || traceparent[2] != '-' || traceparent[35] != '-' {
		return ""
	}
	return traceparent[3:35]
}

// MaxMillis is the last time kept, in 2109: v_status_now packs one in 42 bits.
const MaxMillis = 1<<42 - 1

// Clamp keeps a time within what the tables hold, 1970 to MaxMillis.
func Clamp(ms int64) int64 { return min(max(ms, 0), MaxMillis) }

func clip(tenant string) string {
	if len(tenant) > maxTenant {
		return tenant[:maxTenant]
	}
	return tenant
}
