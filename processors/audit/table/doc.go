// Package table is the audit's way to ClickHouse: the connection, the tables
// and their migrations, rows by columns, and what ails a server that does not
// take them.
//
//	Server ─▶ Open ─▶ Migrate ─▶ Table: add rows ─▶ Insert ─▶ acknowledged
//	                     │                            │
//	                     └────────▶ Diagnose ◀────────┘ failed: reason and one line
//
// The rest of the audit knows what a row means; this package does not.
package table
