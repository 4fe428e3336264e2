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
	note     string // what was allowed
	wrong    []string
}

func (c *comparison) failf(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

// most: what is allowed for a reason has a number beyond which the reason does
// not explain it.
func (c *comparison) most(allowed, explained int, what string) {
	if allowed > explained {
		c.failf("%d %s: at most %d can be", allowed, what, explained)
	}
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

const (
	// openAtDeath is how many events a death of route may find between their
	// first copy and their second: the sender of the rounds has nine streams,
	// each with one event under way. 50 rounds had 2 in all.
	openAtDeath = 9
	// waitingAtDeath is how many of one sender's events wait in overflow at once:
	// they come in bursts of 15, two of them at a time.
	waitingAtDeath = 30
)

// decided: each event has one last word. More are allowed only where route has
// forgotten in between that the event had come back before.
func (f *facts) decided() comparison {
	c := comparison{what: "audit: one decision about each event"}
	words := map[place][]decision{}
	for _, d := range f.decisions {
		if d.final() {
			words[d.origin] = append(words[d.origin], d)
		}
	}
	came := map[place]int{}
	for _, e := range f.events {
		came[e.origin]++
	}
	allowed := 0
	for _, e := range f.firstArrivals() {
		c.compared++
		said := words[e.at]
		delete(words, e.at)
		switch {
		case len(said) == 0:
			c.failf("%s: no decision", e)
		case len(said) > came[e.at]:
			c.failf("%s: %d decisions about %d records, the second: %s", e, len(said), came[e.at], said[1])
		case len(said) > 1 && !f.forgotBetween(said):
			c.failf("%s: %d decisions, and route did not die in between: %s; %s", e, len(said), said[0], said[1])
		case len(said) > 1:
			allowed += len(said) - 1
		}
	}
	for _, said := range words {
		c.failf("%s: no such event", said[0])
	}
	c.note = fmt.Sprintf(" (%d repeated over a death of route)", allowed)
	c.most(allowed, openAtDeath*f.deaths(), "repeated over a death of route")
	return c
}

// forgotBetween: route was dead between each two of these decisions.
func (f *facts) forgotBetween(said []decision) bool {
	slices.SortFunc(said, func(a, b decision) int { return int(a.decided - b.decided) })
	for i := range said[1:] {
		if !f.forgot(said[i].decided, said[i+1].decided) {
			return false
		}
	}
	return true
}

// keys: of the events with one idempotency key one is let through and the
// others are duplicates, unless route has forgotten the key in between.
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
	allowed := 0
	for key, said := range through {
		c.compared++
		if len(said) > 1 && !f.forgotBetween(said) {
			c.failf("%s was let through %d times, and route did not die in between: %s; %s", key, len(said), said[0], said[1])
		}
		allowed += len(said) - 1
	}
	for key, d := range repeats {
		c.compared++
		if len(through[key]) == 0 {
			c.failf("%s: a duplicate of nothing that was let through", d)
		}
	}
	near := f.repeatsNearDeaths()
	c.note = fmt.Sprintf(" (%d repeated over a death of route, near which %d repeats came)", allowed, near)
	c.most(allowed, openAtDeath*f.deaths()+near/3, "repeated over a death of route")
	return c
}

// repeatsNearDeaths are the events that came with a key that had come before,
// while route was dead or had only just begun anew.
func (f *facts) repeatsNearDeaths() (n int) {
	seen := map[string]bool{}
	for _, e := range f.firstArrivals() {
		if k := e.tenant + " " + e.key; e.key != "" {
			if seen[k] && f.forgot(e.appended, e.appended) {
				n++
			}
			seen[k] = true
		}
	}
	return n
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
// for the first time comes in that order. A tenant that waits in overflow keeps
// it for as long as route remembers that it waits; what had to wait for its
// schema or tenant comes later (DESIGN, section 1).
func (f *facts) order() comparison {
	c := comparison{what: "fanout: first deliveries of a channel in the sender's order"}
	waits := map[string]bool{}
	for _, w := range f.waits {
		waits[w.tenant] = true
	}
	sent := map[string]int64{} // first append by tenant and id
	for _, e := range f.firstArrivals() {
		k := e.tenant + " " + e.id
		if at, ok := sent[k]; !ok || e.appended < at {
			sent[k] = e.appended
		}
	}
	said, excuses := map[place]decision{}, map[place]int{} // by origin: in how many regions it may be late
	for _, d := range f.decisions {
		if d.cursor >= 0 {
			said[place{d.home, d.cursor}] = d
		}
		if d.path == "wait" {
			excuses[d.origin] = len(f.regions)
		}
	}
	seen, highest := map[string]bool{}, map[string]int{}
	allowed, late, waited := 0, 0, len(excuses)
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
			word := said[place{d.in.partition, d.cursor}]
			switch {
			case excuses[word.origin] > 0:
				excuses[word.origin]--
				late++
			case waits[d.tenant] && f.forgot(sent[d.tenant+" "+d.id], word.decided):
				allowed++
			default:
				c.failf("%s behind number %d", d, highest[k])
			}
		}
		highest[k] = max(highest[k], n)
	}
	c.note = fmt.Sprintf(" (%d late over a death of route, %d of the %d that had waited for their schema)", allowed, late, waited)
	c.most(allowed, waitingAtDeath*f.deaths(), "late over a death of route")
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
