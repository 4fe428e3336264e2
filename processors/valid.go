package processors

import "github.com/spillway/spillway/schemas"

// valid asks: do size, attributes and schema hold? The payload becomes JSON
// here, once; a body that does not is dead with the codec's sentence.
func (r *rules) valid(ev *Event, _ *State) Decision {
	if ev.Transactional {
		return dead(schemas.TransactionalProducer, "")
	}
	if ev.fault != "" {
		return dead(ev.fault, faultDetail(ev))
	}
	id, body, ok := schemas.WireHeader(ev.Value)
	if !ok || id <= 0 {
		return dead(schemas.NotWireFormat, wireDetail(ev.Value))
	}
	ev.SchemaID, ev.body = id, body
	schema, noAge := r.schemas.Schema(id)
	if schema == nil {
		return ev.await(noAge, schemas.AwaitSchema, schemas.SchemaUnknown)
	}
	ev.schema = schema
	var why schemas.Reason
	var detail string
	if ev.JSON, why, detail = schema.AppendJSON(ev.JSON[:0], body, schemas.MaxEvent); why != "" {
		return dead(why, detail)
	}
	if ev.Type == "" {
		ev.Type = schema.Name()
	}
	if ev.Type == "" {
		return dead(schemas.SchemaUnsupported, "the schema is not a record's and ce_type is absent")
	}
	return Decision{}
}

// await decides about an event of whose schema or tenant nothing is known. A
// "no" must be fresh: the event waits, and when it has come back the answer
// stands if it was given after the event's first append, noAge ms ago; negative
// is no answer. After a Window it stands as it is.
func (ev *Event) await(noAge int64, wait, unknown schemas.Reason) Decision {
	age := ev.Appended - ev.Origin.AcceptedAt
	fresh := noAge >= 0 && noAge <= age
	if ev.Return.Kind == schemas.Wait && (fresh || age >= Window.Milliseconds()) {
		return dead(unknown, "")
	}
	return Decision{Verdict: Wait, Reason: wait}
}

func faultDetail(ev *Event) string {
	if ev.fault == schemas.AttributeInvalid {
		return ev.Fault() + ": " + schemas.AttributeInvalid.Text()
	}
	return ""
}

func wireDetail(value []byte) string {
	switch value[0] {
	case '{', '[':
		return "the value looks like JSON: send it to POST /v1/events, or encode it with spillway schemas encode"
	case 0:
		return "the value ends inside the 5-byte header, or its schema id is not positive"
	}
	return ""
}
