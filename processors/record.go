package processors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spillway/spillway/schemas"
)

// What a batch changed in a State is packed into one record, which is written
// in the batch's transaction; applying the records of a window in order makes
// the same state again.
//
//	version, flags │ from, to │ clock, append time │ policies │ topic id (whole only)
//	keys: groups of (second, count) │ 16 bytes a key, in order
//	tenants: name, own time, day's use, two buckets │ … to the end of the record
//
// All numbers are varints. A tenant's entry says all about it, not what
// changed, so the newest counts. The first record of each hour is whole: it has
// every tenant that is not idle, and forgets the others; a restore may begin
// there. A record would exceed its bound only by tenants: then it goes on in
// further ones, all but the last marked more.
const (
	recordVersion = 1

	flagWhole = 1 << 0
	flagMore  = 1 << 1
	flagRest  = 1 << 2 // goes on with the tenants of the record before
	flagFresh = 1 << 3 // nothing was remembered before
)

// A Mark says which part of the log a record stands for.
type Mark struct {
	From, To int64           // offsets: the records of events from From up to To, without To
	Policies int64           // version of the policies that decided them; -1: unknown
	Topic    schemas.TopicID // of events; read back from whole records only
}

// A Record is what is known of a packed record without its contents.
type Record struct {
	Mark
	Clock    int64 // of the partition after it, ms
	Appended int64 // append time of the newest record of events, ms
	Whole    bool  // a restore may begin here
	More     bool  // the same batch goes on in the next record
	Rest     bool  // it began in an earlier one
	Fresh    bool  // the state began empty with this batch: no record before it counts
}

// hour is the span of the clock within which one record is whole.
const hour = int64(time.Hour / time.Millisecond)

// Needed reports whether a restore up to clock needs the whole record w and
// those that follow it up to the next whole one: some of their keys may be
// less than a window old.
func (w *Record) Needed(clock int64) bool {
	return (w.Clock/hour+1)*hour > clock-Window.Milliseconds()
}

// Pack calls yield with the records of what changed since Begin, which is
// valid only during the call. Call it once a batch, after its last Walk. limit
// is how many bytes a record may have before it goes on in another; the keys
// of a batch are never parted.
func (st *State) Pack(m Mark, limit int, yield func(r Record, packed []byte)) {
	r := Record{Mark: m, Clock: st.clock, Appended: st.appended, Whole: st.clock/hour != st.whole, Fresh: st.whole < 0}
	st.whole = st.clock / hour
	b := st.appendKeys(appendHead(st.packed[:0], &r))
	add := func(t *tenant) {
		if len(b) >= limit {
			r.More = true
			b[1] |= flagMore
			yield(r, b)
			r.More, r.Whole, r.Fresh, r.Rest = false, false, false, true
			b = append(appendHead(b[:0], &r), 0) // no keys
		}
		b = st.appendTenant(b, t)
	}
	if r.Whole {
		for _, t := range slices.SortedFunc(maps.Values(st.tenants), byName) {
			if !t.idle(st.clock) {
				add(t)
			}
		}
	} else {
		for i := range st.undo.tenants {
			add(st.undo.tenants[i].of)
		}
	}
	yield(r, b)
	st.packed = b
}

func byName(a, b *tenant) int { return strings.Compare(a.name, b.name) }

func appendHead(b []byte, r *Record) []byte {
	var flags byte
	if r.Whole {
		flags |= flagWhole
	}
	if r.Rest {
		flags |= flagRest
	}
	if r.Fresh {
		flags |= flagFresh
	}
	b = append(b, recordVersion, flags)
	b = binary.AppendUvarint(b, uint64(r.From))
	b = binary.AppendUvarint(b, uint64(r.To-r.From))
	b = binary.AppendUvarint(b, uint64(r.Clock))
	b = binary.AppendVarint(b, r.Appended-r.Clock)
	b = binary.AppendVarint(b, r.Policies)
	if r.Whole {
		b = append(b, r.Topic[:]...)
	}
	return b
}

// appendKeys appends the keys that were pushed since Begin.
func (st *State) appendKeys(b []byte) []byte {
	r, from := &st.ring, st.undo.ring.tail
	if from == r.tail {
		return append(b, 0)
	}
	first := len(r.groups) - 1
	for first > 0 && r.wide(r.groups[first].first) > from {
		first--
	}
	b = binary.AppendUvarint(b, uint64(len(r.groups)-first))
	for i := first; i < len(r.groups); i++ {
		start, end := max(from, r.wide(r.groups[i].first)), r.tail
		if i+1 < len(r.groups) {
			end = r.wide(r.groups[i+1].first)
		}
		b = binary.AppendUvarint(b, uint64(r.groups[i].second))
		b = binary.AppendUvarint(b, end-start)
	}
	for seq := from; seq < r.tail; seq++ {
		b = append(b, r.at(seq)[:]...)
	}
	return b
}

// Flags of a tenant's entry: which of its parts follow.
const (
	hasUse    = 1 << 0
	hasTat    = 1 << 1 // << 2 for the second class
	hasBehind = 1 << 2
)

func (st *State) appendTenant(b []byte, t *tenant) []byte {
	b = binary.AppendUvarint(b, uint64(len(t.name)))
	b = append(b, t.name...)
	at := len(b)
	b = append(b, 0)
	b = binary.AppendVarint(b, st.clock-t.at)
	if t.used > 0 {
		b[at] |= hasUse
		b = binary.AppendVarint(b, dayOf(st.clock)-t.day)
		b = binary.AppendUvarint(b, uint64(t.used))
	}
	for i := range t.classes {
		c := &t.classes[i]
		if c.tat != (instant{}) {
			b[at] |= hasTat << (2 * i)
			b = binary.AppendVarint(b, c.tat.ms-st.clock)
			b = binary.AppendUvarint(b, uint64(c.tat.frac))
			b = binary.AppendUvarint(b, uint64(c.tat.den))
		}
		if c.behind > 0 || c.grace != 0 || c.due != 0 {
			b[at] |= hasBehind << (2 * i)
			b = binary.AppendUvarint(b, uint64(c.behind))
			b = binary.AppendVarint(b, c.due-st.clock)
			b = binary.AppendVarint(b, c.grace)
		}
	}
	return b
}

// ErrRecord is what every error about a record that cannot be read wraps.
var ErrRecord = errors.New("not a record of route.state")

// ReadRecord reads the head of a packed record.
func ReadRecord(packed []byte) (Record, error) {
	in := unpack{b: packed}
	r := in.head()
	return r, in.err()
}

// A Restore makes a state of the records of a log: Apply each in order, from a
// whole one on, then take the State.
type Restore struct {
	st      *State
	maxKeys int
}

// NewRestore begins with an empty state; see NewState.
func NewRestore(maxKeys int) *Restore {
	re := &Restore{maxKeys: maxKeys}
	re.empty()
	return re
}

func (re *Restore) empty() {
	re.st = NewState(re.maxKeys)
	re.st.ring.bare = true
}

// Apply folds one record into the state, as if its events had been decided
// here. After an error the restore is worthless.
func (re *Restore) Apply(packed []byte) (Record, error) {
	in := unpack{b: packed}
	r := in.head()
	if in.bad != "" {
		return r, in.err()
	}
	if r.Fresh {
		re.empty()
	}
	st := re.st
	if r.Whole {
		clear(st.tenants)
		st.whole = r.Clock / hour
	}
	st.applyKeys(&in)
	st.clock, st.appended = r.Clock, r.Appended
	st.ring.expire(st.clock)
	for in.bad == "" && len(in.b) > 0 {
		st.applyTenant(&in)
	}
	st.ring.commit()
	return r, in.err()
}

// State is what the records made. The restore is over.
func (re *Restore) State() *State {
	st := re.st
	re.st = nil
	st.ring.build()
	st.sweepAt = max(sweepLeast, 2*len(st.tenants))
	st.Begin()
	return st
}

func (st *State) applyKeys(in *unpack) {
	n := in.count(2)
	var groups [16]struct{ second, keys uint64 }
	list := groups[:0]
	total := uint64(0)
	for range n {
		second, keys := in.uvarint(), in.uvarint()
		if second > maxTime/1000 || keys > uint64(len(in.b)) {
			in.fail("a group of keys out of bounds")
			return
		}
		list = append(list, struct{ second, keys uint64 }{second, keys})
		total += keys
	}
	keys := in.take(total * uint64(len(key{})))
	for _, g := range list {
		if in.bad != "" {
			return
		}
		ms := int64(g.second) * 1000
		st.ring.expire(ms)
		for range g.keys {
			st.ring.push((*key)(keys), ms)
			keys = keys[len(key{}):]
		}
	}
}

func (st *State) applyTenant(in *unpack) {
	name := in.take(in.uvarint())
	flags := in.take(1)
	if in.bad != "" {
		return
	}
	t := st.tenants[string(name)]
	if t == nil {
		t = &tenant{name: string(name)}
		st.tenants[t.name] = t
	}
	*t = tenant{name: t.name, at: st.clock - in.varint()}
	if flags[0]&hasUse != 0 {
		t.day = dayOf(st.clock) - in.varint()
		t.used = int64(in.uvarint())
	}
	for i := range t.classes {
		c := &t.classes[i]
		if flags[0]&(hasTat<<(2*i)) != 0 {
			c.tat.ms = st.clock + in.varint()
			frac, den := in.uvarint(), in.uvarint()
			if den == 0 || den > maxBurst || frac >= den {
				in.fail("a bucket that is not a fraction")
			}
			c.tat.frac, c.tat.den = uint32(frac), uint32(den)
		}
		if flags[0]&(hasBehind<<(2*i)) != 0 {
			c.behind = int64(in.uvarint())
			c.due = st.clock + in.varint()
			c.grace = in.varint()
		}
		if c.behind < 0 || t.used < 0 {
			in.fail("a count out of bounds")
		}
	}
}

// unpack reads a record; after the first fault it gives zeros.
type unpack struct {
	b   []byte
	bad string
}

func (in *unpack) err() error {
	if in.bad == "" {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrRecord, in.bad)
}

func (in *unpack) fail(why string) {
	if in.bad == "" {
		in.bad = why
	}
	in.b = nil
}

func (in *unpack) head() (r Record) {
	intro := in.take(2)
	if in.bad != "" {
		return r
	}
	if intro[0] != recordVersion {
		in.fail(fmt.Sprintf("version %d, this program reads %d", intro[0], recordVersion))
		return r
	}
	flags := intro[1]
	r.Whole, r.More, r.Rest, r.Fresh = flags&flagWhole != 0, flags&flagMore != 0, flags&flagRest != 0, flags&flagFresh != 0
	r.From = int64(in.uvarint())
	r.To = r.From + int64(in.uvarint())
	r.Clock = int64(in.uvarint())
	r.Appended = r.Clock + in.varint()
	r.Policies = in.varint()
	if r.From < 0 || r.To < r.From || r.Clock < 0 || r.Clock > maxTime {
		in.fail("offsets or clock out of bounds")
	}
	if r.Whole {
		copy(r.Topic[:], in.take(uint64(len(r.Topic))))
	}
	return r
}

func (in *unpack) uvarint() uint64 {
	v, n := binary.Uvarint(in.b)
	if n <= 0 {
		in.fail("it is cut off")
		return 0
	}
	in.b = in.b[n:]
	return v
}

func (in *unpack) varint() int64 {
	v, n := binary.Varint(in.b)
	if n <= 0 {
		in.fail("it is cut off")
		return 0
	}
	in.b = in.b[n:]
	return v
}

// count is a number of things of at least so many bytes each.
func (in *unpack) count(least int) uint64 {
	n := in.uvarint()
	if n > uint64(len(in.b)/least) {
		in.fail("it is cut off")
		return 0
	}
	return n
}

// take is the next n bytes.
func (in *unpack) take(n uint64) []byte {
	if n > uint64(len(in.b)) {
		in.fail("it is cut off")
		return nil
	}
	out := in.b[:n]
	in.b = in.b[n:]
	return out
}
