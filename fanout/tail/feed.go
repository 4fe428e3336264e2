package tail

import (
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/spillway/spillway/schemas"
)

// A Waker is a subscriber: Wake tells it that its feeds may have something
// new. It must not block and may be called by several goroutines.
type Waker interface{ Wake() }

// A mark is an event that matches a feed's pattern.
type mark struct {
	seq    uint64 // its number among the tenant's events
	cursor int64
}

// A Feed is one tenant's channel or pattern in a tail. Subscribers of it hold
// nothing but a place. Its methods may be called concurrently.
type Feed struct {
	ID      int // names the feed to clients; the same for all of a node
	Tenant  string
	Pattern string

	tail   *Tail
	tenant *tenant

	newest atomic.Int64  // cursor of the newest match
	epoch  atomic.Uint64 // tail's

	// Guarded by tail.mu.
	marks queue[mark] // matches, oldest first; the first may have left the tail
	since int64       // all matches after it are in marks
	begin uint64      // so are those with this number or a greater one
	woken bool        // in tail.woken

	mu     sync.Mutex // guards:
	frames [keepFrames]*Frame
	oldest int

	subMu  sync.RWMutex // guards:
	wakers []Waker
}

// keepFrames is how many frames a feed keeps for those who come to the same
// place a moment later.
const keepFrames = 4

// Status says what Next found.
type Status int

const (
	Idle     Status = iota // nothing new
	Ready                  // a frame
	Lagged                 // the tail does not reach back to that place
	NewEpoch               // the place is of another log
)

// Pending reports whether Next would find something at a place. It is cheap
// and takes no lock.
func (f *Feed) Pending(at schemas.Cursor) bool {
	return f.newest.Load() > at.Offset || f.epoch.Load() != at.Epoch
}

// Next returns the frame that follows a place: as many matching events as fit
// in a frame.
func (f *Feed) Next(at schemas.Cursor) (*Frame, Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, status := f.find(at)
	if status != Ready {
		f.tail.mu.RUnlock()
		return nil, status
	}
	// The place before is the feed's, not the subscriber's, so that all at the
	// same event share a frame: nothing matches between the two.
	first, p := f.marks.at(i).seq, f.since
	if i > 0 {
		p = f.marks.at(i - 1).cursor
	}
	if shared := f.kept(first, at.Offset); shared != nil {
		f.tail.mu.RUnlock()
		return shared, Ready
	}
	events := f.collect(i)
	f.tail.mu.RUnlock()
	frame := NewFrame(f.ID, schemas.Cursor{Epoch: at.Epoch, Offset: p}, events)
	frame.Tenant, frame.Home, frame.first = f.Tenant, f.tail.Partition, first
	if f.watched() > 1 {
		f.keep(frame)
	}
	return frame, Ready
}

// find returns the index of the first mark after a place, with tail.mu held
// for reading in every case.
func (f *Feed) find(at schemas.Cursor) (int, Status) {
	t := f.tail
	t.mu.RLock()
	if t.epoch != at.Epoch || at.Offset < t.anew {
		return 0, NewEpoch
	}
	if !f.reaches(at.Offset) {
		if at.Offset < f.tenant.floor {
			return 0, Lagged
		}
		t.mu.RUnlock()
		t.mu.Lock()
		f.extend()
		t.mu.Unlock()
		t.mu.RLock()
		if t.epoch != at.Epoch || at.Offset < t.anew {
			return 0, NewEpoch
		}
		if !f.reaches(at.Offset) {
			return 0, Lagged
		}
	}
	n := f.marks.len()
	i := sort.Search(n, func(i int) bool { return f.marks.at(i).cursor > at.Offset })
	if i == n {
		return 0, Idle
	}
	return i, Ready
}

// reaches reports whether all matches after offset are in marks and in the tail.
func (f *Feed) reaches(offset int64) bool {
	if offset < f.since {
		return false
	}
	gone := f.gone()
	return gone == 0 || f.marks.at(gone-1).cursor <= offset
}

// gone is how many of the first marks have left the tail.
func (f *Feed) gone() int {
	if f.marks.len() == 0 || f.marks.at(0).seq >= f.tenant.first {
		return 0
	}
	return sort.Search(f.marks.len(), func(i int) bool { return f.marks.at(i).seq >= f.tenant.first })
}

// forget drops the marks of events that have left the tail.
func (f *Feed) forget() {
	if n := f.gone(); n > 0 {
		f.since = max(f.since, f.marks.at(n-1).cursor)
		f.marks.drop(n)
	}
}

// extend marks the events that the tail had before the feed existed. Until then
// newest is only a bound, the place where the log was.
func (f *Feed) extend() {
	f.forget()
	defer f.settle()
	tn := f.tenant
	if f.begin <= tn.first {
		f.since = min(f.since, tn.floor)
		return
	}
	var older queue[mark]
	for i := range tn.events.len() {
		seq := tn.first + uint64(i)
		if seq >= f.begin {
			break
		}
		if e := tn.events.at(i); schemas.Match(f.Pattern, e.Channel) {
			older.push(mark{seq: seq, cursor: e.Cursor})
		}
	}
	older.items = append(older.items, f.marks.items[f.marks.off:]...)
	f.marks, f.begin, f.since = older, tn.first, tn.floor
}

// settle makes newest exact: were it beyond the last match, a subscriber between
// the two would look for something pending again and again.
func (f *Feed) settle() {
	newest := f.since
	if n := f.marks.len(); n > 0 {
		newest = f.marks.at(n - 1).cursor
	}
	f.newest.Store(newest)
}

// collect copies the events from mark i on that fit in a frame; one always does.
func (f *Feed) collect(i int) []Event {
	n, size := 0, 0
	for j := i; j < f.marks.len(); j++ {
		size += len(f.event(j).JSON) + 1
		if n > 0 && size > FrameBytes {
			break
		}
		n++
	}
	events := make([]Event, n)
	for j := range events {
		events[j] = *f.event(i + j)
	}
	return events
}

func (f *Feed) event(i int) *Event {
	return f.tenant.events.at(int(f.marks.at(i).seq - f.tenant.first))
}

// Covers reports whether the tail holds every match after a place.
func (f *Feed) Covers(at schemas.Cursor) bool {
	_, status := f.find(at)
	f.tail.mu.RUnlock()
	return status == Ready || status == Idle
}

// Advance returns the newest place of the log if nothing matches between at
// and there.
func (f *Feed) Advance(at schemas.Cursor) (schemas.Cursor, bool) {
	t := f.tail
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.epoch != at.Epoch || f.newest.Load() > at.Offset || t.head <= at.Offset {
		return at, false
	}
	return schemas.Cursor{Epoch: t.epoch, Offset: t.head}, true
}

// Head is the newest place of the log.
func (f *Feed) Head() schemas.Cursor { return f.tail.Head() }

// Middle is a place in the middle of what the tail holds of this tenant: where
// a subscriber goes on that was too slow. At the very edge it would fall out
// again at once.
func (f *Feed) Middle() schemas.Cursor {
	t := f.tail
	t.mu.RLock()
	defer t.mu.RUnlock()
	at := schemas.Cursor{Epoch: t.epoch, Offset: t.head}
	if n := f.tenant.events.len(); n > 1 {
		at.Offset = f.tenant.events.at(n / 2).Cursor
	}
	return at
}

// Start is the place after which the tail holds everything of this tenant.
func (f *Feed) Start() schemas.Cursor {
	t := f.tail
	t.mu.RLock()
	defer t.mu.RUnlock()
	return schemas.Cursor{Epoch: t.epoch, Offset: f.tenant.floor}
}

// Last returns the place before the n newest matches, and how many of them the
// tail has: fewer than n means that older ones may exist.
func (f *Feed) Last(n int) (schemas.Cursor, int) {
	t := f.tail
	t.mu.Lock()
	defer t.mu.Unlock()
	f.extend()
	at := schemas.Cursor{Epoch: t.epoch, Offset: t.head}
	have := min(n, f.marks.len())
	if have > 0 {
		at.Offset = f.marks.at(f.marks.len()-have).cursor - 1
	}
	return at, have
}

func (f *Feed) kept(first uint64, at int64) *Frame {
	for _, frame := range f.frames {
		if frame != nil && frame.first == first && frame.P.Offset <= at {
			return frame
		}
	}
	return nil
}

func (f *Feed) keep(frame *Frame) {
	f.frames[f.oldest] = frame
	f.oldest = (f.oldest + 1) % keepFrames
}

func (f *Feed) release() {
	f.mu.Lock()
	f.frames = [keepFrames]*Frame{}
	f.mu.Unlock()
}

func (f *Feed) join(w Waker) {
	f.subMu.Lock()
	f.wakers = append(f.wakers, w)
	f.subMu.Unlock()
}

// part removes w and returns how many are left.
func (f *Feed) part(w Waker) int {
	f.subMu.Lock()
	defer f.subMu.Unlock()
	if i := slices.Index(f.wakers, w); i >= 0 {
		last := len(f.wakers) - 1
		f.wakers[i] = f.wakers[last]
		f.wakers[last] = nil
		f.wakers = f.wakers[:last]
	}
	return len(f.wakers)
}

func (f *Feed) watched() int {
	f.subMu.RLock()
	defer f.subMu.RUnlock()
	return len(f.wakers)
}

func (f *Feed) wake() {
	f.subMu.RLock()
	defer f.subMu.RUnlock()
	for _, w := range f.wakers {
		w.Wake()
	}
}
