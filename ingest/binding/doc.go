// Package binding reads events out of HTTP requests: the CloudEvents HTTP
// binding 1.0, and the short form that a person types. It is pure: bytes in,
// drafts out. What an attribute may look like is not decided here but by
// schemas.Event, as for every record of `events`.
//
//	Content-Type ──ReadMode──▶ Mode
//	   Binary      headers, query ──ReadBinary──▶ Draft    the body is the data
//	   Structured  body ──ReadStructured──▶ Draft
//	   Batch       body ──ReadBatch──▶ Batch ──Next, ReadStructured──▶ Drafts
//
// Modes, by Content-Type:
//
//	application/cloudevents+json         structured: one event, its data inside
//	application/cloudevents-batch+json   batch: an array of them
//	anything else                        binary: the body is the data, attributes are Ce- headers
//
// In binary mode attributes may also be query parameters: type, subject, id,
// source, time, priority, region, dataschema, key (= idempotencykey), tenant
// (= tenantid). So `curl -d '{"text":"hi"}' '…/v1/events?type=demo.Message'` is a
// whole event. Data is JSON (application/json, …+json, none, or curl's
// application/x-www-form-urlencoded) or application/avro in the Confluent wire
// format, inside JSON as data_base64. specversion may be left out; if given it
// is 1.0. An attribute given twice is an error, wherever.
package binding
