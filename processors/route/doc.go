// Package route runs the line (package processors) on Kafka: every record of
// `events` is decided on exactly once, in the transaction that commits its
// offset.
//
//	          ┌─────────────────────────── session ───────────────────────────┐
//	events ══▶│ poll ─▶ learn ─▶ walk the line ─▶ write ─▶ forwards acked? ─▶ │══▶ fanout.<region>, overflow, work,
//	          │  ▲      schema     State per       outputs       │            │    retry.16s, dead, audit
//	          │  │      ids        partition                     ▼            │
//	          │  └────── commit: go on ◀── End ── abort: undo, or build anew  │──▶ events (forwards, signed)
//	          └───────────────────────────────────────────────────────────────┘
//
// A Router has several sessions, each a member of one consumer group with a
// transactional id of its own, so that one decides while another commits. A
// session's goroutine owns its client, its states and its buffers; sessions
// share nothing but the forwards' producer, the look-ups and the metrics.
//
// A transaction holds what one poll gave: an idle router commits a single
// event at once, a busy one commits what has piled up meanwhile. It does not
// pace itself between polls: the client fetches one response ahead, so a pause
// of 5 ms was measured to cost ten times its length, and to save nothing.
//
// # When a transaction does not commit
//
// A state knows the offset that it reaches to, and which offset it will reach
// to if the transaction under way commits. Whenever the broker says what is
// committed (after an abort, and at every assignment of a partition) the state
// is settled by that word: it stays, goes forward or goes back if it reaches
// exactly there, else it is dropped. Callbacks about revoked partitions are
// only hints; nothing depends on them.
//
// What the line remembers is in memory only for now: a partition that moves,
// or a process that starts again, begins with an empty State.
package route
