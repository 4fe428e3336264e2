package processors

import (
	"strings"

	"github.com/spillway/spillway/schemas"
)

// State is all that the line remembers about one partition of `events`: its
// clock, one ring of keys, and one small record a tenant. One goroutine owns
// it, so it needs no lock.
//
// Changes belong to a batch: Begin, any number of Walks, then Commit when the
// batch's outputs and offsets are committed, or Rollback when they are not.
//
// It is bounded: MaxKeys keys, the oldest of which are forgotten early (and
// counted) when there are more in a window; and a record for each tenant that
// control knows, swept when it was idle for a window.
type State struct {
	clock    int64 // ms: adds up what append times advance
	appended int64 // append time of the newest record
	ring     ring
	tenants  map[string]*tenant
	sweepAt  int   // number of tenants at which idle ones are looked for
	whole    int64 // hour of the clock whose whole record was packed; -1: none was

	batch  uint64 // number of the batch; see tenantOf
	undo   undo
	packed []byte // memory of Pack
}

type undo struct {
	clock, appended, whole int64
	ring                   ringMark
	tenants                []savedTenant
}

type savedTenant struct {
	of  *tenant
	was tenant
}

// A tenant is what is remembered of one tenant.
type tenant struct {
	name    string
	at      int64 // newest own time of its events, ms of the partition's clock
	day     int64 // UTC day that used counts, since 1970
	used    int64 // events let through on that day
	classes [2]class

	policy *schemas.Policy // limits were made from it; not remembered
	limits [2]limit
	batch  uint64 // in which it was saved last
}

// A class is the bucket of one class of a tenant.
type class struct {
	tat    instant // when the bucket is full again: all of GCRA's memory
	due    int64   // newest due time given, Unix ms; due times never decrease while behind
	behind int64   // events in overflow that have not come back
	grace  int64   // ms: largest lateness of events that wait; raises max_backlog
}

const sweepLeast = 1024

// NewState is the state of a partition of which nothing is remembered. maxKeys
// bounds the ring: 0 is DefaultMaxKey, more than MaxKeysBound is that.
func NewState(maxKeys int) *State {
	if maxKeys <= 0 {
		maxKeys = DefaultMaxKey
	}
	st := &State{ring: newRing(min(maxKeys, MaxKeysBound)), tenants: make(map[string]*tenant), sweepAt: sweepLeast, whole: -1}
	st.Begin()
	return st
}

// Clock is the partition's clock, Unix ms plus whatever the brokers' clocks
// have ever stepped back; 0 before the first record.
func (st *State) Clock() int64 { return st.clock }

// Appended is the append time of the newest record of the partition, Unix ms;
// 0 before the first one.
func (st *State) Appended() int64 { return st.appended }

// Stats is how much the state holds.
type Stats struct {
	Keys           int    // remembered
	Bytes          int    // of the ring, its index and its table of seconds
	ForgottenEarly uint64 // keys that left before their window for want of room
	Tenants        int
	Behind         int // tenants with events in overflow
}

// Stats counts; it walks all tenants.
func (st *State) Stats() Stats {
	s := Stats{Keys: st.ring.len(), Bytes: st.ring.bytes(), ForgottenEarly: st.ring.early, Tenants: len(st.tenants)}
	for _, t := range st.tenants {
		if t.classes[0].behind > 0 || t.classes[1].behind > 0 {
			s.Behind++
		}
	}
	return s
}

// Begin starts a batch: Rollback comes back to here.
func (st *State) Begin() {
	st.batch++
	st.undo.clock, st.undo.appended, st.undo.whole, st.undo.ring = st.clock, st.appended, st.whole, st.ring.mark()
	clear(st.undo.tenants)
	st.undo.tenants = st.undo.tenants[:0]
}

// Commit ends a batch whose decisions hold, and begins the next.
func (st *State) Commit() {
	st.ring.commit()
	if len(st.tenants) >= st.sweepAt {
		st.sweep()
	}
	st.Begin()
}

// Rollback takes back every decision since Begin, and begins the next batch.
func (st *State) Rollback() {
	st.clock, st.appended, st.whole = st.undo.clock, st.undo.appended, st.undo.whole
	st.ring.rollback(st.undo.ring)
	for _, s := range st.undo.tenants {
		*s.of = s.was
	}
	st.Begin()
}

func (st *State) sweep() {
	for name, t := range st.tenants {
		if t.idle(st.clock) {
			delete(st.tenants, name)
		}
	}
	st.sweepAt = max(sweepLeast, 2*len(st.tenants))
}

// idle: forgetting t changes no decision, not even about an event that is a
// whole Window late.
func (t *tenant) idle(clock int64) bool {
	oldest := clock - Window.Milliseconds()
	for i := range t.classes {
		if t.classes[i].behind > 0 || t.classes[i].tat.ceil() > oldest {
			return false
		}
	}
	return t.at < oldest && (t.used == 0 || t.day < dayOf(oldest))
}

// maxTime is the last millisecond whose second fits 32 bits, in 2106: what is
// beyond is not a time but a fault, and does not move the clock.
const maxTime = 1<<32*1000 - 1

// advance moves the clock by what append time a is later than the one before
// it. Where a steps back the clock stands, and goes on from there.
func (st *State) advance(a int64) {
	if a <= 0 || a > maxTime {
		return
	}
	switch {
	case st.clock == 0:
		st.clock = a
	case a > st.appended:
		st.clock = min(st.clock+a-st.appended, maxTime)
	}
	st.appended = a
	st.ring.expire(st.clock)
}

// tenantOf is the record of a tenant that control knows, saved for rollback.
func (st *State) tenantOf(name string) *tenant {
	t := st.tenants[name]
	if t == nil {
		t = &tenant{name: strings.Clone(name)} // name is a view of the record
		st.tenants[t.name] = t
	}
	if t.batch != st.batch {
		t.batch = st.batch
		st.undo.tenants = append(st.undo.tenants, savedTenant{t, *t})
	}
	return t
}

// note writes down what a decision means for the events to come.
func (st *State) note(ev *Event, v Verdict) {
	if v.letThrough() {
		st.admit(ev, v)
	}
	if ev.taken && ev.Return.Kind == schemas.Release {
		st.cameBack(ev)
	}
}

// admit: the event's key is remembered, its budget and token are spent.
func (st *State) admit(ev *Event, v Verdict) {
	if ev.keyed {
		st.ring.push(&ev.key, st.clock)
	}
	if !ev.asksBudget() {
		return
	}
	t := ev.tenant
	if day := dayOf(ev.at); day != t.day {
		t.day, t.used = day, 0
	}
	t.used++
	c := &t.classes[ev.classIndex()]
	c.tat, c.grace = ev.tat, ev.grace
	if v == Overflow {
		c.due = ev.Due
		c.behind++
	}
}

// cameBack: one event less in overflow; with the last one its tenant is no
// longer behind. If the policy has moved its type to the other class since, it
// is the other class that was waiting.
func (st *State) cameBack(ev *Event) {
	if st.tenants[ev.Tenant] == nil {
		return
	}
	t := st.tenantOf(ev.Tenant)
	c := &t.classes[ev.classIndex()]
	if c.behind == 0 {
		c = &t.classes[1-ev.classIndex()]
	}
	if c.behind > 0 {
		c.behind--
	}
	if c.behind == 0 {
		c.due = 0
	}
}
