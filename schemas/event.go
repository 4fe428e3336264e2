package schemas

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"
)

// Bounds of an event's attributes, in bytes. What is over them is dead, see
// Event.Check.
const (
	MaxID         = 256      // ce_id, ce_idempotencykey
	MaxAttribute  = 1024     // any other attribute
	MaxExtensions = 16       // extension attributes of an event
	MaxHeaders    = 64 << 10 // keys and values of all headers together
)

// An Event is one record of `events`, its attributes read from key, headers
// and payload. Strings point into the record's own memory, which nobody
// modifies; keeping one keeps the record.
//
// Fill it with Reset, then SetHeader for each header, then Check.
type Event struct {
	Tenant         string // the record's key
	ID             string // ce_id; empty means the origin's text, see IDText
	Source         string
	Type           string // ce_type; the schema's full name once it is known
	Channel        string // ce_subject; empty until policy or default fills it
	Time           string // ce_time, RFC 3339; empty means the append time
	Region         string // one region; empty means all of the policy's
	Class          Class
	IdempotencyKey string // ce_idempotencykey
	DataSchema     string // ce_dataschema
	ContentType    string
	Traceparent    string
	Extensions     []Attribute // other ce_ attributes, in header order

	Value    []byte // Confluent wire format
	SchemaID int32  // from the wire format; -1 before it was read

	Place  Place  // where this record lies
	Origin Origin // its first append; equal to Place unless Return says else
	Return Return // Kind 0: not a return

	headerTenant string
	returnHeader []byte // spillway-return as it came; Check by the caller
	headerBytes  int
	fault        string // first attribute that is not of its format
	hasID        bool
}

// An Attribute is a CloudEvents extension attribute.
type Attribute struct{ Name, Value string }

// A Place is where a record lies.
type Place struct {
	Topic     string
	Partition int32
	Offset    int64
}

// Reset makes ev the record at origin with this key and value and no header;
// it keeps the memory of Extensions.
func (ev *Event) Reset(origin Origin, topic string, key, value []byte) {
	*ev = Event{
		Tenant: view(key), Value: value, SchemaID: -1,
		Origin: origin, Place: Place{Topic: topic, Partition: origin.Partition, Offset: origin.Offset},
		Extensions: ev.Extensions[:0],
	}
}

// SetHeader reads one header. A repeated attribute counts with its last value.
func (ev *Event) SetHeader(key string, value []byte) {
	ev.headerBytes += len(key) + len(value)
	if ev.headerBytes > MaxHeaders {
		return
	}
	v := view(value)
	switch key {
	case HeaderID:
		ev.ID, ev.hasID = v, true
	case HeaderSource:
		ev.Source = v
	case HeaderType:
		ev.Type = v
	case HeaderSubject:
		ev.Channel = v
	case HeaderTime:
		ev.Time = v
	case HeaderTenant:
		ev.headerTenant = v
	case HeaderRegion:
		ev.Region = v
	case HeaderPriority:
		class, ok := ParseClass(v)
		if !ok {
			ev.setFault(HeaderPriority)
		}
		ev.Class = class
	case HeaderIdempotencyKey:
		ev.IdempotencyKey = v
	case HeaderDataSchema:
		ev.DataSchema = v
	case HeaderContentType:
		ev.ContentType = v
	case HeaderTraceparent, "ce_" + HeaderTraceparent: // the distributed tracing extension says the same
		ev.Traceparent = v
	case HeaderReturn:
		ev.returnHeader = value
	case HeaderSpecVersion:
	default:
		ev.setExtension(key, v)
	}
}

func (ev *Event) setExtension(key, v string) {
	name, ok := strings.CutPrefix(key, "ce_")
	if !ok {
		return // a foreign header: travels with the record, says nothing here
	}
	if len(ev.Extensions) == MaxExtensions || !extensionName(name) || len(v) > MaxAttribute || !utf8.ValidString(v) {
		ev.setFault(key)
		return
	}
	for i := range ev.Extensions {
		if ev.Extensions[i].Name == name {
			ev.Extensions[i].Value = v
			return
		}
	}
	ev.Extensions = append(ev.Extensions, Attribute{name, v})
}

// ReturnHeader is the record's spillway-return, nil if it has none. Read it
// with ParseReturn, which checks its hash, and hand the result to Returned.
func (ev *Event) ReturnHeader() []byte { return ev.returnHeader }

// Returned makes ev the return r: its origin is where it first arrived.
func (ev *Event) Returned(r Return) { ev.Return, ev.Origin = r, r.Origin }

// Fault names the first attribute that is not of its format; "" if all are.
// It is set by Check.
func (ev *Event) Fault() string { return ev.fault }

func (ev *Event) setFault(attribute string) {
	if ev.fault == "" {
		ev.fault = attribute
	}
}

// Check reports what is wrong with key, headers and size, "" if nothing is.
// It does not look into the payload.
func (ev *Event) Check() Reason {
	switch {
	case ev.Tenant == "":
		return TenantMissing
	case !ValidTenant(ev.Tenant):
		return TenantIllegal
	case ev.headerBytes > MaxHeaders:
		return HeadersTooLarge
	case ev.headerTenant != "" && ev.headerTenant != ev.Tenant:
		return TenantMismatch
	case len(ev.Value) == 0:
		return ValueEmpty
	case len(ev.Value) > MaxEvent:
		return TooLarge
	case ev.ContentType != "" && ev.ContentType != ContentTypeAvro:
		return ContentTypeUnsupport
	}
	ev.checkAttributes()
	if ev.fault != "" {
		return AttributeInvalid
	}
	return ""
}

func (ev *Event) checkAttributes() {
	for _, a := range [...]struct {
		name, value string
		max         int
	}{
		{HeaderID, ev.ID, MaxID},
		{HeaderIdempotencyKey, ev.IdempotencyKey, MaxID},
		{HeaderSource, ev.Source, MaxAttribute},
		{HeaderType, ev.Type, MaxAttribute},
		{HeaderRegion, ev.Region, MaxAttribute},
		{HeaderDataSchema, ev.DataSchema, MaxAttribute},
		{HeaderTraceparent, ev.Traceparent, MaxAttribute},
	} {
		if len(a.value) > a.max || !utf8.ValidString(a.value) {
			ev.setFault(a.name)
		}
	}
	if ev.hasID && ev.ID == "" {
		ev.setFault(HeaderID)
	}
	if ev.Channel != "" && !ValidChannel(ev.Channel) {
		ev.setFault(HeaderSubject)
	}
	if ev.Time != "" {
		if _, err := time.Parse(time.RFC3339Nano, ev.Time); err != nil {
			ev.setFault(HeaderTime)
		}
	}
}

// IDText is the event's id: ce_id, or else the origin's text.
func (ev *Event) IDText() string {
	if ev.ID != "" {
		return ev.ID
	}
	return ev.Origin.String()
}

// HasKey reports whether the event can be recognised when it is sent again:
// it has an idempotency key, or an id of its producer's.
func (ev *Event) HasKey() bool { return ev.IdempotencyKey != "" || ev.ID != "" }

// AppendKey appends what makes it the same event within its tenant: the
// idempotency key, else source and id; and the schema version the producer
// insists on, if any. Call it only if HasKey.
func (ev *Event) AppendKey(dst []byte) []byte {
	if ev.IdempotencyKey != "" {
		dst = append(append(dst, 'k'), ev.IdempotencyKey...)
	} else {
		dst = append(dst, 's')
		dst = strconv.AppendInt(dst, int64(len(ev.SourceText())), 10)
		dst = append(append(append(dst, ':'), ev.SourceText()...), ev.ID...)
	}
	if ev.DataSchema != "" {
		dst = append(append(dst, 0), ev.DataSchema...)
	}
	return dst
}

// SourceText is ce_source, or else DefaultSource.
func (ev *Event) SourceText() string {
	if ev.Source != "" {
		return ev.Source
	}
	return DefaultSource
}

// ValidTenant reports whether s is 1 to 64 of [A-Za-z0-9._-].
func ValidTenant(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !alphanumeric(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// extensionName: lower-case letters and digits, at most 20 (CloudEvents 1.0,
// "Attribute Naming Convention"; the length is its SHOULD).
func extensionName(s string) bool {
	if len(s) == 0 || len(s) > 20 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return !reservedName[s]
}

// reservedName are the attributes an extension must not pretend to be.
var reservedName = map[string]bool{"data": true, "datacontenttype": true, "replayid": true}

// view is b as a string without a copy: record memory is never modified.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
