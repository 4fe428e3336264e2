package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A comparison is one question to all records, and those for which the answer
// is wrong.
type comparison struct {
	what     string
	compared int
	note     string
	wrong    []string
}

func (c *comparison) failf(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

// compare asks all questions.
func (f *facts) compare() []comparison {
	slices.SortFunc(f.events, func(a, b event) int { return a.at.compare(b.at) })
	slices.SortFunc(f.decisions, func(a, b decision) int { return a.in.compare(b.in) })
	all := []comparison{
		f.stamped(), f.acknowledged(), f.decided(), f.keys(), f.delivered(), f.cursors(), f.order(), f.waited(), f.died(),
		sameRows("ClickHouse events: a row for each first arrival", rowsOf(f.firstArrivals(), rowOfEvent), f.rowEvents),
		sameRows("ClickHouse transitions: a row for each decision", rowsOf(f.decisions, rowOfDecision), f.rowTransitions),
		sameRows("ClickHouse dead_letters: a row for each letter", rowsOf(f.letters, rowOfLetter), f.rowLetters),
	}
	for i := range all {
		if f.every && all[i].compared == 0 {
			all[i].failf("there was nothing to compare")
		}
	}
	return all
}

func (f *facts) firstArrivals() []event {
	var out []event
	for _, e := range f.events {
		if e.returned == "" {
			out = append(out, e)
		}
	}
	return out
}

// stamped: each record of `events` has the broker's time, not its producer's.
func (f *facts) stamped() comparison {
	c := comparison{what: "events: appended with the broker's time", compared: len(f.events)}
	for _, e := range f.events {
		if !e.appendTime {
			c.failf("%s has its producer's time", e)
		}
		if !e.inOrigin {
			c.failf("%s names an origin that is not of this topic", e)
		}
	}
	return c
}

// acknowledged: what the sender was promised is in `events`, where it was said.
func (f *facts) acknowledged() comparison {
	c := comparison{what: "events: everything that was acknowledged", compared: len(f.acks)}
	byPlace, byID := map[place]event{}, map[string]bool{}
	for _, e := range f.firstArrivals() {
		byPlace[e.at], byID[e.tenant+" "+e.id] = e, true
	}
	for _, a := range f.acks {
		at := place{a.Partition, a.Offset}
		switch e, ok := byPlace[at]; {
		case a.Offset < 0 && byID[a.Tenant+" "+a.ID]:
		case !ok:
			c.failf("%s of %s was acknowledged by %s as %s: nothing is there", a.ID, a.Tenant, a.Via, at)
		case e.tenant != a.Tenant || e.id != a.ID:
			c.failf("%s of %s was acknowledged by %s as %s, where %s is", a.ID, a.Tenant, a.Via, at, e)
		}
	}
	return c
}

// decided: each event has one last word, however often it came back.
func (f *facts) decided() comparison {
	c := comparison{what: "audit: one decision about each event"}
	words := map[place][]decision{}
	for _, d := range f.decisions {
		if d.final() {
			words[d.origin] = append(words[d.origin], d)
		}
	}
	for _, e := range f.firstArrivals() {
		c.compared++
		said := words[e.at]
		delete(words, e.at)
		switch {
		case len(said) == 0:
			c.failf("%s: no decision", e)
		case len(said) > 1:
			c.failf("%s: %d decisions: %s; %s", e, len(said), said[0], said[1])
		}
	}
	for _, said := range words {
		c.failf("%s: no such event", said[0])
	}
	return c
}

// keys: of the events with one idempotency key one is let through and the
// others are duplicates.
func (f *facts) keys() comparison {
	c := comparison{what: "audit: one event of each idempotency key let through"}
	keyOf := map[place]string{}
	for _, e := range f.firstArrivals() {
		if e.key != "" {
			keyOf[e.at] = e.tenant + " " + e.key
		}
	}
	through, repeats := map[string][]decision{}, map[string]decision{}
	for _, d := range f.decisions {
		key := keyOf[d.origin]
		switch {
		case key == "":
		case d.through():
			if !slices.ContainsFunc(through[key], func(t decision) bool { return t.origin == d.origin }) {
				through[key] = append(through[key], d)
			}
		case d.status == "duplicate":
			repeats[key] = d
		}
	}
	for key, said := range through {
		c.compared++
		if len(said) > 1 {
			c.failf("%s was let through %d times: %s; %s", key, len(said), said[0], said[1])
		}
	}
	for key, d := range repeats {
		c.compared++
		if len(through[key]) == 0 {
			c.failf("%s: a duplicate of nothing that was let through", d)
		}
	}
	return c
}

// delivered: each decision to let through on the fast path is one record in
// each region, and nothing else is there.
func (f *facts) delivered() comparison {
	c := comparison{what: "fanout: one record for each event let through, in its regions"}
	type spot struct {
		region string
		at     place
	}
	eventAt := map[place]event{}
	for _, e := range f.events {
		eventAt[e.at] = e
	}
	have := map[spot][]delivery{}
	for _, d := range f.deliveries {
		k := spot{d.region, place{d.in.partition, d.cursor}}
		have[k] = append(have[k], d)
	}
	for _, d := range f.decisions {
		if d.status != "processing" || d.path != "fast" {
			continue
		}
		at := place{d.home, d.cursor}
		e, ok := eventAt[at]
		if !ok || e.origin != d.origin {
			c.failf("%s: its cursor is no record of this event", d)
			continue
		}
		regions := f.regions
		if e.region != "" {
			regions = []string{e.region}
		}
		for _, region := range regions {
			c.compared++
			k := spot{region, at}
			got := have[k]
			delete(have, k)
			switch {
			case len(got) != 1:
				c.failf("%s: %d records in fanout.%s", d, len(got), region)
			case got[0].tenant != e.tenant || got[0].id != e.id:
				c.failf("%s is in place of %s", got[0], e)
			}
		}
	}
	for _, got := range have {
		c.failf("%s: no decision let it through", got[0])
	}
	return c
}

// cursors: along a partition they only grow, in one epoch.
func (f *facts) cursors() comparison {
	c := comparison{what: "fanout: cursors grow along a partition", compared: len(f.deliveries)}
	last := map[string]delivery{}
	for _, d := range f.deliveries {
		k := d.region + "/" + strconv.Itoa(int(d.in.partition))
		before, ok := last[k]
		if ok && (before.in.offset >= d.in.offset || before.cursor >= d.cursor || before.epoch != d.epoch) {
			c.failf("%s behind %s", d, before)
		}
		last[k] = d
	}
	return c
}

// order: a sender's ids end in .N, which counts up along a channel. What comes
// for the first time comes in that order, also of a tenant that waits in
// overflow; only what had to wait for its schema or tenant comes later (DESIGN,
// section 1).
func (f *facts) order() comparison {
	c := comparison{what: "fanout: first deliveries of a channel in the sender's order"}
	origins, excuses := map[place]place{}, map[place]int{} // by cursor; by origin: in how many regions it may be late
	for _, d := range f.decisions {
		if d.cursor >= 0 {
			origins[place{d.home, d.cursor}] = d.origin
		}
		if d.path == "wait" {
			excuses[d.origin] = len(f.regions)
		}
	}
	seen, highest := map[string]bool{}, map[string]int{}
	late, waited := 0, len(excuses)
	for _, d := range f.deliveries {
		dot := strings.LastIndexByte(d.id, '.')
		n, err := strconv.Atoi(d.id[dot+1:])
		if id := d.region + " " + d.tenant + " " + d.id; err != nil || dot < 0 || seen[id] {
			continue
		} else {
			seen[id] = true
		}
		c.compared++
		k := d.region + " " + d.tenant + " " + d.id[:dot]
		if n < highest[k] {
			origin, known := origins[place{d.in.partition, d.cursor}]
			if known && excuses[origin] > 0 {
				excuses[origin]--
				late++
			} else {
				c.failf("%s behind number %d", d, highest[k])
			}
		}
		highest[k] = max(highest[k], n)
	}
	c.note = fmt.Sprintf(" (%d late of the %d that had waited for their schema)", late, waited)
	return c
}

// waited: each decision that an event must wait is one record of overflow.
func (f *facts) waited() comparison {
	want := map[string]int{}
	for _, d := range f.decisions {
		if d.status == "pending" && d.path == "overflow" {
			want[d.origin.String()+" "+d.tenant]++
		}
	}
	have := map[string]int{}
	for _, w := range f.waits {
		have[w.origin.String()+" "+w.tenant]++
	}
	return sameCounts("overflow: a record for each decision to wait", want, have)
}

// died: each decision that an event is dead is one letter.
func (f *facts) died() comparison {
	want, have := map[string]int{}, map[string]int{}
	for _, d := range f.decisions {
		if d.status == "dead" {
			want[d.origin.String()+" "+d.reason]++
		}
	}
	for _, l := range f.letters {
		have[l.origin.String()+" "+l.reason]++
	}
	return sameCounts("dead: a letter for each decision that says so", want, have)
}

func sameCounts(what string, want, have map[string]int) comparison {
	c := comparison{what: what, compared: len(want)}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if have[k] != want[k] {
			c.failf("%s: %d, want %d", k, have[k], want[k])
		}
	}
	for _, k := range slices.Sorted(maps.Keys(have)) {
		if want[k] == 0 {
			c.failf("%s: %d, want none", k, have[k])
		}
	}
	return c
}
