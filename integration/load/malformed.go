package load

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// malformed are the ways in which one record on `events` may be broken, with the
// reason that its dead letter must give. make gets a record that is whole. Those
// that cost more than a record (a batch that decompresses beyond all bounds, 10 MB
// headers) are in integration/badinput_test.go.
var malformed = []struct {
	name   string
	reason schemas.Reason
	make   func(r *kgo.Record)
}{
	{"no key", schemas.TenantMissing, func(r *kgo.Record) { r.Key = nil }},
	{"illegal tenant", schemas.TenantIllegal, func(r *kgo.Record) { r.Key = []byte("no such/tenant") }},
	{"empty value", schemas.ValueEmpty, func(r *kgo.Record) { r.Value = nil }},
	{"wrong magic byte", schemas.NotWireFormat, func(r *kgo.Record) { r.Value = append([]byte{1}, r.Value[1:]...) }},
	{"JSON", schemas.NotWireFormat, func(r *kgo.Record) { r.Value = []byte(`{"text":"hi"}`) }},
	{"unknown schema id", schemas.SchemaUnknown, func(r *kgo.Record) {
		r.Value = append(schemas.AppendWireHeader(nil, 0x7ffffff0), r.Value[5:]...)
	}},
	{"truncated body", schemas.SchemaMismatch, func(r *kgo.Record) { r.Value = r.Value[:len(r.Value)-1] }},
	{"trailing bytes", schemas.SchemaMismatch, func(r *kgo.Record) { r.Value = append(r.Value, 0) }},
	{"over the bound", schemas.TooLarge, func(r *kgo.Record) { r.Value = append(r.Value, make([]byte, schemas.MaxEvent)...) }},
	{"huge header", schemas.HeadersTooLarge, func(r *kgo.Record) { setHeader(r, "x-note", strings.Repeat("x", schemas.MaxHeaders+1)) }},
	{"other tenant in header", schemas.TenantMismatch, func(r *kgo.Record) { setHeader(r, schemas.HeaderTenant, "globex") }},
	{"id is not UTF-8", schemas.AttributeInvalid, func(r *kgo.Record) { setHeader(r, schemas.HeaderID, "\xff\xfe") }},
	{"absurd time", schemas.AttributeInvalid, func(r *kgo.Record) { setHeader(r, schemas.HeaderTime, "99999-13-77T00:00:00Z") }},
	{"content type", schemas.ContentTypeUnsupport, func(r *kgo.Record) { setHeader(r, schemas.HeaderContentType, "application/json") }},
}

// setHeader replaces or adds a header.
func setHeader(r *kgo.Record, key, value string) {
	for i := range r.Headers {
		if r.Headers[i].Key == key {
			r.Headers[i].Value = []byte(value)
			return
		}
	}
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
}
