package delay

import "container/heap"

// A Lookahead knows when each record of one partition is due and which of them
// are finished. Records are added in offset order, come out in order of their
// due times (those of one due time in offset order), and are finished in any
// order. It is pure: the caller has the clock.
//
//	Add ─▶ waiting ──Take──▶ taken ──Finish──▶ finished ─▶ forgotten
//	          ▲                │
//	          └────PutBack─────┘
//
// 20 bytes a record that is not finished, and as much again for finished ones
// that are not forgotten yet: they are when they outnumber the others.
//
// Route never lets a tenant's due times of one class decrease, so what comes
// out in order of due is in offset order for them.
type Lookahead struct {
	records []record // in offset order
	head    int      // index of the oldest unfinished record, or len(records)
	dead    int      // finished ones among records
	heap    []uint32 // indexes of the waiting records, by (due, index)
	next    int64    // offset after the newest that was seen
}

// A record's due is Unix ms while it waits, and then what became of it.
type record struct{ due, offset int64 }

const (
	taken    = -1
	finished = -2

	compactAt = 64 // finished records, below which forgetting them gains nothing
)

// Len is how many records are not finished.
func (l *Lookahead) Len() int { return len(l.records) - l.dead }

// Waiting is how many records were not taken.
func (l *Lookahead) Waiting() int { return len(l.heap) }

// Span is how many offsets there are from the oldest unfinished record to the
// newest that was seen: so many at most are read again after a restart.
func (l *Lookahead) Span() int64 {
	if l.Len() == 0 {
		return 0
	}
	return l.next - l.records[l.head].offset
}

// Next is the offset after the newest that was seen; 0 before the first.
func (l *Lookahead) Next() int64 { return l.next }

// Add notes a record. Offsets must grow. A due time before 1970 is 1970.
func (l *Lookahead) Add(due, offset int64) {
	l.records = append(l.records, record{max(due, 0), offset})
	heap.Push((*byDue)(l), uint32(len(l.records)-1))
	l.next = offset + 1
}

// AddTaken notes a record that is being given back already.
func (l *Lookahead) AddTaken(offset int64) {
	l.records = append(l.records, record{taken, offset})
	l.next = offset + 1
}

// Skip notes that there is nothing to give back up to offset, beyond what was
// added.
func (l *Lookahead) Skip(offset int64) { l.next = max(l.next, offset+1) }

// NextDue is when the next record is due; ok is false if none waits.
func (l *Lookahead) NextDue() (due int64, ok bool) {
	if len(l.heap) == 0 {
		return 0, false
	}
	return l.records[l.heap[0]].due, true
}

// Take returns the offset of the next record that is due at now, and takes it
// out of those that wait.
func (l *Lookahead) Take(now int64) (offset int64, ok bool) {
	if due, ok := l.NextDue(); !ok || due > now {
		return 0, false
	}
	r := &l.records[heap.Pop((*byDue)(l)).(uint32)]
	r.due = taken
	return r.offset, true
}

// PutBack lets a record that was taken wait again. It reports false for an
// offset that is not taken.
func (l *Lookahead) PutBack(due, offset int64) bool {
	i := l.find(offset)
	if i < 0 || l.records[i].due != taken {
		return false
	}
	l.records[i].due = max(due, 0)
	heap.Push((*byDue)(l), uint32(i))
	return true
}

// Finish notes that the record at offset, which was taken, has been given
// back. It reports false for an offset that is not taken.
func (l *Lookahead) Finish(offset int64) bool {
	i := l.find(offset)
	if i < 0 || l.records[i].due != taken {
		return false
	}
	l.records[i].due = finished
	l.dead++
	for l.head < len(l.records) && l.records[l.head].due == finished {
		l.head++
	}
	if l.dead >= compactAt && l.dead > len(l.records)/2 {
		l.compact()
	}
	return true
}

// Committable is the offset below which everything is finished; ok is false
// before the first record.
func (l *Lookahead) Committable() (offset int64, ok bool) {
	if l.Len() == 0 {
		return l.next, l.next > 0
	}
	return l.records[l.head].offset, true
}

// Due is when the record at offset is due; ok is false if none waits there.
func (l *Lookahead) Due(offset int64) (due int64, ok bool) {
	if i := l.find(offset); i >= 0 && l.records[i].due >= 0 {
		return l.records[i].due, true
	}
	return 0, false
}

// find is the index of the record at offset, -1 if it is not here.
func (l *Lookahead) find(offset int64) int {
	lo, hi := l.head, len(l.records)
	for lo < hi {
		if mid := (lo + hi) / 2; l.records[mid].offset < offset {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(l.records) || l.records[lo].offset != offset {
		return -1
	}
	return lo
}

// compact forgets the finished records. More than half of all are, so it costs
// a few steps for each of them.
func (l *Lookahead) compact() {
	kept := l.records[:0]
	if live := l.Len(); cap(kept) > 8*max(live, compactAt) { // a peak is over: give its memory back
		kept, l.heap = make([]record, 0, 2*live), make([]uint32, 0, 2*live)
	}
	l.heap = l.heap[:0]
	for _, r := range l.records[l.head:] {
		if r.due >= 0 {
			l.heap = append(l.heap, uint32(len(kept)))
		}
		if r.due != finished {
			kept = append(kept, r)
		}
	}
	l.records, l.head, l.dead = kept, 0, 0
	heap.Init((*byDue)(l))
}

// byDue is the heap of a Lookahead.
type byDue Lookahead

func (h *byDue) Len() int { return len(h.heap) }

func (h *byDue) Less(i, j int) bool {
	a, b := h.heap[i], h.heap[j]
	if x, y := h.records[a].due, h.records[b].due; x != y {
		return x < y
	}
	return a < b
}

func (h *byDue) Swap(i, j int) { h.heap[i], h.heap[j] = h.heap[j], h.heap[i] }
func (h *byDue) Push(x any)    { h.heap = append(h.heap, x.(uint32)) }

func (h *byDue) Pop() any {
	last := h.heap[len(h.heap)-1]
	h.heap = h.heap[:len(h.heap)-1]
	return last
}
