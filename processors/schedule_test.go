package processors

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/spillway/spillway/schemas"
)

// TestDeterminism: a log has one outcome. Whatever the sizes of batches, which
// of them are aborted, when routers die and which of them owns a partition, the
// decisions are the same to the byte, and so is what a restore would remember.
func TestDeterminism(t *testing.T) {
	const logs, schedules = 10, 1000
	for seed := range uint64(logs) {
		var hs []*history
		for part := range int32(histories) {
			hs = append(hs, newHistory(rand.New(rand.NewPCG(seed, uint64(part))), part, 330, []int{0, 0, 30}[part]))
		}
		want := atOnce(t, hs)
		for n := range uint64(schedules / logs) {
			s := newSchedule(t, rand.New(rand.NewPCG(seed, n)), hs)
			got := s.run()
			if s.check(); t.Failed() || got != want {
				t.Fatalf("log %d, schedule %d: decided %x, at once %x", seed, n, got, want)
			}
		}
	}
}

// atOnce is the hash of all decisions when each world is one batch.
func atOnce(t *testing.T, hs []*history) [sha256.Size]byte {
	r, all := newRunner(), []byte(nil)
	for _, h := range hs {
		st := NewState(h.maxKeys)
		for i := range h.entries {
			e := &h.entries[i]
			if w := h.worldOf(e); w != r.world {
				st.Commit()
				r.world = w
			}
			d := r.decide(e, st)
			if a := (answer{d.Step, d.Verdict, d.Reason, r.ev.Due}); a != h.answers[i] {
				t.Fatalf("the oracle says %v, the line %v", h.answers[i], a)
			}
			all = appendDecision(all, &r.ev, d)
		}
	}
	return sha256.Sum256(all)
}

// A runner is a line and what it consults: the world of each entry.
type runner struct {
	line  Line
	ev    Event
	world *world
}

func newRunner() *runner {
	r := &runner{}
	line, err := New(Config{Partitions: histories, Key: []byte("0123456789abcdef"), Tenants: r, Schemas: r})
	if err != nil {
		panic(err)
	}
	r.line = line
	return r
}

func (r *runner) Policy(tenant string) (*schemas.Policy, bool) { return r.world.control.Policy(tenant) }
func (r *runner) Age() int64                                   { return r.world.control.age }
func (r *runner) Schema(id int32) (Schema, int64)              { return r.world.registry.Schema(id) }

func (r *runner) walk(h *history, e *entry, st *State) answer {
	r.world = h.worldOf(e)
	d := r.decide(e, st)
	return answer{d.Step, d.Verdict, d.Reason, r.ev.Due}
}

func (r *runner) decide(e *entry, st *State) Decision {
	value := append(schemas.AppendWireHeader(nil, e.schema), "{}"...)
	origin := schemas.Origin{Topic: schemas.TopicID{1}, Partition: e.partition, Offset: e.offset, AcceptedAt: e.at}
	r.ev.Reset(origin, "events", []byte(e.tenant), value)
	for _, h := range e.headers() {
		if h[1] != "" {
			r.ev.SetHeader(headersOf[h[0]], []byte(h[1]))
		}
	}
	if e.ret.Kind != "" {
		r.ev.Returned(e.ret)
	}
	return r.line.Walk(&r.ev, st)
}

// appendDecision appends all that a decision says.
func appendDecision(b []byte, ev *Event, d Decision) []byte {
	b = append(b, byte(d.Verdict))
	b = binary.AppendVarint(b, ev.Due)
	for _, s := range []string{d.Step, string(d.Reason), d.Detail, ev.Endpoint, ev.Channel, string(ev.JSON)} {
		b = append(append(b, s...), 0)
	}
	for _, region := range ev.Regions {
		b = append(append(b, region...), ',')
	}
	return append(b, '\n')
}

// TestBeganEmpty: when a partition begins empty, what was recorded before does
// not count.
func TestBeganEmpty(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 77))
		s := newSchedule(t, rng, []*history{newHistory(rng, 0, 30, 0), newHistory(rng, 0, 30, 0)})
		s.run()
		before, after := s.parts[0], s.parts[1]
		after.log.heads = append(before.log.heads, after.log.heads...)
		after.log.bytes = append(before.log.bytes, after.log.bytes...)
		s.same(after)
	}
}

// A schedule is how it went with a log once: two routers, each partition owned
// by one of them, batches that end well or badly.
type schedule struct {
	t       *testing.T
	rng     *rand.Rand
	routers [2]*runner
	parts   []*owned
}

// owned is a partition, its log of records and the state in its owner's memory.
type owned struct {
	*history
	owner     int
	st        *State
	next      int64  // committed offset
	log       packed // committed records
	decisions []byte // committed
}

func newSchedule(t *testing.T, rng *rand.Rand, hs []*history) *schedule {
	s := &schedule{t: t, rng: rng, routers: [2]*runner{newRunner(), newRunner()}}
	for _, h := range hs {
		s.parts = append(s.parts, &owned{history: h, owner: rng.IntN(2), st: NewState(h.maxKeys)})
	}
	return s
}

// run goes on until all is decided, and is the hash of all decisions.
func (s *schedule) run() [sha256.Size]byte {
	var all []byte
	size := 1 + s.rng.IntN(200) // of batches; some schedules have small ones only
	for unfinished := s.parts; len(unfinished) > 0; {
		i := s.rng.IntN(len(unfinished))
		if p := unfinished[i]; p.next < int64(len(p.entries)) {
			s.cycle(p, 1+s.rng.IntN(size))
		} else {
			unfinished = append(unfinished[:i:i], unfinished[i+1:]...)
		}
	}
	for _, p := range s.parts {
		all = append(all, p.decisions...)
	}
	return sha256.Sum256(all)
}

// cycle is one batch of at most n records: polled, decided, written, committed,
// or not.
func (s *schedule) cycle(p *owned, n int) {
	r := s.routers[p.owner]
	r.world = s.copy(p.worldOf(&p.entries[p.next]))
	to, decisions := p.next, p.decisions
	for range n {
		if to == int64(len(p.entries)) || p.worldOf(&p.entries[to]).from != r.world.from {
			break // a batch sees one world
		}
		d := r.decide(&p.entries[to], p.st)
		decisions = appendDecision(decisions, &r.ev, d)
		to++
	}
	fate := s.rng.IntN(24)
	var pending packed
	if fate > 1 {
		limit := []int{1 << 20, 300, 1}[s.rng.IntN(3)]
		p.st.Pack(Mark{From: p.next, To: to, Policies: r.world.from, Topic: schemas.TopicID{1}}, limit, pending.add)
	}
	switch fate {
	case 0, 2: // killed, before or after it wrote
		s.restore(p)
		return
	case 1, 3: // aborted
		p.st.Rollback()
		s.same(p)
		return
	}
	p.next, p.decisions = to, decisions
	p.log.heads, p.log.bytes = append(p.log.heads, pending.heads...), append(p.log.bytes, pending.bytes...)
	switch fate {
	case 4: // killed after the commit that it did not see
		s.restore(p)
		return
	case 5: // moved to the other router
		p.st.Commit()
		s.same(p)
		p.owner = 1 - p.owner
		s.restore(p)
		return
	}
	if fate < 9 {
		p.st.sweepAt = 0 // idle tenants are forgotten now
	}
	p.st.Commit()
}

// copy is a world as another process has it: the same words, other pointers.
func (s *schedule) copy(w *world) *world {
	if s.rng.IntN(4) > 0 {
		return w
	}
	c := &world{from: w.from, registry: w.registry, control: &fakeTenants{age: w.control.age, policies: map[string]*schemas.Policy{}}}
	for name, p := range w.control.policies {
		same := *p
		c.control.policies[name] = &same
	}
	return c
}

func (s *schedule) restore(p *owned) { p.st = p.log.restore(s.t, p.maxKeys) }

// same fails the test if a restore would not remember what p's owner does.
func (s *schedule) same(p *owned) {
	if p.next == 0 {
		return // all that there can be is names of tenants without anything
	}
	if why := differs(p.st, p.log.restore(s.t, p.maxKeys)); why != "" {
		s.t.Errorf("partition %d at offset %d: decided and restored differ: %s", p.part, p.next, why)
	}
}

// check looks at how the schedule ended.
func (s *schedule) check() {
	for _, p := range s.parts {
		s.same(p)
		var last Record
		for i, r := range p.log.heads {
			switch follows := r.From == last.To && !last.More && !r.Rest; {
			case r.Rest && (!last.More || r.From != last.From || r.To != last.To), !r.Rest && !follows:
				s.t.Errorf("partition %d: record %d is %+v after %+v", p.part, i, r, last)
			case r.Fresh != (i == 0):
				s.t.Errorf("partition %d: record %d says fresh=%t", p.part, i, r.Fresh)
			}
			last = r
		}
		if last.To != int64(len(p.entries)) || last.More {
			s.t.Errorf("partition %d: the records end with %+v, want offset %d", p.part, last, len(p.entries))
		}
	}
}
