package main

import (
	"slices"
	"strings"
	"testing"
)

// sound is a small history in which everything is right:
//
//	0/0 a.1  let through          1/0 a.1  of another tenant, in overflow, released by 1/1
//	0/1 a.1  again: duplicate     1/2 x    dead
//	0/2 a.2  let through          1/3 k.1  a stranger, forwarded to 0/3, let through there
//	0/4 a.3  let through
//	0/5 a.3  again: duplicate
func sound() *facts {
	ev := func(p int32, o int64, tenant, id, returned string, origin place) event {
		e := event{
			at: place{p, o}, tenant: tenant, id: id, key: "id " + id, origin: origin, returned: returned,
			appendTime: true, inOrigin: true,
		}
		return e
	}
	audit := func(o int64, origin place, tenant, id, status, path, reason string, home int32, cursor int64) decision {
		return decision{origin: origin, in: place{home, o}, tenant: tenant, id: id, status: status, path: path, reason: reason, home: home, cursor: cursor}
	}
	out := func(p int32, o, cursor int64, tenant, id string) delivery {
		return delivery{region: "local", in: place{p, o}, epoch: "e", cursor: cursor, tenant: tenant, id: id}
	}
	f := &facts{
		regions: []string{"local"}, every: true,
		acks: []ack{{"t", "a.1", "http", 0, 0}, {"t", "a.2", "kafka", 0, 2}, {"u", "a.1", "http", 1, -1}},
		events: []event{
			ev(0, 0, "t", "a.1", "", place{0, 0}), ev(0, 1, "t", "a.1", "", place{0, 1}), ev(0, 2, "t", "a.2", "", place{0, 2}),
			ev(0, 3, "t", "k.1", "forward", place{1, 3}), ev(0, 4, "t", "a.3", "", place{0, 4}), ev(0, 5, "t", "a.3", "", place{0, 5}),
			ev(1, 0, "u", "a.1", "", place{1, 0}), ev(1, 1, "u", "a.1", "release", place{1, 0}),
			ev(1, 2, "u", "x", "", place{1, 2}), ev(1, 3, "t", "k.1", "", place{1, 3}),
		},
		decisions: []decision{
			audit(0, place{0, 0}, "t", "a.1", "processing", "fast", "", 0, 0), audit(1, place{0, 1}, "t", "a.1", "duplicate", "", "duplicate", 0, -1),
			audit(2, place{0, 2}, "t", "a.2", "processing", "fast", "", 0, 2), audit(3, place{1, 3}, "t", "k.1", "processing", "fast", "", 0, 3),
			audit(4, place{0, 4}, "t", "a.3", "processing", "fast", "", 0, 4), audit(5, place{0, 5}, "t", "a.3", "duplicate", "", "duplicate", 0, -1),
			audit(0, place{1, 0}, "u", "a.1", "pending", "overflow", "rate_limited", 1, -1), audit(1, place{1, 0}, "u", "a.1", "processing", "fast", "", 1, 1),
			audit(2, place{1, 2}, "u", "x", "dead", "", "schema_mismatch", 1, -1),
		},
		deliveries: []delivery{
			out(0, 0, 0, "t", "a.1"), out(0, 1, 2, "t", "a.2"), out(0, 2, 3, "t", "k.1"), out(0, 3, 4, "t", "a.3"), out(1, 0, 1, "u", "a.1"),
		},
		letters: []letter{{place{1, 0}, place{1, 2}, "u", "schema_mismatch"}},
		waits:   []wait{{place{1, 0}, place{1, 0}, "u"}},
	}
	f.rowEvents, f.rowTransitions, f.rowLetters = rowsOf(f.firstArrivals(), rowOfEvent), rowsOf(f.decisions, rowOfDecision), rowsOf(f.letters, rowOfLetter)
	return f
}

func TestASoundHistoryPasses(t *testing.T) {
	for _, c := range sound().compare() {
		if len(c.wrong) > 0 {
			t.Errorf("%s: %s", c.what, strings.Join(c.wrong, "\n"))
		}
		if c.compared == 0 {
			t.Errorf("%s: nothing was compared", c.what)
		}
	}
}

// TestTamperedHistoryFails changes one thing each; the comparison that watches
// it must say so.
func TestTamperedHistoryFails(t *testing.T) {
	for _, c := range []struct {
		name, what string // what begins the comparison that must fail
		tamper     func(*facts)
	}{
		{"a producer's time", "events: appended", func(f *facts) { f.events[2].appendTime = false }},
		{"a foreign origin", "events: appended", func(f *facts) { f.events[3].inOrigin = false }},
		{"an acknowledged event is gone", "events: everything", func(f *facts) { f.events = slices.Delete(f.events, 2, 3) }},
		{"another event is in its place", "events: everything", func(f *facts) { f.events[2].id = "a.9" }},
		{"acknowledged without a place, and gone", "events: everything", func(f *facts) { f.acks[2].ID = "a.7" }},
		{"no decision", "audit: one decision", func(f *facts) { f.decisions = slices.Delete(f.decisions, 2, 3) }},
		{"still waiting", "audit: one decision", func(f *facts) { f.decisions = slices.Delete(f.decisions, 7, 8) }},
		{"decided twice", "audit: one decision", func(f *facts) { f.decisions = append(f.decisions, f.decisions[2]) }},
		{"decision about nothing", "audit: one decision", func(f *facts) { f.decisions[2].origin = place{7, 7} }},
		{"decided again when it came back", "audit: one decision", func(f *facts) { f.decisions = append(f.decisions, f.decisions[7]) }},
		{"a key let through twice", "audit: one event", func(f *facts) {
			d := &f.decisions[5]
			d.status, d.path, d.reason, d.cursor = "processing", "fast", "", 5
			f.deliveries = append(f.deliveries, delivery{region: "local", in: place{0, 4}, epoch: "e", cursor: 5, tenant: "t", id: "a.3"})
		}},
		{"a duplicate of nothing", "audit: one event", func(f *facts) {
			f.decisions[0] = decision{origin: place{0, 0}, status: "duplicate", cursor: -1}
		}},
		{"not delivered", "fanout: one record", func(f *facts) { f.deliveries = f.deliveries[1:] }},
		{"delivered twice", "fanout: one record", func(f *facts) { f.deliveries = append(f.deliveries, f.deliveries[1]) }},
		{"delivered without a decision", "fanout: one record", func(f *facts) {
			f.deliveries = append(f.deliveries, delivery{region: "local", in: place{1, 9}, epoch: "e", cursor: 2, tenant: "u", id: "x"})
		}},
		{"another event delivered in its place", "fanout: one record", func(f *facts) { f.deliveries[1].id = "a.9" }},
		{"the wrong region", "fanout: one record", func(f *facts) { f.deliveries[1].region = "us" }},
		{"a cursor that steps back", "fanout: cursors", func(f *facts) { f.deliveries[1].cursor, f.deliveries[2].cursor = 3, 2 }},
		{"another epoch", "fanout: cursors", func(f *facts) { f.deliveries[2].epoch = "f" }},
		{"out of order", "fanout: first deliveries", func(f *facts) { f.deliveries[0].id, f.deliveries[1].id = "a.2", "a.1" }},
		{"late of a waiting tenant", "fanout: first deliveries", func(f *facts) {
			f.waits = append(f.waits, wait{place{1, 1}, place{0, 2}, "t"})
			f.deliveries[0].id, f.deliveries[1].id = "a.2", "a.1"
		}},
		{"nothing in overflow", "overflow:", func(f *facts) { f.waits = nil }},
		{"twice in overflow", "overflow:", func(f *facts) { f.waits = append(f.waits, f.waits[0]) }},
		{"no letter", "dead:", func(f *facts) { f.letters = nil }},
		{"a letter with another reason", "dead:", func(f *facts) { f.letters[0].reason = "too_large" }},
		{"a row too few", "ClickHouse events", func(f *facts) { delete(f.rowEvents, rowOfEvent(f.events[0])) }},
		{"a row too many", "ClickHouse events", func(f *facts) { f.rowEvents["9/9 t z"] = 1 }},
		{"a doubled row", "ClickHouse events", func(f *facts) { f.rowEvents[rowOfEvent(f.events[0])] = 2 }},
		{"another transition", "ClickHouse transitions", func(f *facts) { f.rowTransitions["0/0 t 0 0 dead"] = 1 }},
		{"a doubled transition", "ClickHouse transitions", func(f *facts) { f.rowTransitions[rowOfDecision(f.decisions[4])] = 2 }},
		{"a letter's row too few", "ClickHouse dead_letters", func(f *facts) { f.rowLetters = nil }},
		{"a doubled letter", "ClickHouse dead_letters", func(f *facts) { f.rowLetters[rowOfLetter(f.letters[0])]++ }},
		{"nothing was acknowledged", "events: everything", func(f *facts) { f.acks = nil }},
		{"nothing came", "events: appended", func(f *facts) { *f = facts{every: true} }},
		{"nothing was decided", "audit: one decision", func(f *facts) { *f = facts{every: true} }},
		{"nothing was let through", "fanout: one record", func(f *facts) { *f = facts{every: true} }},
		{"nothing was delivered", "fanout: cursors", func(f *facts) { f.deliveries = nil }},
		{"no sender counted", "fanout: first deliveries", func(f *facts) { f.deliveries = f.deliveries[:0] }},
		{"nothing waited", "overflow:", func(f *facts) { f.waits, f.decisions = nil, nil }},
		{"nothing died", "dead:", func(f *facts) { f.letters, f.decisions = nil, nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := sound()
			c.tamper(f)
			all := f.compare()
			i := slices.IndexFunc(all, func(x comparison) bool { return strings.HasPrefix(x.what, c.what) })
			if i < 0 || len(all[i].wrong) == 0 {
				t.Errorf("%q found nothing wrong", c.what)
			}
			var out strings.Builder
			if report(&out, all) == 0 || !strings.Contains(out.String(), "FAIL "+c.what) {
				t.Errorf("the report does not say so:\n%s", out.String())
			}
		})
	}
}

// Only what waited for its schema may come late, once in each region.
func TestOrderOfWhatWaited(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*facts)
		wrong  int
	}{
		{"for nothing", func(*facts) {}, 1},
		{"for its schema", func(f *facts) { f.await(place{0, 2}) }, 0},
		{"another one did", func(f *facts) { f.await(place{1, 3}) }, 1},
		{"in overflow", func(f *facts) {
			f.decisions = append(f.decisions, decision{origin: place{0, 2}, tenant: "t", status: "pending", path: "overflow", cursor: -1})
			f.waits = append(f.waits, wait{place{1, 1}, place{0, 2}, "t"})
		}, 1},
		{"two late for one that waited", func(f *facts) {
			f.deliveries[3].id = "a.0"
			f.decisions[4].origin = place{0, 2}
			f.await(place{0, 2})
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := sound()
			f.deliveries[0].id, f.deliveries[1].id = "a.2", "a.1"
			c.change(f)
			if got := f.order(); len(got.wrong) != c.wrong {
				t.Errorf("%d wrong, want %d: %q", len(got.wrong), c.wrong, got.wrong)
			}
		})
	}
}

// await has the event of an origin wait for its schema.
func (f *facts) await(origin place) {
	f.decisions = append(f.decisions, decision{origin: origin, status: "pending", path: "wait", cursor: -1})
}
