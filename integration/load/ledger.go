package load

import (
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Ledger compares what arrives with the plan. Each event is expected twice:
// by its channel's exact subscriber and by its tenant's "*" subscriber.
//
// Got may be called from many goroutines.
type Ledger struct {
	plan *Plan
	run  string
	rows [2][]row // by kind of subscriber, by request

	Quiet, HTTP, NoisyLatency latencies // HTTP: those of Quiet that came over HTTP
}

// The two kinds of subscriber.
const (
	Exact = 0
	Star  = 1
)

// A row is what one subscriber has seen of one request.
type row struct {
	mu      sync.Mutex
	seen    []uint64 // bit per seq
	got     int
	next    int // one past the highest seq seen
	doubled int
	late    int // arrived after a later one: out of order
}

// NewLedger opens the ledger of a run.
func NewLedger(p *Plan, run string) *Ledger {
	l := &Ledger{plan: p, run: run}
	for kind := range l.rows {
		l.rows[kind] = make([]row, len(p.Requests))
		for i := range p.Requests {
			l.rows[kind][i].seen = make([]uint64, (p.Requests[i].Events+63)/64)
		}
	}
	return l
}

// EventID is the id of event seq of request req.
func EventID(run string, req, seq int) string {
	return run + "-" + strconv.Itoa(req) + "-" + strconv.Itoa(seq)
}

// parseID is EventID's inverse; ok is false for an event of another run.
func (l *Ledger) parseID(id string) (req, seq int, ok bool) {
	rest, ok := strings.CutPrefix(id, l.run+"-")
	if !ok {
		return 0, 0, false
	}
	a, b, ok := strings.Cut(rest, "-")
	if !ok {
		return 0, 0, false
	}
	req, err := strconv.Atoi(a)
	if err != nil || req < 0 || req >= len(l.plan.Requests) {
		return 0, 0, false
	}
	seq, err = strconv.Atoi(b)
	return req, seq, err == nil && seq >= 0 && seq < l.plan.Requests[req].Events
}

// A Sight is what the ledger makes of an event that a subscriber received.
type Sight int

const (
	First    Sight = iota // expected, and new to this kind of subscriber
	Again                 // expected, and seen before
	Stranger              // of no run of ours, or of an earlier one
	Foreign               // of this run, but another tenant's or channel's: it must never be seen
)

// Got notes that a subscriber of a tenant's channel ("*" for all) received
// event id at since the run's start.
func (l *Ledger) Got(tenant, channel, id string, at time.Duration) Sight {
	req, seq, ok := l.parseID(id)
	if !ok {
		return Stranger
	}
	p := &l.plan.Requests[req]
	kind := Star
	if channel != "*" {
		kind = Exact
	}
	if p.Tenant != tenant || kind == Exact && p.Channel != channel {
		return Foreign
	}
	r := &l.rows[kind][req]
	r.mu.Lock()
	first := r.note(seq)
	r.mu.Unlock()
	if !first {
		return Again
	}
	if p.Noisy {
		l.NoisyLatency.add(at - p.Due(seq))
	} else {
		l.Quiet.add(at - p.Due(seq))
		if !p.Kafka {
			l.HTTP.add(at - p.Due(seq))
		}
	}
	return First
}

func (r *row) note(seq int) (first bool) {
	word, bit := seq/64, uint64(1)<<(seq%64)
	if r.seen[word]&bit != 0 {
		r.doubled++
		return false
	}
	r.seen[word] |= bit
	r.got++
	if seq < r.next {
		r.late++
	} else {
		r.next = seq + 1
	}
	return true
}

// Done reports whether the exact subscriber of request req has all of it.
func (l *Ledger) Done(kind, req int) bool {
	r := &l.rows[kind][req]
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got == l.plan.Requests[req].Events
}

// A Tally is a ledger's sum over some requests and one kind of subscriber.
type Tally struct {
	Expected   int `json:"expected"`
	Delivered  int `json:"delivered"`
	Lost       int `json:"lost"`
	Doubled    int `json:"doubled"`
	OutOfOrder int `json:"out_of_order"`
}

// Sum adds up what subscribers of a kind saw, of the noisy tenant or of the
// quiet ones.
func (l *Ledger) Sum(kind int, noisy bool) Tally {
	var t Tally
	for i := range l.rows[kind] {
		if l.plan.Requests[i].Noisy != noisy {
			continue
		}
		r := &l.rows[kind][i]
		r.mu.Lock()
		t.Expected += l.plan.Requests[i].Events
		t.Delivered += r.got
		t.Doubled += r.doubled
		t.OutOfOrder += r.late
		r.mu.Unlock()
	}
	t.Lost = t.Expected - t.Delivered
	return t
}
