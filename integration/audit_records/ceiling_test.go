package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestCeilings: a death of route explains some repeats and some disorder. One
// more than it can explain is an error.
func TestCeilings(t *testing.T) {
	for _, c := range []struct {
		what   string
		most   int
		tamper func(*facts, int)
	}{
		{"audit: one decision", openAtDeath, (*facts).decideAgain},
		{"audit: one event", openAtDeath - 1, (*facts).letThroughAgain}, // one is in the sound history
		{"fanout: first deliveries", waitingAtDeath, (*facts).turnAround},
	} {
		for n, wrong := range map[int]int{c.most: 0, c.most + 1: 1} {
			f := sound()
			c.tamper(f, n)
			all := f.compare()
			i := slices.IndexFunc(all, func(x comparison) bool { return strings.HasPrefix(x.what, c.what) })
			if got := all[i]; len(got.wrong) != wrong {
				t.Errorf("%s, %d allowed: %d wrong, want %d: %q", c.what, n, len(got.wrong), wrong, got.wrong)
			}
		}
	}
}

// around is the death of route in the sound history.
const around = 455

// decideAgain has n events that came back be let through twice over it.
func (f *facts) decideAgain(n int) {
	for i := range int64(n) {
		first := place{2, 2 * i}
		f.events = append(f.events, event{at: first, tenant: "v", origin: first}, event{at: place{2, 2*i + 1}, tenant: "v", origin: first, returned: "release"})
		for range 2 {
			f.decisions = append(f.decisions, decision{origin: first, decided: around, tenant: "v", status: "dropped", cursor: -1})
		}
	}
}

// letThroughAgain has n keys be let through twice over it, whose second copies
// came long after.
func (f *facts) letThroughAgain(n int) {
	for i := range int64(n) {
		for copy := range int64(2) {
			at := place{2, 2*i + copy}
			f.events = append(f.events, event{at: at, appended: 9 * around * copy, tenant: "v", key: fmt.Sprint(i), origin: at})
			f.decisions = append(f.decisions, decision{origin: at, decided: around, tenant: "v", status: "processing", path: "fast", home: 2, cursor: at.offset})
		}
	}
}

// turnAround has n events of a waiting tenant come behind a later one over it.
func (f *facts) turnAround(n int) {
	f.waits = append(f.waits, wait{tenant: "v"})
	for i := range int64(n + 1) {
		at, id := place{2, i}, fmt.Sprintf("b.%d", int64(n)-i)
		f.events = append(f.events, event{at: at, appended: around, tenant: "v", id: id, origin: at})
		f.decisions = append(f.decisions, decision{origin: at, decided: around, tenant: "v", status: "processing", path: "fast", home: 2, cursor: i})
		f.deliveries = append(f.deliveries, delivery{region: "local", in: at, epoch: "e", cursor: i, tenant: "v", id: id})
	}
}
