// Package ingest takes events over HTTP and writes them to `events`: it is how
// customers come in (DESIGN section 3.5). It decides nothing about an event but
// whether it is well formed and allowed; the line decides the rest.
//
//	POST /v1/events
//	   │ who?      token ──▶ claims, tenant                                  401 403
//	   │ how?      Content-Type ──▶ binary | structured | batch              415
//	   │ read      body, bounded, into one buffer                            413 503
//	   │ parse     body and headers ──▶ drafts (attributes, data)            400
//	   │ complete  draft ──▶ record: JSON to Avro, headers, home partition   400 403 413 422
//	   │ admit     policy, quota of the day                                  403 429
//	   ▼ produce   all records, acks=all, idempotent                         503
//	 202 {"events":[{"id","partition","offset"}]}
//
// Nothing is written before all events of a request are complete, and nothing
// is answered 2xx before Kafka has acknowledged all of them. A 503 may leave a
// part written, or write it later: sent again with the same ids it is the same
// event.
//
// # What a request looks like
//
// The modes of the CloudEvents HTTP binding, by Content-Type:
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
// format. specversion may be left out; if given it is 1.0.
//
// dataschema insists on a version of the schema: its id in the registry ("7"),
// or a URI that ends in "/schemas/ids/7". Without it JSON is written with the
// type's latest version.
package ingest
