package main

import (
	"cmp"
	"fmt"
	"regexp"
)

// facts is everything that was found.
type facts struct {
	regions    []string
	acks       []ack
	events     []event    // the topic, in order of partition and offset
	decisions  []decision // transitions in audit, likewise
	deliveries []delivery // fanout.<region>
	letters    []letter   // dead
	waits      []wait     // overflow

	rowEvents, rowTransitions, rowLetters rows // of ClickHouse

	every bool // there must be something to compare for each question
}

// A place is where a record lies in `events`.
type place struct {
	partition int32
	offset    int64
}

func (p place) String() string { return fmt.Sprintf("%d/%d", p.partition, p.offset) }

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.partition, q.partition), cmp.Compare(p.offset, q.offset))
}

// An event is a record of `events`.
type event struct {
	at                   place
	tenant, id, key      string
	region               string
	origin               place
	returned             string // kind of its spillway-return, "" at its first arrival
	appendTime, inOrigin bool   // the broker stamped it; its origin is of this topic
}

func (e event) String() string {
	return fmt.Sprintf("events %s %s %s %s", e.at, e.tenant, e.id, e.returned)
}

// A decision is a Transition of `audit`.
type decision struct {
	origin, in                                 place // in: where it lies in audit
	tenant, id, status, path, reason, ofReplay string
	generation, attempt                        int32
	home                                       int32
	cursor                                     int64
}

func (d decision) String() string {
	return fmt.Sprintf("audit %s: origin %s %s %s: %s %s %s cursor %d/%d", d.in, d.origin, d.tenant, d.id, d.status, d.path, d.reason, d.home, d.cursor)
}

// final: nothing more is decided about the event after it.
func (d decision) final() bool {
	return d.status != "pending" || d.path != "overflow" && d.path != "wait"
}

// through: the event was let through, so its key is taken.
func (d decision) through() bool {
	return d.status == "processing" || d.status == "pending" && d.path == "slow"
}

// A delivery is a record of fanout.<region>.
type delivery struct {
	region     string
	in         place
	epoch      string
	cursor     int64
	tenant, id string
}

func (d delivery) String() string {
	return fmt.Sprintf("fanout.%s %s: cursor %d %s %s", d.region, d.in, d.cursor, d.tenant, d.id)
}

// A letter is a record of `dead`.
type letter struct {
	in, origin     place
	tenant, reason string
}

func (l letter) String() string {
	return fmt.Sprintf("dead %s: origin %s %s %s", l.in, l.origin, l.tenant, l.reason)
}

// A wait is a record of `overflow`.
type wait struct {
	in, origin place
	tenant     string
}

func (w wait) String() string {
	return fmt.Sprintf("overflow %s: origin %s %s", w.in, w.origin, w.tenant)
}

// A row of ClickHouse is its identity as text, as rowOf… make it of records.
type row string

// rows are how many there are of each.
type rows map[row]int

func rowOfEvent(e event) row { return row(fmt.Sprintf("%s %s %s", e.at, legal(e.tenant), e.id)) }

func rowOfDecision(d decision) row {
	return row(fmt.Sprintf("%s %s %d %d %s %s %s %s %s", d.origin, d.tenant, d.generation, d.attempt, d.status, d.path, d.reason, d.ofReplay, d.id))
}

func rowOfLetter(l letter) row {
	return row(fmt.Sprintf("%s %s %s", l.origin, legal(l.tenant), l.reason))
}

// legal is a tenant's name as tables have it: what cannot be one is none.
func legal(tenant string) string {
	if !legalTenant.MatchString(tenant) {
		return ""
	}
	return tenant
}

var legalTenant = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
