// Package control holds what operators decide: tenants, endpoints and flags.
// All of it is one topic, `control`, with one writer and many followers.
//
//	spillway apply / get ──HTTP──▶ Control ──validate──▶ Writer ══▶ control ══▶ Follower ──▶ Snapshot
//	                                                      (one, fenced)           (every role)   (immutable)
//
// A role asks its Follower, which answers from memory and never blocks. The
// Writer owns a transactional id: whoever takes it over fences the one before.
// Setup creates the topics of a deployment or says what differs.
//
// A value is Avro in the Confluent wire format, decoded with the schemas this
// build embeds: upgrade the roles before the control role when they change.
package control
