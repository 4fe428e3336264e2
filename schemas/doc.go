// Package schemas is the vocabulary that every layer of Spillway speaks: what
// an event is, what its headers, topics, cursors, statuses and reasons are
// called, and how the system's own records look on the wire.
//
//	ingest ─▶ events ─▶ route ─▶ fanout.<region> ─▶ fanout
//	   │                  │                            │
//	   └────────┬─────────┴─────────────┬──────────────┘
//	            ▼                       ▼
//	 Event, Origin, Return      Cursor, frames, reasons
//
// It is pure: no I/O, no clock, no goroutine, and nothing but the standard
// library, so that the Go client may import it. Codecs for Avro payloads are
// in schemas/codec, the registry client in schemas/registry.
package schemas
