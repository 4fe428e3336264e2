// Package processors is the line: it decides what happens to each event. It is
// pure: no Kafka, no clock, no I/O, no goroutine, no lock. processors/route
// runs it inside Kafka transactions; stories in testdata run it in tests.
//
//	record of events ─▶ home ─▶ valid ─▶ tenant ─▶ dedupe ─▶ quota ─▶ rate ─▶ route ─▶ Deliver │ Work
//	                     │        │        │          │         │        │        │
//	                  Forward   Dead     Dead     Duplicate    Dead   Overflow   Dead
//	                  Stale     Wait     Wait                         Drop, Dead
//
// All that the line knows is in the Event, in the State of its partition and in
// the answers of Tenants and Schemas; all that it wants is in the Decision. So
// the same log gives the same decisions in live traffic, in a replay and in a
// test.
//
// # The clock of a record
//
// Time is the log. A partition's clock adds up what the append times of its
// records advance and stands where they step back (State.Clock). An event's
// own time is that clock, except for what was first appended earlier and is
// only late because the pipeline was: a forward, or a wait, was accepted
// (append time - first append time) before its record, so its own time is the
// clock less that lateness, a day at most, but never before an earlier event of
// its tenant. A bucket therefore sees the spacing with which a tenant sent,
// however late and however fast its events come in.
//
// A tenant that sends both ways, straight home and by way of forwards, has two
// streams of which one may lag. Its late events then stand at its newest time
// and are shaped; max_backlog is raised by the largest lateness seen while they
// wait, so that the pipeline's delay alone never makes an event over_quota.
//
// # Returns
//
// What comes back to events signed is taken once: its identity goes into the
// same ring as the idempotency keys. A forward, a release, a replay and a
// redrive are known by their origin, generation and job, for an event is
// brought back so only once; a wait is known by the record it brings back too,
// for an event may wait several times. A release is not asked again about
// dedupe, quota and rate, even if it has to wait for a schema in between.
package processors
