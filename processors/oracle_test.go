package processors

import (
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spillway/spillway/schemas"
)

// An oracle is a second line for one partition, written from DESIGN.md 4 with
// nothing of the first: what was seen is a map of text, who waits is a list,
// buckets are rational numbers, a quota is a count for each day.
type oracle struct {
	part            int32
	world           *world
	clock, appended int64
	seen            map[string]int64 // identity: second in which it was remembered
	order           []string         // of seen, oldest first
	maxKeys         int
	tenants         map[string]*counted
	overflow        []waiting // events that have not come back
	stray           bool      // a release came of an event that was not in overflow
}

// counted is what a tenant has used.
type counted struct {
	at      int64           // newest own time of its events
	days    map[int64]int64 // events let through
	buckets [2]bucket
}

type bucket struct {
	full  *big.Rat // when it is full again
	grace int64    // the longest that the pipeline has kept what waits
	due   int64    // newest given
}

// waiting is an event in overflow.
type waiting struct {
	entry
	class schemas.Class
	due   int64
}

// An answer is what oracle and line must agree on.
type answer struct {
	step    string
	verdict Verdict
	reason  schemas.Reason
	due     int64
}

func newOracle(part int32, maxKeys int) *oracle {
	if maxKeys == 0 {
		maxKeys = DefaultMaxKey
	}
	return &oracle{part: part, maxKeys: maxKeys, seen: map[string]int64{}, tenants: map[string]*counted{}}
}

// tick: time is the log. The clock adds up what append times advance; a key is
// forgotten a window after the second in which it came.
func (o *oracle) tick(appended int64) {
	if o.clock == 0 {
		o.clock = appended
	} else {
		o.clock += max(0, appended-o.appended)
	}
	o.appended = appended
	for len(o.order) > 0 && o.clock/1000-o.seen[o.order[0]] >= 24*60*60 {
		o.forget()
	}
}

func (o *oracle) forget() {
	delete(o.seen, o.order[0])
	o.order = o.order[1:]
}

func (o *oracle) knows(id string) bool { _, ok := o.seen[id]; return ok }

func (o *oracle) remember(id string) {
	if len(o.order) == o.maxKeys {
		o.forget()
	}
	o.seen[id] = o.clock / 1000
	o.order = append(o.order, id)
}

// await: a "no" must be fresh, unless the event has waited a day.
func await(e *entry, noAge int64, wait, unknown schemas.Reason, step string) answer {
	age := e.at - e.origin().AcceptedAt
	if e.ret.Kind == schemas.Wait && (noAge >= 0 && noAge <= age || age >= 24*hour) {
		return answer{step, Dead, unknown, 0}
	}
	return answer{step, Wait, wait, 0}
}

// walk decides about e.
func (o *oracle) walk(e *entry) answer {
	o.tick(e.at)
	kind := e.ret.Kind
	if schemas.HomePartition([]byte(e.tenant), histories) != o.part {
		if kind == "" {
			return answer{"home", Forward, "", 0}
		}
		return answer{"home", Dead, schemas.NotHome, 0}
	}
	if kind == "" {
		return o.decide(e, false)
	}
	if o.knows(e.asReturn(kind)) {
		return answer{"home", Stale, schemas.StaleReturn, 0}
	}
	o.remember(e.asReturn(kind))
	a := o.decide(e, kind == schemas.Release || kind == schemas.Wait && o.knows(e.asReturn(schemas.Release)))
	if kind == schemas.Release {
		o.cameBack(e)
	}
	return a
}

func (o *oracle) cameBack(e *entry) {
	for i, w := range o.overflow {
		if w.identity() == e.identity() {
			o.overflow = append(o.overflow[:i:i], o.overflow[i+1:]...)
			return
		}
	}
	o.stray = true
}

// decide goes on after home; free: it was through dedupe, quota and rate before.
func (o *oracle) decide(e *entry, free bool) answer {
	if s := o.world.registry[e.schema]; s.schema == nil {
		return await(e, s.noAge, schemas.AwaitSchema, schemas.SchemaUnknown, "valid")
	}
	policy, ok := o.world.control.Policy(e.tenant)
	if !ok {
		return await(e, o.world.control.age, schemas.AwaitTenant, schemas.TenantUnknown, "tenant")
	}
	if policy.State != "active" {
		return answer{"tenant", Dead, schemas.TenantSuspended, 0}
	}
	class := schemas.Fast
	if e.priority == "slow" || e.priority == "" && policy.Types[e.kind].Class == "slow" {
		class = schemas.SlowClass
	}
	if free {
		return routed(e, policy, class)
	}
	id := e.dedupeBy()
	if replay := e.ret.Job != "" && e.ret.Generation == 0; replay { // it has a bucket of its own
		return o.admit(id, routed(e, policy, class))
	}
	t := o.tenants[e.tenant]
	if t == nil {
		t = &counted{days: map[int64]int64{}}
		o.tenants[e.tenant] = t
	}
	t.at = max(t.at, o.clock-e.late())
	if o.knows(id) {
		return o.admit(id, answer{})
	}
	day := t.at / (24 * hour)
	if policy.Quota > 0 && t.days[day] >= policy.Quota {
		return answer{"quota", Dead, schemas.OverQuota, 0}
	}
	rate, b := policy.Fast, &t.buckets[0]
	if class == schemas.SlowClass {
		rate, b = policy.Slow, &t.buckets[1]
	}
	behind := o.behind(e.tenant, class)
	after, a := b.rate(e, o.clock, t.at, rate, behind)
	if a.verdict == Keep {
		a = routed(e, policy, class)
	}
	if a = o.admit(id, a); a.letThrough() {
		t.days[day]++
		*b = after
	}
	if a.verdict == Overflow {
		o.overflow = append(o.overflow, waiting{*e, class, a.due})
	}
	return a
}

func (a answer) letThrough() bool {
	return a.verdict == Overflow || a.verdict == Deliver || a.verdict == Work
}

// admit: what is let through is remembered, and let through once.
func (o *oracle) admit(id string, a answer) answer {
	if id != "" && o.knows(id) {
		return answer{"dedupe", Duplicate, schemas.Duplicate, 0}
	}
	if id != "" && a.letThrough() {
		o.remember(id)
	}
	return a
}

// rate takes a token for e, whose own time is at, and says what b is then.
func (b bucket) rate(e *entry, clock, at int64, rate schemas.Rate, behind bool) (bucket, answer) {
	m := newModel(rate.Rate, rate.Burst)
	grace := at - (clock - e.late()) // only the pipeline keeps it so long
	if b.full != nil {
		if b.full.Cmp(big.NewRat(at, 1)) > 0 || behind {
			grace = max(grace, b.grace)
		}
		m.tat = roundUp(b.full, m.period.Denom())
	}
	full, wait := m.next(at)
	after := bucket{full, grace, b.due}
	left := max(0, at+wait-clock)
	switch {
	case wait > 0 && rate.Overflow == "drop":
		return b, answer{"rate", Dropped, schemas.RateLimited, 0}
	case wait > time.Duration(rate.MaxBacklog).Milliseconds()+grace:
		return b, answer{"rate", Dead, schemas.OverQuota, 0}
	case left == 0 && !behind:
		return after, answer{}
	}
	after.due = e.at + left
	if behind { // what it is given never decreases until it has caught up
		after.due = max(after.due, b.due)
	}
	if wait > 0 {
		return after, answer{"rate", Overflow, schemas.RateLimited, after.due}
	}
	return after, answer{"rate", Overflow, schemas.Behind, after.due}
}

// behind: some of what the tenant sent in this class has not come back.
func (o *oracle) behind(tenant string, class schemas.Class) bool {
	return slices.ContainsFunc(o.overflow, func(w waiting) bool { return w.tenant == tenant && w.class == class })
}

func routed(e *entry, policy *schemas.Policy, class schemas.Class) answer {
	switch {
	case class == schemas.SlowClass && policy.Types[e.kind].Endpoint == "":
		return answer{"route", Dead, schemas.NoRoute, 0}
	case class == schemas.SlowClass:
		return answer{"route", Work, "", 0}
	case e.region != "" && !strings.Contains(strings.Join(policy.Regions, " "), e.region):
		return answer{"route", Dead, schemas.NoRoute, 0}
	}
	return answer{"route", Deliver, "", 0}
}

// roundUp is the first multiple of 1/den at or after t: what a bucket's time
// becomes when its rate has changed.
func roundUp(t *big.Rat, den *big.Int) *big.Rat {
	n := new(big.Int).Mul(t.Num(), den)
	n.Add(n, new(big.Int).Sub(t.Denom(), big.NewInt(1)))
	return new(big.Rat).SetFrac(n.Div(n, t.Denom()), den)
}

// TestOracle: whatever the log, line and oracle answer the same.
func TestOracle(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(120) {
		maxKeys := []int{0, 0, 30}[seed%3]
		h := newHistory(rand.New(rand.NewPCG(seed, 5)), int32(seed)%histories, 1000, maxKeys)
		if i, want, got := h.differs(h.entries); i >= 0 {
			entries := h.shrink(h.entries[:i+1])
			i, want, got = h.differs(entries)
			t.Fatalf("seed %d: the oracle says %v, the line %v, about the last of\n%s", seed, want, got, h.story(entries[:i+1]))
		}
		for _, a := range h.answers {
			seen[fmt.Sprintf("%s %s %s", a.step, a.verdict, a.reason)] = true
		}
	}
	for _, want := range []string{
		"home forward ", "home stale stale_return", "home dead not_home", "valid wait await_schema", "valid dead schema_unknown",
		"tenant wait await_tenant", "tenant dead tenant_unknown", "tenant dead tenant_suspended", "dedupe duplicate duplicate",
		"quota dead over_quota", "rate overflow rate_limited", "rate overflow behind", "rate dropped rate_limited", "rate dead over_quota",
		"route deliver ", "route work ", "route dead no_route",
	} {
		if !seen[want] {
			t.Errorf("no log of this test has a decision %q", want)
		}
	}
}

// differs is the first entry about which line and oracle differ, and what they
// say; -1 if they do not, or if the log cannot be: it releases what never
// overflowed.
func (h *history) differs(entries []entry) (i int, want, got answer) {
	o, r, st := newOracle(h.part, h.maxKeys), newRunner(), NewState(h.maxKeys)
	for i := range entries {
		e := &entries[i]
		o.world = h.worldOf(e)
		want := o.walk(e)
		if o.stray {
			return -1, want, want
		}
		if got := r.walk(h, e, st); got != want {
			return i, want, got
		}
		st.sweepAt = 0 // idle tenants are forgotten at once
		st.Commit()
	}
	return -1, answer{}, answer{}
}

// shrink leaves out of a log what need not be there for the two to differ.
func (h *history) shrink(entries []entry) []entry {
	for n := len(entries) / 2; n > 0; {
		before := len(entries)
		for from := 0; from+n <= len(entries); {
			fewer := append(entries[:from:from], entries[from+n:]...)
			if i, _, _ := h.differs(fewer); i >= 0 {
				entries = fewer[:i+1]
			} else {
				from += n
			}
		}
		if n > 1 || len(entries) == before {
			n /= 2
		}
	}
	return entries
}

// story is a log as testdata has it.
func (h *history) story(entries []entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "partitions %d\nkeys %d\n", histories, h.maxKeys)
	told := map[string]string{}
	for i := range entries {
		e := &entries[i]
		say := "forget " + e.tenant
		if policy, ok := h.worldOf(e).control.Policy(e.tenant); ok {
			text, err := json.Marshal(policy)
			if err != nil {
				panic(err)
			}
			say = fmt.Sprintf("policy %s %s", e.tenant, text)
		}
		if told[e.tenant] != say {
			told[e.tenant] = say
			fmt.Fprintln(&b, say)
		}
		fmt.Fprintln(&b, e.story(h.part))
	}
	return b.String()
}
