// Package delay is the role that gives back what waits: it reads `overflow`
// and the retry topics and returns each record when it is due, never early.
//
//	overflow ──────────┐            due          signed   ┌─▶ events   (overflow, waits)
//	retry.1s … .16s ───┤ Lookahead ═════▶ release ────────┤
//	                   └ 20 bytes a record                └─▶ work     (retries)
//	                     + Payloads, bounded; beyond, read again from Kafka
//
// At least once: a record is committed when its return is acknowledged, and a
// release repeated by a crash is dropped by route, which knows its place. If a
// return cannot be produced the process ends rather than skip it.
//
// It decides nothing about an event and keeps nothing but what Kafka has.
package delay
