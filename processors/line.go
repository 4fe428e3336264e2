package processors

import (
	"errors"
	"fmt"

	"github.com/spillway/spillway/schemas"
)

// A Step is one station of the line. Do may change ev and st and nothing else,
// and it cannot fail, only decide.
type Step struct {
	Name string // metric label and audit column; never renamed
	Do   func(ev *Event, st *State) Decision
}

// A Decision is the line's word on an event. The zero value keeps it.
type Decision struct {
	Verdict Verdict
	Reason  schemas.Reason // why; empty for Forward, Deliver and Work
	Detail  string         // a sentence for a person; empty: Reason.Text says it all
	Step    string         // who said so; set by Walk
}

// Verdict is what is to be done with an event.
type Verdict uint8

const (
	Keep      Verdict = iota // on to the next step
	Forward                  // to its home partition, signed
	Stale                    // nothing: a return that was taken before
	Dead                     // to the dead letters: someone must look
	Wait                     // to retry.16s: the answer about it is not fresh
	Duplicate                // nothing: the first one was let through
	Dropped                  // nothing: not wanted late
	Overflow                 // late, in order: to overflow until Event.Due
	Deliver                  // fast path: to Event.Regions
	Work                     // slow path: to Event.Endpoint
)

var verdictNames = [...]string{"keep", "forward", "stale", "dead", "wait", "duplicate", "dropped", "overflow", "deliver", "work"}

// String is the verdict in a word, the metric label.
func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return "unknown"
}

// letThrough: what counts against quota and bucket, and is a duplicate when it
// comes again.
func (v Verdict) letThrough() bool { return v == Deliver || v == Work || v == Overflow }

func dead(r schemas.Reason, detail string) Decision {
	return Decision{Verdict: Dead, Reason: r, Detail: detail}
}

// Tenants is what the line asks of control. It answers at once, from the
// newest snapshot, and must not change its answers within one batch.
type Tenants interface {
	// Policy is the tenant's effective policy. The pointer is the same for as
	// long as the policy is, and what it points to never changes.
	Policy(tenant string) (*schemas.Policy, bool)
	// Age is how long ago, in milliseconds, these policies were known to be
	// all there are.
	Age() int64
}

// Schemas is what the line asks of the registry's cache. It never blocks.
type Schemas interface {
	// Schema is the schema with this id. Without one it is nil, and noAge says
	// how long ago, in milliseconds, the registry answered that there is none;
	// negative: it has not answered.
	Schema(id int32) (s Schema, noAge int64)
}

// A Schema reads the bodies that were written with it.
type Schema interface {
	// Name is the record's full name, "" if the schema is not a record's.
	Name() string
	// AppendJSON appends body as plain JSON to dst. What cannot be decoded, or
	// exceeds max bytes as Avro or JSON, gives a reason and a sentence; reason
	// "" is success.
	AppendJSON(dst, body []byte, max int) (json []byte, r schemas.Reason, detail string)
	// AppendField appends the text of a top-level string or number. It reports
	// false if the body has no such field, or null there.
	AppendField(dst, body []byte, name string) ([]byte, bool)
}

// Config is what a line is made of. All fields are required.
type Config struct {
	Partitions int32  // P, the fixed number of partitions of events
	Key        []byte // cluster secret for hashing keys, at least 16 bytes; another one forgets all keys
	Tenants    Tenants
	Schemas    Schemas
}

func (c Config) validate() error {
	switch {
	case c.Partitions <= 0:
		return fmt.Errorf("line: Partitions is %d, want at least 1", c.Partitions)
	case len(c.Key) < 16:
		return fmt.Errorf("line: Key has %d bytes, want 16 at least", len(c.Key))
	case c.Tenants == nil || c.Schemas == nil:
		return errors.New("line: Tenants and Schemas are required")
	}
	return nil
}

// rules are what the steps consult.
type rules struct {
	partitions int32
	hash       hasher
	tenants    Tenants
	schemas    Schemas
}

// A Line is a list of steps, walked from top to bottom. It holds no state and
// may be used by several goroutines, if its Tenants and Schemas may.
type Line []Step

// New returns the line. Read it top to bottom: an event leaves at the first
// step that does not keep it. The order is policy: an event of no home costs
// no look-up, a duplicate costs no quota, and what is over quota no token.
func New(c Config) (Line, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	r := &rules{c.Partitions, newHasher(c.Key), c.Tenants, c.Schemas}
	return Line{
		// name    question                                              if not
		{"home", r.home},     // is this the partition this key belongs to?     forward; dead not_home; stale
		{"valid", r.valid},   // do size, attributes and schema hold?           dead; wait await_schema
		{"tenant", r.tenant}, // is the tenant known and active?                dead tenant_*; wait await_tenant
		{"dedupe", r.dedupe}, // is its key new in the window?                  duplicate
		{"quota", quota},     // is it within the day's budget?                 dead over_quota
		{"rate", rate},       // has its class a token, and no one before it?   overflow; dropped; dead over_quota
		{"route", route},     // fast: which regions? slow: which endpoint?     deliver, work; dead no_route
	}, nil
}

// Walk takes ev down the line of its partition, whose state st is, and returns
// the decision. st changes; see State.Begin.
func (l Line) Walk(ev *Event, st *State) Decision { return l.Trace(ev, st, nil) }

// Trace is Walk for a person who looks: told, if there is one, hears each
// step's answer on the way.
func (l Line) Trace(ev *Event, st *State, told func(step string, d Decision)) Decision {
	st.advance(ev.Appended)
	for i := range l {
		d := l[i].Do(ev, st)
		if told != nil {
			told(l[i].Name, d)
		}
		if d.Verdict == Keep {
			continue
		}
		d.Step = l[i].Name
		st.note(ev, d.Verdict)
		return d
	}
	panic("processors: the last step kept an event; route must decide")
}
