package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spillway/spillway/schemas"
)

// A Story is all that happened to the events of one id.
type Story struct {
	ID     string    `json:"event_id"`
	From   string    `json:"from"` // who told it
	Events []Account `json:"events"`
	More   bool      `json:"more,omitempty"` // more events have this id than are told
}

// An Account is what happened to one event, that is to one origin.
type Account struct {
	Tenant     string    `json:"tenant"`
	ID         string    `json:"event_id"`
	Origin     string    `json:"origin"`
	AcceptedAt time.Time `json:"accepted_at"`
	Type       string    `json:"type,omitempty"`
	Channel    string    `json:"channel,omitempty"`
	Source     string    `json:"source,omitempty"`
	TraceID    string    `json:"trace_id,omitempty"`
	Time       string    `json:"time,omitempty"` // when it occurred, as the producer wrote it
	SchemaID   int32     `json:"schema_id"`      // -1: the value has none, or is not known
	Bytes      int       `json:"bytes,omitempty"`

	Status string         `json:"status"` // as v_status_now says it
	Reason schemas.Reason `json:"reason,omitempty"`
	Advice string         `json:"advice,omitempty"` // what to do, if something is to be done
	Steps  []Step         `json:"steps"`
}

// A Step is one thing that happened.
type Step struct {
	At         time.Time      `json:"at"`
	AfterUS    int64          `json:"after_us"` // since it was accepted
	What       string         `json:"what"`     // a word or two
	Text       string         `json:"text"`     // a sentence
	Reason     schemas.Reason `json:"reason,omitempty"`
	Path       string         `json:"path,omitempty"`
	Generation int32          `json:"generation,omitempty"`
	Attempt    int32          `json:"attempt,omitempty"`
	Sessions   int32          `json:"sessions,omitempty"`
	Node       string         `json:"node,omitempty"`
	Replay     string         `json:"replay,omitempty"`

	rank int // breaks ties of AfterUS
}

// place is an origin without its time: the identity.
type place struct {
	topic     schemas.TopicID
	partition int32
	offset    int64
}

func placeOf(o schemas.Origin) place { return place{o.Topic, o.Partition, o.Offset} }

// gathered is the facts of one event.
type gathered struct {
	accepted    *Accepted
	origin      schemas.Origin
	tenant, id  string
	now         int64
	transitions []schemas.Transition
	letters     []Letter
	receipts    []Receipt
}

// tell makes a story of facts, in whatever order and however often they come.
func tell(f Facts) Story {
	events := map[place]*gathered{}
	at := func(o schemas.Origin, tenant, id string) *gathered {
		g := events[placeOf(o)]
		if g == nil {
			g = &gathered{origin: o, tenant: tenant, id: id, now: f.Now}
			events[placeOf(o)] = g
		}
		return g
	}
	for i := range f.Accepted {
		a := &f.Accepted[i]
		at(a.Origin, a.Tenant, a.ID).accepted = a
	}
	for _, t := range f.Transitions {
		g := at(t.Origin, t.Tenant, t.EventID)
		g.id = t.EventID // route may have taken it from the payload
		if !slices.Contains(g.transitions, t) {
			g.transitions = append(g.transitions, t)
		}
	}
	for _, l := range f.Letters {
		g := at(l.Origin, l.Tenant, l.ID)
		if !slices.Contains(g.letters, l) {
			g.letters = append(g.letters, l)
		}
	}
	s := Story{More: f.More}
	for _, g := range events {
		g.claim(f.Receipts)
		s.Events = append(s.Events, g.account())
	}
	slices.SortFunc(s.Events, func(a, b Account) int {
		return cmp.Or(a.AcceptedAt.Compare(b.AcceptedAt), strings.Compare(a.Origin, b.Origin))
	})
	return s
}

// claim takes the receipts that are about this event.
func (g *gathered) claim(all []Receipt) {
	for _, t := range g.transitions {
		if t.Cursor < 0 {
			continue
		}
		epoch := schemas.Epoch(t.Origin.Topic, t.Home)
		for _, r := range all {
			if r.Tenant == t.Tenant && r.Home == t.Home && r.Epoch == epoch && r.Cursor == t.Cursor && !slices.Contains(g.receipts, r) {
				g.receipts = append(g.receipts, r)
			}
		}
	}
}

func (g *gathered) account() Account {
	a := Account{
		Tenant: g.tenant, ID: g.id, Origin: g.origin.String(), AcceptedAt: time.UnixMilli(g.origin.AcceptedAt).UTC(), SchemaID: -1,
	}
	if e := g.accepted; e != nil {
		a.Type, a.Channel, a.Source, a.TraceID, a.Time, a.SchemaID, a.Bytes = e.Type, e.Channel, e.Source, e.TraceID, e.Time, e.SchemaID, e.Bytes
	}
	a.Steps = append(a.Steps, g.acceptedStep())
	for i := range g.transitions {
		a.Steps = append(a.Steps, g.decided(&g.transitions[i]))
	}
	for i := range g.letters {
		a.Steps = append(a.Steps, g.buried(&g.letters[i]))
	}
	for i := range g.receipts {
		a.Steps = append(a.Steps, g.received(&g.receipts[i]))
	}
	slices.SortStableFunc(a.Steps, func(x, y Step) int { return cmp.Or(cmp.Compare(x.AfterUS, y.AfterUS), cmp.Compare(x.rank, y.rank)) })
	a.Status, a.Reason = g.status()
	a.Advice = advice[a.Reason]
	if a.Status == "unclaimed" {
		a.Advice = "nobody was subscribed to its channel then; a client that resumes with an older cursor still gets it"
	}
	return a
}

// status is where the event stands, and why.
func (g *gathered) status() (string, schemas.Reason) {
	last := g.newest()
	switch {
	case last == nil && len(g.letters) > 0:
		return schemas.DeadStatus.String(), g.letters[0].Reason
	case last == nil:
		return schemas.Pending.String(), ""
	case last.Status == schemas.Processing && last.Path == "fast":
		return g.fastStatus(last), last.Reason
	}
	return last.Status.String(), last.Reason
}

// fastStatus: on the fast path route's word is the last; receipts say the rest,
// and after a minute without one nobody was there.
func (g *gathered) fastStatus(last *schemas.Transition) string {
	for _, r := range g.receipts {
		if r.Sessions > 0 {
			return schemas.Delivered.String()
		}
	}
	if g.now < last.At+time.Minute.Milliseconds() {
		return schemas.Processing.String()
	}
	return "unclaimed"
}

// newest is the transition that says where the event stands: what a replay or
// a stale return did says nothing about it.
func (g *gathered) newest() (last *schemas.Transition) {
	for i := range g.transitions {
		t := &g.transitions[i]
		if t.Reason == schemas.StaleReturn || t.Replay != "" && t.Generation == 0 {
			continue
		}
		if last == nil || order(t, last) > 0 {
			last = t
		}
	}
	return last
}

// order is DESIGN's order of statuses: generation, attempt, rank; then time.
func order(a, b *schemas.Transition) int {
	return cmp.Or(cmp.Compare(a.Generation, b.Generation), cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Status, b.Status), cmp.Compare(a.At, b.At))
}

func (g *gathered) step(at int64, afterUS int64, what string) Step {
	if afterUS < 0 {
		afterUS = (at - g.origin.AcceptedAt) * 1000
	}
	return Step{At: time.UnixMilli(at).UTC(), AfterUS: max(afterUS, 0), What: what}
}

func (g *gathered) acceptedStep() Step {
	s := g.step(g.origin.AcceptedAt, 0, "accepted")
	s.Text = fmt.Sprintf("into events, partition %d, offset %d", g.origin.Partition, g.origin.Offset)
	if g.accepted == nil {
		s.Text += "; its payload is not kept here any more, or not yet"
	}
	return s
}

// decided is a transition as a step.
func (g *gathered) decided(t *schemas.Transition) Step {
	s := g.step(t.At, t.LatencyUS, phrase(t))
	s.Reason, s.Path, s.Generation, s.Attempt, s.Node, s.Replay, s.rank = t.Reason, t.Path, t.Generation, t.Attempt, t.Node, t.Replay, int(t.Status)
	s.Text = meaning(t)
	if why := t.Reason.Text(); why != "" {
		s.Text = join(s.Text, why)
	} else if t.Reason != "" {
		s.Text = join(s.Text, "reason "+string(t.Reason))
	}
	if t.Generation > 0 {
		s.Text = join(s.Text, "redrive "+strconv.Itoa(int(t.Generation)))
	}
	if t.Replay != "" {
		s.Text = join(s.Text, "job "+t.Replay)
	}
	return s
}

func (g *gathered) buried(l *Letter) Step {
	s := g.step(l.At, -1, "dead letter")
	s.Reason, s.Generation, s.Attempt, s.rank = l.Reason, l.Generation, l.Attempt, 10
	s.Text = "kept in dead"
	if l.Step != "" {
		s.Text = join(s.Text, "step "+l.Step)
	}
	s.Text = join(s.Text, l.Error)
	return s
}

// What a receipt tells of: sessions that were there, and those that came for it
// later, with an older cursor or from the beginning.
const (
	delivered = "delivered"
	fetched   = "fetched"
)

func (g *gathered) received(r *Receipt) Step {
	s := g.step(r.At, (r.Appended-g.origin.AcceptedAt)*1000+r.LatencyUS, delivered)
	if r.LatencyUS > time.Minute.Microseconds() {
		s.What = fetched
	}
	s.At = time.UnixMilli(r.Appended).Add(time.Duration(r.LatencyUS) * time.Microsecond).UTC()
	s.Sessions, s.Node, s.rank = r.Sessions, r.Node, 9
	s.Text = fmt.Sprintf("to %s in region %s, the slowest %s after the append", plural(int(r.Sessions), "session"), r.Region, micros(r.LatencyUS))
	return s
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return strconv.Itoa(n) + " " + word + "s"
}

// micros is a duration with three digits that count.
func micros(us int64) string {
	d := time.Duration(us) * time.Microsecond
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", float64(us)/1e3)
	case d < time.Second:
		return fmt.Sprintf("%.1f ms", float64(us)/1e3)
	case d < time.Minute:
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
