package tail

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/spillway/spillway/schemas"
)

// An Event is one event as clients get it. Its fields are never modified.
type Event struct {
	Cursor   int64  // offset of its `events` record
	Appended int64  // append time of that record, Unix ms
	Seen     int64  // when this node had it, Unix µs
	Channel  string //
	JSON     []byte // CloudEvents JSON on one line
}

// eventOverhead is what an event costs beside its bytes: the Event itself and
// a mark in a feed or two.
const eventOverhead = 128

func (e *Event) size() int64 { return int64(len(e.JSON)+len(e.Channel)) + eventOverhead }

// A Record is an Event with the tenant and the log it belongs to.
type Record struct {
	Tenant string
	Epoch  uint64
	Event
}

// A Tail is the newest part of one partition. Its methods may be called
// concurrently; Append by one goroutine at a time.
type Tail struct {
	set       *Set
	Partition int32

	mu      sync.RWMutex
	epoch   uint64
	head    int64 // newest cursor, of any tenant
	lost    int64 // a tenant not in the map has no event after this one
	anew    int64 // places before this one are of a log that is no more; -1: none
	broken  bool  // the next record begins such a log
	tenants map[string]*tenant
	woken   []*Feed // scratch of Append
}

// A tenant is what a tail has of one tenant: all its events after floor.
type tenant struct {
	name     string
	events   queue[Event]
	first    uint64 // number of the oldest in events; they count up
	floor    int64
	bytes    int64
	exact    map[string]*Feed // by channel
	prefixes map[string]*Feed // by pattern without its '*'
}

// Append adds what was read from the partition, in order, and wakes the
// subscribers it concerns. A record whose cursor does not grow has been seen
// before: it is skipped and counted in the result. A record of another epoch,
// or the first one after Break, starts the log anew.
func (t *Tail) Append(batch []Record) (skipped int) {
	t.mu.Lock()
	var added int64
	for i := range batch {
		r := &batch[i]
		if r.Epoch != t.epoch || t.broken {
			t.reset(r.Epoch, r.Cursor-1)
		}
		if r.Cursor <= t.head {
			skipped++
			continue
		}
		t.head = r.Cursor
		t.add(t.tenant(r.Tenant), &r.Event)
		added += r.size()
	}
	woken := t.woken
	t.woken = nil
	for _, f := range woken {
		f.woken = false
	}
	t.mu.Unlock()
	if t.set.used.Add(added) > t.set.maxBytes {
		t.set.evict()
	}
	for _, f := range woken {
		f.wake()
	}
	clear(woken)
	t.mu.Lock()
	if t.woken == nil {
		t.woken = woken[:0]
	}
	t.mu.Unlock()
	return skipped
}

func (t *Tail) add(tn *tenant, e *Event) {
	seq := tn.first + uint64(tn.events.len())
	tn.events.push(*e)
	tn.bytes += e.size()
	m := mark{seq: seq, cursor: e.Cursor}
	if f := tn.exact[e.Channel]; f != nil {
		t.mark(f, m)
	}
	if len(tn.prefixes) == 0 {
		return
	}
	if f := tn.prefixes[""]; f != nil {
		t.mark(f, m)
	}
	for i := 0; i+1 < len(e.Channel); i++ {
		if e.Channel[i] == '.' {
			if f := tn.prefixes[e.Channel[:i+1]]; f != nil {
				t.mark(f, m)
			}
		}
	}
}

func (t *Tail) mark(f *Feed, m mark) {
	f.forget()
	f.marks.push(m)
	f.newest.Store(m.cursor)
	if !f.woken {
		f.woken = true
		t.woken = append(t.woken, f)
	}
}

// tenant returns what the tail has of a tenant, t.mu held for writing.
func (t *Tail) tenant(name string) *tenant {
	tn := t.tenants[name]
	if tn == nil {
		tn = &tenant{name: name, floor: t.lost}
		t.tenants[name] = tn
	}
	return tn
}

// Reset empties the tail: it goes on as the log of this epoch after start.
// Subscribers are woken and find their place lost, unless it is start.
func (t *Tail) Reset(epoch uint64, start int64) {
	t.mu.Lock()
	t.reset(epoch, start)
	woken := t.woken
	t.woken = nil
	for _, f := range woken {
		f.woken = false
	}
	t.mu.Unlock()
	for _, f := range woken {
		f.wake()
	}
}

// Break says that the log which comes next is not the one before: what is
// between the two is lost, nobody knows what. Subscribers whose place is before
// its first record find theirs lost.
func (t *Tail) Break() {
	t.mu.Lock()
	t.broken = true
	t.mu.Unlock()
}

func (t *Tail) reset(epoch uint64, start int64) {
	t.epoch, t.head, t.lost = epoch, start, start
	if t.anew = -1; t.broken {
		t.anew, t.broken = start, false
	}
	for name, tn := range t.tenants {
		t.set.used.Add(-tn.bytes)
		tn.first += uint64(tn.events.len())
		tn.events, tn.bytes, tn.floor = queue[Event]{}, 0, start
		if tn.unused() {
			delete(t.tenants, name)
			continue
		}
		for _, f := range tn.feeds() {
			f.marks, f.since, f.begin = queue[mark]{}, start, tn.first
			f.newest.Store(start)
			f.epoch.Store(epoch)
			if !f.woken {
				f.woken = true
				t.woken = append(t.woken, f)
			}
		}
	}
}

func (tn *tenant) unused() bool {
	return tn.events.len() == 0 && len(tn.exact) == 0 && len(tn.prefixes) == 0
}

func (tn *tenant) feeds() []*Feed {
	all := make([]*Feed, 0, len(tn.exact)+len(tn.prefixes))
	for _, f := range tn.exact {
		all = append(all, f)
	}
	for _, f := range tn.prefixes {
		all = append(all, f)
	}
	return all
}

// Head is the newest place of the log.
func (t *Tail) Head() schemas.Cursor {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return schemas.Cursor{Epoch: t.epoch, Offset: t.head}
}

// Events is how many events the tail holds.
func (t *Tail) Events() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := 0
	for _, tn := range t.tenants {
		n += tn.events.len()
	}
	return n
}

// Subscribe returns the feed of a tenant's channel or pattern and makes w one
// of those it wakes. Leave ends it. The pattern must be valid.
func (t *Tail) Subscribe(tenantName, pattern string, w Waker) *Feed {
	t.mu.Lock()
	defer t.mu.Unlock()
	tn := t.tenant(tenantName)
	feeds, key := &tn.exact, pattern
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		feeds, key = &tn.prefixes, prefix
	}
	f := (*feeds)[key]
	if f == nil {
		f = &Feed{
			ID: int(t.set.ids.Add(1)), Tenant: tenantName, Pattern: pattern,
			tail: t, tenant: tn, since: t.head, begin: tn.first + uint64(tn.events.len()),
		}
		f.newest.Store(t.head)
		f.epoch.Store(t.epoch)
		if *feeds == nil {
			*feeds = make(map[string]*Feed)
		}
		(*feeds)[key] = f
	}
	f.join(w)
	return f
}

// Leave ends w's subscription. The last to leave takes the feed along.
func (f *Feed) Leave(w Waker) {
	t := f.tail
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.part(w) > 0 {
		return
	}
	tn := f.tenant
	if prefix, ok := strings.CutSuffix(f.Pattern, "*"); ok {
		delete(tn.prefixes, prefix)
	} else {
		delete(tn.exact, f.Pattern)
	}
	t.prune(tn)
}

// prune forgets a tenant of which nothing is left, t.mu held for writing.
func (t *Tail) prune(tn *tenant) {
	if tn.unused() && t.tenants[tn.name] == tn {
		t.lost = max(t.lost, tn.floor)
		delete(t.tenants, tn.name)
	}
}

// A Set is the tails of a node, which share one bound on bytes.
type Set struct {
	maxBytes int64
	ids      atomic.Int64 // newest feed id
	used     atomic.Int64

	mu    sync.Mutex
	tails map[*Tail]struct{}
}

// NewSet returns a set whose tails hold maxBytes at most, together.
func NewSet(maxBytes int64) *Set {
	return &Set{maxBytes: maxBytes, tails: make(map[*Tail]struct{})}
}

// Bytes is how much the tails hold now.
func (s *Set) Bytes() int64 { return s.used.Load() }

// Open adds an empty tail for a partition, which holds everything after start.
func (s *Set) Open(partition int32, epoch uint64, start int64) *Tail {
	t := &Tail{
		set: s, Partition: partition, epoch: epoch, head: start, lost: start, anew: -1,
		tenants: make(map[string]*tenant),
	}
	s.mu.Lock()
	s.tails[t] = struct{}{}
	s.mu.Unlock()
	return t
}

// Close empties a tail and takes it out of the set.
func (s *Set) Close(t *Tail) {
	s.mu.Lock()
	delete(s.tails, t)
	s.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, tn := range t.tenants {
		s.used.Add(-tn.bytes)
		tn.bytes = 0
	}
	t.tenants = make(map[string]*tenant)
}

// Sweep lets go of frames that were kept for sharing; to be called once a
// second or so, when whoever could share them has.
func (s *Set) Sweep() {
	for _, t := range s.list() {
		t.mu.RLock()
		var feeds []*Feed
		for _, tn := range t.tenants {
			feeds = append(feeds, tn.feeds()...)
		}
		t.mu.RUnlock()
		for _, f := range feeds {
			f.release()
		}
	}
}

func (s *Set) list() []*Tail {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Tail, 0, len(s.tails))
	for t := range s.tails {
		all = append(all, t)
	}
	return all
}

// evict makes room: the oldest events of whichever tenant has most go, until
// a sixteenth of the bound is free again, so that it runs seldom.
func (s *Set) evict() {
	tails := s.list()
	for goal := s.maxBytes - s.maxBytes/16; s.used.Load() > goal; {
		var most int64
		var of *tenant
		var in *Tail
		for _, t := range tails {
			if tn, bytes := t.largest(); bytes > most {
				most, of, in = bytes, tn, t
			}
		}
		if of == nil {
			return
		}
		in.shed(of, max(1, min(s.used.Load()-goal, most/2)))
	}
}

func (t *Tail) largest() (of *tenant, bytes int64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, tn := range t.tenants {
		if tn.bytes > bytes {
			of, bytes = tn, tn.bytes
		}
	}
	return of, bytes
}

// shed drops a tenant's oldest events, of size bytes or a little more.
func (t *Tail) shed(tn *tenant, size int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tenants[tn.name] != tn {
		return // closed meanwhile
	}
	var freed int64
	n := 0
	for ; freed < size && n < tn.events.len(); n++ {
		e := tn.events.at(n)
		freed += e.size()
		tn.floor = e.Cursor
	}
	tn.events.drop(n)
	tn.first += uint64(n)
	tn.bytes -= freed
	t.set.used.Add(-freed)
	t.prune(tn)
}
