// Package conformance holds what the public API of the Confluent Schema
// Registry promises, as one table of requests and answers, and asks any
// registry whether it keeps to it: the one of `spillway dev`, one in a
// container, or one that somebody names by its address.
//
//	testdata/registry.txt ──Parse──▶ steps ──Run──▶ registry
//	                                                   │ findings
//	testdata/<registry>.txt ──Known──▶ deviations ─────┴──Compare──▶ problems
//
// Registries differ. What one is known to do otherwise stands in its file,
// line by line, with the reason; a deviation that is new is a problem, and so
// is one that is gone.
//
// It is not a test of what a registry does beyond that API, nor of its speed.
package conformance
