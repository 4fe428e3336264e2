// Package rows makes the rows of the audit's tables: each is a pure function of
// one record, so a record that is read again makes the same rows.
//
//	record ─▶ ReadEvent ─▶ Events, DeadLetters ──┐
//	       └▶ Transition, Receipt, SessionRange ─┼─▶ table.Table, by columns
//	          what cannot be read: Undecodable ──┘
package rows
