package explain

import (
	"fmt"

	"github.com/spillway/spillway/schemas"
)

// phrase is what a transition did, in a word or two.
func phrase(t *schemas.Transition) string {
	switch t.Status {
	case schemas.Pending:
		switch t.Path {
		case "overflow", "wait":
			return "waits"
		case "slow":
			return "handed over"
		}
		return "pending"
	case schemas.Processing:
		if t.Path == "fast" {
			return "let through"
		}
		return "taken up"
	case schemas.Dup:
		if t.Reason == schemas.StaleReturn {
			return "ignored"
		}
	}
	return t.Status.String()
}

// meaning is the same in a sentence; reasons are added by the caller.
func meaning(t *schemas.Transition) string {
	switch t.Status {
	case schemas.Pending:
		switch t.Path {
		case "overflow":
			return "in overflow for the next token of its bucket, in order"
		case "wait":
			return "in retry.16s for a fresh answer"
		case "slow":
			return "to the workers"
		}
		return "not decided"
	case schemas.Processing:
		if t.Path == "fast" {
			return fmt.Sprintf("to the fan-out, cursor %s", schemas.Cursor{Epoch: schemas.Epoch(t.Origin.Topic, t.Home), Offset: t.Cursor})
		}
		return fmt.Sprintf("by a worker, attempt %d", t.Attempt)
	case schemas.Failed:
		return fmt.Sprintf("attempt %d; a retry follows", t.Attempt)
	case schemas.Delivered:
		return fmt.Sprintf("by a worker, attempt %d", t.Attempt)
	case schemas.DeadStatus:
		return "it goes no further"
	case schemas.Dup:
		if t.Reason == schemas.StaleReturn {
			return "a second copy of it came back"
		}
		return "not delivered again; the first one's status is its own"
	case schemas.Dropped:
		return "not wanted late"
	case schemas.Cancelled:
		return "withdrawn"
	}
	return ""
}

// advice is what a person can do about a reason. Reasons that need nothing, and
// those of requests and connections, have none.
var advice = map[schemas.Reason]string{
	schemas.TenantMissing:         "set the record's key to the tenant",
	schemas.TenantIllegal:         "send it again under a legal tenant name",
	schemas.TenantMismatch:        "leave ce_tenantid out, or make it the key",
	schemas.TenantUnknown:         "make a policy for this tenant with spillway apply, then send it again",
	schemas.TenantSuspended:       "set the policy's state to active, then send it again",
	schemas.ValueEmpty:            "send a payload: an event without one says nothing",
	schemas.NotWireFormat:         "use a serializer of the Confluent wire format, or spillway schemas encode, or POST JSON to /v1/events",
	schemas.ContentTypeUnsupport:  "POST it to /v1/events, which takes JSON",
	schemas.AttributeInvalid:      "mend the attribute that the dead letter names",
	schemas.HeadersTooLarge:       fmt.Sprintf("keep keys and values of all headers under %d bytes together", schemas.MaxHeaders),
	schemas.TooLarge:              fmt.Sprintf("keep it under %d bytes, as Avro and as JSON; put large data elsewhere and send its address", schemas.MaxEvent),
	schemas.SchemaUnknown:         "register the schema in this deployment's registry: the producer may use another one",
	schemas.SchemaMismatch:        "write it with the schema whose id it carries: the letter says where decoding failed",
	schemas.SchemaUnsupported:     "register the schema without references and without unions that look the same as JSON",
	schemas.TransactionalProducer: "produce to events without a transaction",
	schemas.UndecodableBatch:      fmt.Sprintf("send smaller batches: %d bytes decompressed at most", schemas.MaxClientBatch),
	schemas.NotHome:               "this is a fault of Spillway or of who holds its secret: the number of partitions may differ between roles",
	schemas.OverQuota:             "raise the quota or the rate in the tenant's policy, or send less; the bytes are still in events",
	schemas.NoRoute:               "name a region of the tenant's policy, or bind an endpoint to the type",
	schemas.RateLimited:           "raise the rate in the tenant's policy if this is too late",
	schemas.Behind:                "raise the rate in the tenant's policy if this is too late",
	schemas.AwaitSchema:           "nothing if the schema is being registered; it is decided within 16 s once the registry answers",
	schemas.AwaitTenant:           "nothing if the tenant is being made; it is decided within 16 s once control can be read",
	schemas.Duplicate:             "nothing: send it with another idempotency key if it was meant to count twice",
}
