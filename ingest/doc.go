// Package ingest takes events over HTTP and writes them to `events`: it is how
// customers come in (DESIGN section 3.5). It decides nothing about an event but
// whether it is well formed and allowed; the line decides the rest.
//
//	POST /v1/events
//	   │ who?      token ──▶ claims, tenant                                  401 403
//	   │ how?      Content-Type ──▶ binary | structured | batch              415
//	   │ read      body, bounded, into one buffer                            413 503
//	   │ parse     body and headers ──▶ drafts (package binding)             400
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
// JSON is written with the latest version of its type's schema. dataschema
// insists on a version: its id in the registry ("7"), or a URI that ends in
// "/schemas/ids/7". Avro comes in the wire format, is read through, and is
// written as it is.
//
// Every refusal is JSON: {"error":{"code","message","path","fix","claim",
// "event"}}, code being a schemas.Reason. Only what net/http itself cannot read
// as HTTP is answered by it, in plain text.
package ingest
