// Package audit is the sink: it writes what happened to ClickHouse, so that
// everything can be asked and replayed. It owns the tables and the views.
//
//	events ──(read uncommitted)──▶ reader ─▶ batch ─┐ one insert a table and flush
//	                                                ├─▶ ClickHouse ─▶ commit offsets
//	audit, dead ─(read committed)─▶ reader ─▶ batch ┘
//
//	record ─▶ events          every record without a valid return
//	          transitions     one row per change of one event's status
//	          receipts        one row per event and node that wrote it to sockets
//	          session_ranges  what a session was sent of a channel
//	          dead_letters    with their bytes
//	          undecodable     what could not be read: nothing is lost, nothing stops
//
// A batch is inserted again until it is acknowledged, and only then are its
// offsets committed: at least once. A row is a pure function of its record and
// holds the record's identity in its sorting key, so a row that comes twice is
// one row, and what the views count is exact. Names that a header leaves out come
// from the registry (see names): they are no part of the identity, so a row that
// is written again with more of them takes the place of the first.
//
// There are two readers because a client has one isolation level. `audit` and
// `dead` are written in transactions and read committed. `events` is read
// uncommitted, as route reads it: an event that route decides on must have its
// row, even if a foreign producer's transaction was aborted, and no hung
// transaction may hold up its neighbours.
//
// Three packages beside this one: rows makes the rows, table has the connection,
// the tables and what ails ClickHouse, explain answers from the tables.
package audit
