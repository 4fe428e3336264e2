// Package tail keeps the newest part of the partitions of fanout.<region> in
// memory and makes WebSocket frames of it. It knows no Kafka, no connection
// and no clock.
//
//	          Append                         Next(cursor)
//	records ─────────▶ Tail (a partition) ◀──────────────── a subscriber,
//	                    └ tenant: its events, in order        which is a cursor
//	                        └ Feed: one channel or pattern:
//	                          which of them match, their frames
//
// An event is kept once. A Feed remembers only which events match its
// pattern, so a reader pays for what it is sent, never for what it is not, and
// a reader of one tenant never touches another tenant's events. Subscribers at
// the same place get the same Frame: its bytes are built once.
//
// A Set bounds the bytes of all tails together. What goes first is the oldest
// events of the tenant that has most: a flood pushes out itself.
package tail
