// Package load plays a trace of real AI traffic through a running Spillway as
// its users would, from outside, and checks every single delivery.
//
//	trace ─▶ Plan ─┬─▶ senders: HTTP per tenant, Kafka with a foreign partitioner
//	               │        │
//	               │        ▼            Spillway
//	               │   subscribers: one per channel, one "*" per tenant
//	               │        │
//	               └─▶   Ledger  ◀── dead letters and duplicates, read from Kafka
//	                        │
//	                        ▼
//	                      Report
//
// What must arrive is known before the run: it comes from the plan, never from
// what was seen.
package load
