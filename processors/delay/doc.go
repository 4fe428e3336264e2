// Package delay is the role that gives back what waits: it reads `overflow`
// and the retry topics and returns each record when it is due, never early.
//
//	overflow ──────────┐            due          signed   ┌─▶ events   (overflow, waits)
//	retry.1s … .16s ───┤ Lookahead ═════▶ release ────────┤
//	                   └ 20 to 40 bytes a record          └─▶ work     (retries)
//	                     + payloads, bounded; beyond, read again from Kafka
//
// At least once: a record is committed when its return is acknowledged, and a
// release repeated by a crash is dropped by route, which knows its place. If a
// return cannot be produced the process ends rather than skip it.
//
// A partition is committed up to its oldest record that waits, and read no
// further when Config.MaxRecords of its records wait, or when it has been read
// 8 times as many offsets beyond the oldest: one that is due in a day lets
// those behind it go, but not without end, for a restart repeats them.
//
// A batch that cannot be decoded, twice and over two connections, is a dead
// letter without payload; nothing waits for it.
//
// What retention takes is lost, counted and told: before it was read (a gap),
// or after, if its payload was not kept and it is gone when it is due.
//
// It decides nothing about an event and keeps nothing but what Kafka has.
package delay
