package processors

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/spillway/spillway/schemas"
)

// histories is how many partitions of events there are, each with a history.
const histories = 3

// A history is the log of one partition: some days of several tenants with all
// kinds of policies, brokers whose clocks step, routers that were late, and
// what Spillway brings back. Its returns are what its own oracle asked for.
type history struct {
	part    int32
	maxKeys int
	worlds  []*world // in the order in which they come
	entries []entry
	answers []answer // the oracle's
}

// A world is what control and registry say from one entry on.
type world struct {
	from     int64 // offset
	control  *fakeTenants
	registry fakeSchemas
}

// An entry is one record.
type entry struct {
	offset, at                                      int64
	tenant, id, key, kind, region, priority, insist string
	schema                                          int32
	ret                                             schemas.Return
	partition                                       int32 // where it lies
}

func (e *entry) origin() schemas.Origin {
	if e.ret.Kind != "" {
		return e.ret.Origin
	}
	return schemas.Origin{Topic: schemas.TopicID{1}, Partition: e.partition, Offset: e.offset, AcceptedAt: e.at}
}

// late is for how long only the pipeline kept it; what is beyond a day counts
// as a day.
func (e *entry) late() int64 {
	if e.ret.Kind != schemas.Forward && e.ret.Kind != schemas.Wait {
		return 0
	}
	return min(max(0, e.at-e.ret.Origin.AcceptedAt), 24*hour)
}

// identity: where it first arrived, which life of it, for which job.
func (e *entry) identity() string {
	o := e.origin()
	return fmt.Sprint(o.Partition, " ", o.Offset, " ", e.ret.Generation, " ", e.ret.Job)
}

func (e *entry) asReturn(kind schemas.ReturnKind) string {
	if kind == schemas.Wait {
		return fmt.Sprint("return ", kind, e.identity(), e.ret.Of)
	}
	return fmt.Sprint("return ", kind, e.identity())
}

// dedupeBy is what makes it the same event; "" if nothing does.
func (e *entry) dedupeBy() string {
	switch {
	case e.ret.Job != "" || e.ret.Generation > 0:
		return "again " + e.identity()
	case e.key != "":
		return fmt.Sprintf("%s key %q %q", e.tenant, e.key, e.insist)
	case e.id != "":
		return fmt.Sprintf("%s id %q %q", e.tenant, e.id, e.insist)
	}
	return ""
}

// headers are its attributes, by the names that stories give them.
func (e *entry) headers() [6][2]string {
	return [...][2]string{
		{"id", e.id}, {"key", e.key}, {"type", e.kind}, {"region", e.region}, {"class", e.priority}, {"dataschema", e.insist},
	}
}

func (e *entry) story(part int32) string {
	since := func(ms int64) time.Duration { return time.UnixMilli(ms).Sub(storyStart) }
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s p=%d schema=%d", since(e.at), e.tenant, part, e.schema)
	for _, h := range e.headers() {
		if h[1] != "" {
			fmt.Fprintf(&b, " %s=%s", h[0], h[1])
		}
	}
	if r := &e.ret; r.Kind != "" {
		fmt.Fprintf(&b, " return=%s origin=%d/%d@%s of=%d", r.Kind, r.Origin.Partition, r.Origin.Offset, since(r.Origin.AcceptedAt), r.Of.Offset)
		if r.Job != "" {
			fmt.Fprintf(&b, " generation=%d job=%s", r.Generation, r.Job)
		}
	}
	return b.String()
}

func (h *history) worldOf(e *entry) *world {
	i := len(h.worlds) - 1
	for h.worlds[i].from > e.offset {
		i--
	}
	return h.worlds[i]
}

// Of a history's tenants, the last one is unknown for long, and one now and
// then: its releases have to wait. That one has a single class.
const (
	fastOnly   = 7
	lastTenant = 8
)

// A chronicler makes up a history.
type chronicler struct {
	*history
	rng     *rand.Rand
	o       *oracle
	now     int64
	tenants []string // of this partition
	waits   []entry  // in retry.16s
	spare   string   // a tenant of another partition
}

func newHistory(rng *rand.Rand, part int32, n, maxKeys int) *history {
	c := &chronicler{history: &history{part: part, maxKeys: maxKeys}, rng: rng, o: newOracle(part, maxKeys), now: storyStart.UnixMilli()}
	for i := 0; len(c.tenants) <= lastTenant || c.spare == ""; i++ {
		name := fmt.Sprintf("tenant-%d", i)
		if schemas.HomePartition([]byte(name), histories) != part {
			c.spare = name
		} else if len(c.tenants) <= lastTenant {
			c.tenants = append(c.tenants, name)
		}
	}
	for i := range n {
		if i == 0 || rng.IntN(n/5) == 0 {
			c.turn(int64(i))
		}
		c.pass()
		e := c.next()
		e.offset, e.at, e.partition = int64(i), c.now, part
		a := c.o.walk(&e)
		if a.verdict == Wait {
			c.waits = append(c.waits, e)
		}
		c.entries, c.answers = append(c.entries, e), append(c.answers, a)
	}
	if c.o.stray {
		panic("a release came of what was not in overflow")
	}
	return c.history
}

// turn begins a new world.
func (c *chronicler) turn(from int64) {
	later := int64(len(c.worlds))
	w := &world{from: from, control: &fakeTenants{policies: map[string]*schemas.Policy{}, age: 6000}, registry: fakeSchemas{}}
	if later%2 == 1 {
		w.control.age = -1 // nobody can be asked
	}
	w.control.everyone = schemas.DefaultPolicy([]string{"eu", "us"})
	w.registry[1] = fakeAnswer{schema: plain{}}
	w.registry[2] = fakeAnswer{noAge: -1}
	w.registry[3] = fakeAnswer{noAge: 3000}
	if later > 1 {
		w.registry[2] = fakeAnswer{schema: plain{}}
	}
	for i, name := range c.tenants {
		unknown := i == lastTenant && later < 3 || i == fastOnly && later%2 == 1
		if !unknown {
			w.control.set(name, c.policy(i))
		}
	}
	c.worlds = append(c.worlds, w)
	c.o.world = w
}

func (c *chronicler) policy(i int) schemas.Policy {
	rates := []float64{1, 0.3, 1.0 / 3, 0.001, 1e-5, 33.3333333, 7, 1e9, 100}
	backlogs := []time.Duration{3 * time.Second, time.Minute, 5 * time.Hour, 40 * time.Hour}
	p := schemas.Policy{
		Fast:  schemas.Rate{Rate: rates[c.rng.IntN(len(rates))], Burst: c.rng.Int64N(4)},
		Slow:  schemas.Rate{Rate: rates[c.rng.IntN(6)], Burst: 1 + c.rng.Int64N(2)},
		Types: map[string]schemas.Type{"demo.Slow": {Class: "slow", Endpoint: "ai"}, "demo.Lost": {Class: "slow"}},
	}
	p.Fast.MaxBacklog = schemas.Duration(backlogs[c.rng.IntN(len(backlogs))])
	p.Slow.MaxBacklog = schemas.Duration(backlogs[c.rng.IntN(len(backlogs))])
	switch {
	case i%3 == 1:
		p.Quota = 5 + c.rng.Int64N(40)
	case i == 2:
		p.Fast.Overflow = "drop"
	case i == 3 && c.rng.IntN(3) > 0:
		p.State = "suspended"
	}
	return p
}

// pass lets time pass: mostly a little, now and then a day; brokers' clocks
// step back.
func (c *chronicler) pass() {
	switch n := c.rng.IntN(1000); {
	case n < 400:
	case n < 600:
		c.now += c.rng.Int64N(50)
	case n < 900:
		c.now += c.rng.Int64N(3000)
	case n < 950:
		c.now += c.rng.Int64N(10 * 60_000)
	case n < 965:
		c.now += c.rng.Int64N(5 * hour)
	case n < 970:
		c.now += 20*hour + c.rng.Int64N(10*hour)
	case n < 995:
		c.now -= c.rng.Int64N(10_000)
	default:
		c.now -= c.rng.Int64N(2 * hour)
	}
}

// next is the next record.
func (c *chronicler) next() entry {
	switch n := c.rng.IntN(100); {
	case n < 25:
		if e, ok := c.released(); ok {
			return e
		}
	case n < 40:
		if len(c.waits) > 0 {
			e := c.waits[0]
			c.waits = c.waits[1:]
			return e.back(schemas.Wait)
		}
	case n < 45:
		if e, ok := c.repeated(); ok {
			return e
		}
	case n < 47:
		if e, ok := c.again(); ok {
			return e
		}
	case n < 48:
		if e, ok := c.dayLater(); ok {
			return e
		}
	case n < 65:
		return c.forwarded()
	}
	return c.fresh()
}

// back is e as Spillway gives it back.
func (e entry) back(kind schemas.ReturnKind) entry {
	e.ret = schemas.Return{
		Kind: kind, Origin: e.origin(), Generation: e.ret.Generation, Job: e.ret.Job,
		Of: schemas.Place{Topic: "overflow", Offset: e.offset},
	}
	return e
}

// released is the record of overflow that is due first, if any is.
func (c *chronicler) released() (entry, bool) {
	first := -1
	for i, w := range c.o.overflow {
		if w.due <= c.now && (first < 0 || w.due < c.o.overflow[first].due) {
			first = i
		}
	}
	if first < 0 {
		return entry{}, false
	}
	return c.o.overflow[first].back(schemas.Release), true
}

// repeated is a return that a crash brings a second time, while it is known.
func (c *chronicler) repeated() (entry, bool) {
	for range 10 {
		if n := len(c.entries); n > 0 {
			e := c.entries[max(0, n-1-c.rng.IntN(40))]
			clock := c.o.clock + max(0, c.now-c.o.appended)
			if second, ok := c.o.seen[e.asReturn(e.ret.Kind)]; ok && e.ret.Kind != "" && clock/1000-second < 24*60*60 {
				return e, true
			}
		}
	}
	return entry{}, false
}

// again is an event of the past that an operator replays or redrives.
func (c *chronicler) again() (entry, bool) {
	if len(c.entries) == 0 {
		return entry{}, false
	}
	e := c.entries[c.rng.IntN(len(c.entries))]
	if e.ret.Kind != "" {
		return entry{}, false
	}
	e.ret.Job = fmt.Sprintf("job-%d", c.rng.IntN(3))
	if c.rng.IntN(2) == 0 {
		e.ret.Generation = 1
		return e.back(schemas.Redrive), true
	}
	return e.back(schemas.Replay), true
}

// dayLater is a record that is sent again in the second in which it is
// forgotten, or just before or after.
func (c *chronicler) dayLater() (entry, bool) {
	for _, e := range c.entries {
		second, ok := c.o.seen[e.dedupeBy()]
		if !ok || e.ret.Kind != "" {
			continue
		}
		clock := (second+24*60*60)*1000 + []int64{-1, 0, 999, 1000}[c.rng.IntN(4)]
		c.now = c.o.appended + clock - c.o.clock
		return e, true
	}
	return entry{}, false
}

// forwarded is a stranger's record that comes home, some of them late.
func (c *chronicler) forwarded() entry {
	e := c.fresh()
	e.ret = schemas.Return{Kind: schemas.Forward, Origin: schemas.Origin{
		Topic: schemas.TopicID{1}, Partition: histories, Offset: int64(len(c.entries)), AcceptedAt: c.now - c.rng.Int64N(100),
	}}
	switch c.rng.IntN(4) {
	case 0:
		e.ret.Origin.AcceptedAt -= c.rng.Int64N(5000)
	case 1:
		e.ret.Origin.AcceptedAt -= c.rng.Int64N(3 * hour)
	case 2:
		e.ret.Origin.AcceptedAt -= c.rng.Int64N(30 * hour)
	}
	return e
}

// fresh is a record of a producer.
func (c *chronicler) fresh() entry {
	pick := func(from ...string) string { return from[c.rng.IntN(len(from))] }
	e := entry{schema: 1, tenant: pick(c.tenants...), kind: pick("demo.Message", "demo.Message", "demo.Slow"), priority: pick("", "", "fast", "slow")}
	if e.tenant == c.tenants[fastOnly] {
		e.priority = "fast"
	}
	switch c.rng.IntN(10) {
	case 0:
		e.key = fmt.Sprint(c.rng.IntN(100))
	case 1: // nothing to know it by
	default:
		e.id = fmt.Sprint(c.rng.IntN(100))
	}
	switch c.rng.IntN(40) {
	case 0:
		e.tenant = c.spare
	case 1:
		e.schema = 2
	case 2:
		e.schema = 3
	case 3:
		e.kind = "demo.Lost"
	case 4:
		e.region = pick("eu", "mars")
	case 5:
		e.insist = pick("1", "2")
	}
	return e
}
