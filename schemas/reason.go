package schemas

// A Reason says why something happened to an event, a request or a
// connection. Metric label, audit column and API error code are the same word.
type Reason string

// Why an event is dead (final, someone must look).
const (
	TenantMissing         Reason = "tenant_missing"
	TenantIllegal         Reason = "tenant_illegal"
	TenantMismatch        Reason = "tenant_mismatch"
	TenantUnknown         Reason = "tenant_unknown"
	TenantSuspended       Reason = "tenant_suspended"
	ValueEmpty            Reason = "value_empty"
	NotWireFormat         Reason = "not_wire_format"
	ContentTypeUnsupport  Reason = "content_type_unsupported"
	AttributeInvalid      Reason = "attribute_invalid"
	HeadersTooLarge       Reason = "headers_too_large"
	TooLarge              Reason = "too_large"
	SchemaUnknown         Reason = "schema_unknown"
	SchemaMismatch        Reason = "schema_mismatch"
	SchemaUnsupported     Reason = "schema_unsupported"
	TransactionalProducer Reason = "transactional_producer"
	UndecodableBatch      Reason = "undecodable_batch"
	NotHome               Reason = "not_home"
	OverQuota             Reason = "over_quota"
	NoRoute               Reason = "no_route"
)

// Why an event is not delivered, or not yet.
const (
	Duplicate    Reason = "duplicate"
	RateLimited  Reason = "rate_limited"  // dropped, or waits for a token
	Behind       Reason = "behind"        // waits behind its tenant's earlier events
	AwaitSchema  Reason = "await_schema"  // waits until the registry's "no" is fresh
	AwaitTenant  Reason = "await_tenant"  // waits until control's "no" is fresh
	StaleReturn  Reason = "stale_return"  // a return that came back twice
	ForgedReturn Reason = "forged_return" // spillway-return without a valid hash: ignored, counted
)

// Why a request or a connection is refused or closed.
const (
	Malformed        Reason = "malformed"
	AuthRequired     Reason = "auth_required"
	AuthFailed       Reason = "auth_failed"
	TokenExpired     Reason = "token_expired"
	Forbidden        Reason = "forbidden"
	NotFound         Reason = "not_found"
	MethodNotAllowed Reason = "method_not_allowed"
	Conflict         Reason = "conflict"
	KafkaUnavailable Reason = "kafka_unavailable"
	RegistryDown     Reason = "registry_unavailable"
	AuditUnavailable Reason = "audit_unavailable"
	Overloaded       Reason = "overloaded"
	BadFrame         Reason = "bad_frame"
	VersionUnknown   Reason = "version"
	ChannelIllegal   Reason = "channel_illegal"
	ChannelLimit     Reason = "channel_limit"
	CursorIllegal    Reason = "cursor_illegal"
	ConnectionLimit  Reason = "connection_limit"
	Draining         Reason = "drain"
	Moved            Reason = "moved"
	Slow             Reason = "slow"
	Idle             Reason = "idle"
	Internal         Reason = "internal"
)

// reasons is the one table of reasons: what each means to a person.
var reasons = map[Reason]string{
	TenantMissing:         "the record has no key: the key is the tenant",
	TenantIllegal:         "a tenant is 1 to 64 of A-Z a-z 0-9 . _ -",
	TenantMismatch:        "ce_tenantid and the key name different tenants",
	TenantUnknown:         "no policy exists for this tenant",
	TenantSuspended:       "the tenant is suspended",
	ValueEmpty:            "the record has no value",
	NotWireFormat:         "the value is not in the Confluent wire format (byte 0, schema id, Avro body)",
	ContentTypeUnsupport:  "only application/avro is read from Kafka; send JSON to POST /v1/events",
	AttributeInvalid:      "an attribute is too long, not UTF-8, or not of its format",
	HeadersTooLarge:       "the headers exceed their bound",
	TooLarge:              "the event exceeds max_event",
	SchemaUnknown:         "the registry has no schema with this id",
	SchemaMismatch:        "the body does not decode with its schema",
	SchemaUnsupported:     "the schema uses references or a union whose branches look the same as JSON",
	TransactionalProducer: "events is read uncommitted; a transactional producer must not write to it",
	UndecodableBatch:      "the batch cannot be decompressed within the bound",
	NotHome:               "a signed record is not on its home partition",
	OverQuota:             "over the tenant's quota or max_backlog",
	NoRoute:               "no region or endpoint takes this event",
	Duplicate:             "an event with this idempotency key was let through in the last 24 h",
	RateLimited:           "the tenant's bucket has no token now",
	Behind:                "earlier events of this tenant still wait",
	AwaitSchema:           "the schema id is not known yet",
	AwaitTenant:           "the tenant is not known yet",
	StaleReturn:           "this return was already taken",
	ForgedReturn:          "spillway-return has no valid hash",
	Malformed:             "the request cannot be read",
	AuthRequired:          "a token is required",
	AuthFailed:            "the token does not verify",
	TokenExpired:          "the token has expired",
	Forbidden:             "the token does not allow this",
	NotFound:              "there is nothing at this address",
	MethodNotAllowed:      "this address does not take this method",
	Conflict:              "it changed since you read it",
	KafkaUnavailable:      "Kafka cannot take it now",
	RegistryDown:          "the schema registry does not answer",
	AuditUnavailable:      "ClickHouse does not answer",
	Overloaded:            "this node has too much in flight",
	BadFrame:              "the frame cannot be read",
	VersionUnknown:        "this protocol version is not spoken here",
	ChannelIllegal:        "a channel is 1 to 256 bytes of UTF-8 without control characters; a pattern ends in .*",
	ChannelLimit:          "too many channels on this connection",
	CursorIllegal:         "this is no cursor",
	ConnectionLimit:       "the tenant or the node has no connection left",
	Draining:              "this node is draining",
	Moved:                 "another node serves this now",
	Slow:                  "the client reads too slowly",
	Idle:                  "the client did not answer",
	Internal:              "something broke here; it was logged",
}

// Text is the reason's meaning in a sentence, "" for an unknown word.
func (r Reason) Text() string { return reasons[r] }

// Reasons lists every reason with its meaning; the map is the caller's.
func Reasons() map[Reason]string {
	out := make(map[Reason]string, len(reasons))
	for r, text := range reasons {
		out[r] = text
	}
	return out
}
