package schemas

// Headers of an event on Kafka: the CloudEvents Kafka binding in binary mode
// (DESIGN section 3.2).
const (
	HeaderID             = "ce_id"
	HeaderSource         = "ce_source"
	HeaderType           = "ce_type"
	HeaderSubject        = "ce_subject"
	HeaderTime           = "ce_time"
	HeaderTenant         = "ce_tenantid"
	HeaderRegion         = "ce_region"
	HeaderPriority       = "ce_priority"
	HeaderIdempotencyKey = "ce_idempotencykey"
	HeaderDataSchema     = "ce_dataschema"
	HeaderSpecVersion    = "ce_specversion"
	HeaderContentType    = "content-type"
	HeaderTraceparent    = "traceparent"
)

// Internal headers begin with spillway-. On `events` only HeaderReturn counts,
// and only with a valid hash. On other topics they are replaced, never
// appended.
const (
	HeaderInternal = "spillway-"

	HeaderReturn  = "spillway-return"  // see Return
	HeaderCursor  = "spillway-cursor"  // on fanout.<region>: text of the event's Cursor
	HeaderOrigin  = "spillway-origin"  // on overflow, retry, work, dead: text of OriginHeader
	HeaderDue     = "spillway-due"     // on overflow, retry: Unix ms before which it must not come back
	HeaderWait    = "spillway-wait"    // on retry.16s: "schema" or "tenant", for which answer it waits
	HeaderAttempt = "spillway-attempt" // on retry, work, dead: attempts made
	HeaderReason  = "spillway-reason"  // on dead: Reason
	HeaderError   = "spillway-error"   // on dead, retry: a sentence for a person
	HeaderStep    = "spillway-step"    // on dead: the step that said so
)

// ContentTypeAvro is the content type of an event on Kafka.
const ContentTypeAvro = "application/avro"

// DefaultSource and DefaultChannel stand for absent attributes.
const (
	DefaultSource  = "/kafka"
	DefaultChannel = "default"
)

// A Header is one record header. Its value is never modified.
type Header struct {
	Key   string
	Value []byte
}
