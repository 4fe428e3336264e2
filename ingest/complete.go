package ingest

import (
	"context"
	"encoding/hex"
	"io"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/ingest/binding"
	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/registry"
)

// A builder turns the drafts of one request into records. What the records
// hold is in memory of their own, never in the request's buffer.
type builder struct {
	in     *Ingest
	ctx    context.Context
	claims *schemas.Claims
	now    time.Time
	parent string // the request's traceparent, "" if it has none that is valid

	slab    []byte             // values and header values of all records
	headers []kgo.RecordHeader // headers of all records
	records []kgo.Record
	ids     []string // per record: the id it was given, "" if none; points into the request's buffer
	takesID []bool   // per record: its policy takes the id from the payload

	tenant     string // of the last event
	key        []byte // the same, as record key
	home       int32
	policy     *schemas.Policy // its policy, nil if not known here
	lastType   string
	lastSchema *registry.Schema // of lastType
	lastID     *registry.Schema
	spans      [24]byte // random bytes of a trace made here
	event      schemas.Event
}

// headers are the names of attributes on Kafka.
var headers = [binding.NumAttributes]string{
	schemas.HeaderID, schemas.HeaderSource, schemas.HeaderType, schemas.HeaderSubject, schemas.HeaderTime, schemas.HeaderTenant,
	schemas.HeaderRegion, schemas.HeaderPriority, schemas.HeaderIdempotencyKey, schemas.HeaderDataSchema, schemas.HeaderTraceparent, schemas.HeaderSpecVersion,
}

// perEvent estimates the bytes that an event's attributes take in slab.
const perEvent = 192

func (b *builder) grow(events, bodyBytes int) {
	b.slab = make([]byte, 0, bodyBytes+events*perEvent)
	b.headers = make([]kgo.RecordHeader, 0, events*8)
	b.records = make([]kgo.Record, 0, events)
	b.ids = make([]string, 0, events)
	b.takesID = make([]bool, 0, events)
}

// add checks and completes one event.
func (b *builder) add(d *binding.Draft) *binding.Refusal {
	policy, refused := b.setTenant(d)
	if refused == nil {
		refused = b.allowed(d)
	}
	if refused != nil {
		return refused
	}
	start := len(b.slab)
	name, refused := b.encode(d)
	if refused != nil {
		return refused
	}
	value := b.slab[start:len(b.slab):len(b.slab)]
	if !d.Has(binding.Type) {
		d.Attributes[binding.Type] = name
	}
	headers := b.addHeaders(d)
	if refused := b.check(headers, value); refused != nil {
		return refused
	}
	b.records = append(b.records, kgo.Record{
		Topic: b.in.topic, Partition: b.home, Key: b.key, Value: value, Headers: headers, Timestamp: b.now,
	})
	b.ids = append(b.ids, d.Attributes[binding.ID])
	b.takesID = append(b.takesID, policy != nil && policy.Types[name].ID != "")
	return nil
}

// setTenant finds whose event it is: the token's tenant, and for an operator,
// who speaks for all, the one the event names.
func (b *builder) setTenant(d *binding.Draft) (*schemas.Policy, *binding.Refusal) {
	tenant, named := b.claims.Tenant, d.Attributes[binding.Tenant]
	switch {
	case b.claims.Role == schemas.RoleOperator && named == "":
		return nil, binding.Refuse(schemas.AttributeInvalid, "tenantid", `the token speaks for all tenants ("*"), and the event names none`).
			WithFix("add the attribute tenantid, or ?tenant=NAME")
	case b.claims.Role == schemas.RoleOperator:
		tenant = named
	case named != "" && named != tenant:
		return nil, forbidden("tenant", "claim tenant: the token is for tenant %s, the event for %q", tenant, binding.Clip(named))
	}
	if !schemas.ValidTenant(tenant) {
		return nil, binding.Refuse(schemas.TenantIllegal, "tenantid", "tenantid: %s", schemas.TenantIllegal.Text())
	}
	if tenant == b.tenant {
		return b.policy, nil
	}
	policy, refused := b.in.policy(tenant)
	if refused != nil {
		return nil, refused
	}
	b.tenant, b.key, b.policy = strings.Clone(tenant), []byte(tenant), policy
	b.home = schemas.HomePartition(b.key, b.in.cfg.Partitions)
	return policy, nil
}

// allowed checks what the token says about the channel.
func (b *builder) allowed(d *binding.Draft) *binding.Refusal {
	if b.claims.Role != schemas.RoleClient {
		return nil
	}
	if !d.Has(binding.Subject) { // said outright: no policy may then take another channel from the payload
		d.Attributes[binding.Subject] = schemas.DefaultChannel
	}
	channel := d.Attributes[binding.Subject]
	if b.claims.MayPublish(channel) {
		return nil
	}
	if len(b.claims.Publish) == 0 {
		return forbidden("publish", "claim publish is missing: a client needs it to publish, a producer token does not")
	}
	return forbidden("publish", "claim publish does not cover channel %q", binding.Clip(channel))
}

var specVersion, contentTypeAvro = []byte("1.0"), []byte(schemas.ContentTypeAvro)

// addHeaders writes the event's attributes as the CloudEvents Kafka binding
// says (binary mode). The tenant is the key.
func (b *builder) addHeaders(d *binding.Draft) []kgo.RecordHeader {
	start := len(b.headers)
	b.headers = append(b.headers,
		kgo.RecordHeader{Key: schemas.HeaderSpecVersion, Value: specVersion},
		kgo.RecordHeader{Key: schemas.HeaderContentType, Value: contentTypeAvro})
	for a := binding.ID; a < binding.Traceparent; a++ {
		if value := d.Attributes[a]; value != "" && a != binding.Tenant {
			b.addHeader(headers[a], value)
		}
	}
	b.addTrace(d.Attributes[binding.Traceparent])
	for _, e := range d.Extensions {
		b.addHeader("ce_"+e.Name, e.Value)
	}
	return b.headers[start:len(b.headers):len(b.headers)]
}

func (b *builder) addHeader(key, value string) {
	start := len(b.slab)
	b.slab = append(b.slab, value...)
	b.headers = append(b.headers, kgo.RecordHeader{Key: key, Value: b.slab[start:len(b.slab):len(b.slab)]})
}

// addTrace takes a trace context over, the event's before the request's, or
// begins a new trace if there is none of the right form (W3C Trace Context,
// section 3.2).
func (b *builder) addTrace(parent string) {
	if !binding.ValidTraceparent(parent) {
		parent = b.parent
	}
	if parent != "" {
		b.addHeader(schemas.HeaderTraceparent, parent)
		return
	}
	if _, err := io.ReadFull(b.in.random, b.spans[:]); err != nil || allZero(b.spans[:16]) || allZero(b.spans[16:]) {
		return // route begins one
	}
	start := len(b.slab)
	b.slab = append(b.slab, "00-"...)
	b.slab = append(hex.AppendEncode(b.slab, b.spans[:16]), '-')
	b.slab = append(hex.AppendEncode(b.slab, b.spans[16:]), "-01"...)
	b.headers = append(b.headers, kgo.RecordHeader{Key: schemas.HeaderTraceparent, Value: b.slab[start:len(b.slab):len(b.slab)]})
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// check reads the record as route will: what is accepted here is valid there.
func (b *builder) check(headers []kgo.RecordHeader, value []byte) *binding.Refusal {
	ev := &b.event
	ev.Reset(schemas.Origin{}, b.in.topic, b.key, value)
	for _, h := range headers {
		ev.SetHeader(h.Key, h.Value)
	}
	switch reason := ev.Check(); reason {
	case "":
		return nil
	case schemas.AttributeInvalid:
		name := binding.Clip(strings.TrimPrefix(ev.Fault(), "ce_"))
		return binding.Refuse(reason, name, "attribute %s: %s", name, reason.Text()).WithFix("%s", attributeFix(name))
	case schemas.TooLarge:
		return binding.Refuse(reason, "data", "data has %d bytes as Avro, at most %d are taken", len(value), schemas.MaxEvent)
	case schemas.HeadersTooLarge:
		return binding.Refuse(reason, "", "the attributes have more than %d bytes", schemas.MaxHeaders)
	default:
		return binding.Refuse(schemas.Malformed, "", "%s", reason.Text())
	}
}

// attributeFix says what an attribute must look like.
func attributeFix(name string) string {
	switch name {
	case "subject":
		return schemas.ChannelIllegal.Text()
	case "time":
		return "write RFC 3339: 2026-01-02T15:04:05Z"
	case "priority":
		return "write fast or slow"
	case "id", "idempotencykey":
		return "at most 256 bytes of UTF-8"
	case "source", "type", "region", "dataschema", "traceparent":
		return "at most 1024 bytes of UTF-8"
	}
	return "an extension's name is 1 to 20 of a-z 0-9 and not reserved, its value at most 1024 bytes of UTF-8"
}
