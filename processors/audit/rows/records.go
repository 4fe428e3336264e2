package rows

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/processors/audit/table"
	"github.com/spillway/spillway/schemas"
)

// Transitions is the table transitions.
type Transitions struct {
	table.Table
	identity
	generation, attempt    []int32
	status                 []int8
	path, reason, replay   []string
	at, latency            []int64
	node, session, traceID []string
	home                   []int32
	epoch                  []uint64
	cursor                 []int64
	epochs                 map[epochKey]uint64 // a hash per row would cost more than the row; bounded, see epochOf
}

type epochKey struct {
	topic schemas.TopicID
	home  int32
}

// NewTransitions returns an empty one.
func NewTransitions() *Transitions {
	r := &Transitions{epochs: map[epochKey]uint64{}}
	r.Table = table.Define("transitions", append(r.identity.columns(),
		table.Int32s("generation", &r.generation), table.Int32s("attempt", &r.attempt), table.Int8s("status", &r.status),
		table.Text("path", &r.path), table.Text("reason", &r.reason), table.Text("replay", &r.replay),
		table.Millis("at", &r.at), table.Int64s("latency_us", &r.latency),
		table.Text("node", &r.node), table.Text("session", &r.session), table.Text("trace_id", &r.traceID),
		table.Int32s("home", &r.home), table.Uint64s("epoch", &r.epoch), table.Int64s("cursor", &r.cursor))...)
	return r
}

// Add appends the row of t, read from a record appended at ms.
func (r *Transitions) Add(t *schemas.Transition, ms int64) {
	o := t.Origin
	o.AcceptedAt = sane(o.AcceptedAt, ms)
	r.identity.add(clip(t.Tenant), o, t.EventID)
	r.generation = append(r.generation, max(t.Generation, 0))
	r.attempt = append(r.attempt, max(t.Attempt, 0))
	r.status = append(r.status, int8(t.Status))
	r.path = append(r.path, t.Path)
	r.reason = append(r.reason, string(t.Reason))
	r.replay = append(r.replay, t.Replay)
	r.at = append(r.at, Clamp(t.At))
	r.latency = append(r.latency, t.LatencyUS)
	r.node = append(r.node, t.Node)
	r.session = append(r.session, t.Session)
	r.traceID = append(r.traceID, t.TraceID)
	r.home = append(r.home, t.Home)
	r.epoch = append(r.epoch, r.epochOf(epochKey{o.Topic, t.Home}))
	r.cursor = append(r.cursor, t.Cursor)
	r.Rows++
}

// epochOf remembers 4,096 epochs, which is more than any deployment has, and
// forgets them all when garbage makes them more.
func (r *Transitions) epochOf(k epochKey) uint64 {
	e, ok := r.epochs[k]
	if !ok {
		if len(r.epochs) == 4096 {
			clear(r.epochs)
		}
		e = schemas.Epoch(k.topic, k.home)
		r.epochs[k] = e
	}
	return e
}

// Receipts is the table receipts.
type Receipts struct {
	table.Table
	tenant         []string
	home           []int32
	epoch          []uint64
	cursor         []int64
	region, node   []string
	appendedAt, at []int64
	sessions       []int32
	latency        []int64
	partition      []int32
	offset         []int64
	item           []uint32
}

// NewReceipts returns an empty one.
func NewReceipts() *Receipts {
	r := &Receipts{}
	r.Table = table.Define("receipts",
		table.Text("tenant", &r.tenant), table.Int32s("home", &r.home), table.Uint64s("epoch", &r.epoch), table.Int64s("cursor", &r.cursor),
		table.Text("region", &r.region), table.Text("node", &r.node), table.Millis("appended_at", &r.appendedAt), table.Millis("at", &r.at),
		table.Int32s("sessions", &r.sessions), table.Int64s("latency_us", &r.latency),
		table.Int32s("audit_partition", &r.partition), table.Int64s("audit_offset", &r.offset), table.Uint32s("item", &r.item))
	return r
}

// Add appends one row per delivery. Two receipts may name the same event, for
// a resuming session gets it again: both count, hence the record's place.
func (r *Receipts) Add(rc *schemas.Receipt, rec *kgo.Record) {
	ms := Clamp(rec.Timestamp.UnixMilli())
	tenant := clip(rc.Tenant)
	for i, d := range rc.Deliveries {
		r.tenant = append(r.tenant, tenant)
		r.home = append(r.home, rc.Home)
		r.epoch = append(r.epoch, uint64(rc.Epoch))
		r.cursor = append(r.cursor, d.Cursor)
		r.region = append(r.region, rc.Region)
		r.node = append(r.node, rc.Node)
		r.appendedAt = append(r.appendedAt, sane(d.Appended, ms))
		r.at = append(r.at, sane(rc.At, ms))
		r.sessions = append(r.sessions, d.Sessions)
		r.latency = append(r.latency, d.LatencyUS)
		r.partition = append(r.partition, rec.Partition)
		r.offset = append(r.offset, rec.Offset)
		r.item = append(r.item, uint32(i))
	}
	r.Rows += len(rc.Deliveries)
}

// Ranges is the table session_ranges.
type Ranges struct {
	table.Table
	tenant                         []string
	home                           []int32
	epoch                          []uint64
	session, subject, node, region []string
	channel                        []string
	from, to, acked                []int64
	closeCode                      []int32
	openedAt, at                   []int64
	partition                      []int32
	offset                         []int64
}

// NewRanges returns an empty one.
func NewRanges() *Ranges {
	r := &Ranges{}
	r.Table = table.Define("session_ranges",
		table.Text("tenant", &r.tenant), table.Int32s("home", &r.home), table.Uint64s("epoch", &r.epoch),
		table.Text("session", &r.session), table.Text("subject", &r.subject), table.Text("node", &r.node), table.Text("region", &r.region), table.Text("channel", &r.channel),
		table.Int64s("from_cursor", &r.from), table.Int64s("to_cursor", &r.to), table.Int64s("acked_cursor", &r.acked), table.Int32s("close_code", &r.closeCode),
		table.Millis("opened_at", &r.openedAt), table.Millis("at", &r.at), table.Int32s("audit_partition", &r.partition), table.Int64s("audit_offset", &r.offset))
	return r
}

// Add appends the row of s, which rec is.
func (r *Ranges) Add(s *schemas.SessionRange, rec *kgo.Record) {
	ms := Clamp(rec.Timestamp.UnixMilli())
	r.tenant = append(r.tenant, clip(s.Tenant))
	r.home = append(r.home, s.Home)
	r.epoch = append(r.epoch, uint64(s.Epoch))
	r.session = append(r.session, s.Session)
	r.subject = append(r.subject, s.Subject)
	r.node = append(r.node, s.Node)
	r.region = append(r.region, s.Region)
	r.channel = append(r.channel, s.Channel)
	r.from = append(r.from, s.From)
	r.to = append(r.to, s.To)
	r.acked = append(r.acked, s.Acked)
	r.closeCode = append(r.closeCode, s.CloseCode)
	r.openedAt = append(r.openedAt, sane(s.OpenedAt, ms))
	r.at = append(r.at, sane(s.At, ms))
	r.partition = append(r.partition, rec.Partition)
	r.offset = append(r.offset, rec.Offset)
	r.Rows++
}

// sane is ms, a time that a record tells of, or the record's own append time
// if it cannot be true: tables are partitioned by such times, and a record with
// an absurd one must neither make a partition of its own nor vanish as expired.
func sane(ms, appended int64) int64 {
	const day = int64(24 * time.Hour / time.Millisecond)
	if ms > appended+day || ms < appended-90*day {
		return appended
	}
	return ms
}
