package delay

import (
	"container/heap"
	"math/bits"
)

// A Lookahead knows when each record of one partition is due and which of them
// are finished. Records are added in offset order, come out in order of their
// due times (those of one due time in offset order), and are finished in any
// order. It is pure: the caller has the clock. 20 bytes and a bit a record.
//
// Route never lets a tenant's due times of one class decrease, so what comes
// out in order of due is in offset order for them.
type Lookahead struct {
	first   uint64   // number of records[0]
	records []record // from the oldest unfinished one to the newest
	done    []uint64 // bit per record, from number first &^ 63
	heap    []uint32 // numbers minus first &^… of waiting records, by (due, number); see number
	base    uint64   // what is added to heap entries to make numbers
	next    int64    // offset after the newest record
}

type record struct{ due, offset int64 }

// Len is how many records it holds, finished ones that wait for an older one
// included.
func (l *Lookahead) Len() int { return len(l.records) }

// Waiting is how many records are not due yet or were not taken.
func (l *Lookahead) Waiting() int { return len(l.heap) }

// Add notes a record. Offsets must grow.
func (l *Lookahead) Add(due, offset int64) {
	l.rebase()
	number := l.first + uint64(len(l.records))
	l.records = append(l.records, record{due, offset})
	if words := int((number-l.first&^63)/64) + 1; words > len(l.done) {
		l.done = append(l.done, 0)
	}
	heap.Push((*byDue)(l), uint32(number-l.base))
	l.next = offset + 1
}

// NextDue is when the next record is due; ok is false if none waits.
func (l *Lookahead) NextDue() (due int64, ok bool) {
	if len(l.heap) == 0 {
		return 0, false
	}
	return l.at(l.heap[0]).due, true
}

// Take returns the offset of the next record that is due at now, and takes it
// out of those that wait.
func (l *Lookahead) Take(now int64) (offset int64, ok bool) {
	if due, ok := l.NextDue(); !ok || due > now {
		return 0, false
	}
	r := l.at(heap.Pop((*byDue)(l)).(uint32))
	return r.offset, true
}

// Finish notes that the record at offset has been given back. It reports false
// for an offset that is not here.
func (l *Lookahead) Finish(offset int64) bool {
	i := l.find(offset)
	if i < 0 {
		return false
	}
	bit := l.first&63 + uint64(i)
	l.done[bit/64] |= 1 << (bit % 64)
	l.shrink()
	return true
}

// Committable is the offset below which everything is finished; ok is false
// before the first record.
func (l *Lookahead) Committable() (offset int64, ok bool) {
	if len(l.records) == 0 {
		return l.next, l.next > 0
	}
	return l.records[0].offset, true
}

// Holds reports whether the record at offset is here and not finished.
func (l *Lookahead) Holds(offset int64) bool {
	i := l.find(offset)
	if i < 0 {
		return false
	}
	bit := l.first&63 + uint64(i)
	return l.done[bit/64]&(1<<(bit%64)) == 0
}

// find is the index of the record at offset, -1 if it is not here.
func (l *Lookahead) find(offset int64) int {
	lo, hi := 0, len(l.records)
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

// shrink drops the finished records at the front.
func (l *Lookahead) shrink() {
	n := 0
	for word := 0; word < len(l.done); word++ {
		skip := 0
		if word == 0 {
			skip = int(l.first & 63)
		}
		ones := bits.TrailingZeros64(^(l.done[word] >> skip))
		ones = min(ones, 64-skip)
		n += ones
		if ones < 64-skip {
			break
		}
	}
	n = min(n, len(l.records))
	if n == 0 {
		return
	}
	words := (l.first+uint64(n))/64 - l.first/64
	l.first += uint64(n)
	l.records = l.records[n:]
	l.done = l.done[min(int(words), len(l.done)):]
}

func (l *Lookahead) at(short uint32) record { return l.records[l.base+uint64(short)-l.first] }

// rebase keeps heap entries within 32 bits.
func (l *Lookahead) rebase() {
	if l.first-l.base < 1<<31 {
		return
	}
	shift := uint32(l.first - l.base)
	for i := range l.heap {
		l.heap[i] -= shift // all that wait are at first or after
	}
	l.base = l.first
}

// byDue is the heap of a Lookahead.
type byDue Lookahead

func (h *byDue) Len() int { return len(h.heap) }

func (h *byDue) Less(i, j int) bool {
	l := (*Lookahead)(h)
	a, b := l.at(h.heap[i]), l.at(h.heap[j])
	return a.due < b.due || a.due == b.due && a.offset < b.offset
}

func (h *byDue) Swap(i, j int) { h.heap[i], h.heap[j] = h.heap[j], h.heap[i] }
func (h *byDue) Push(x any)    { h.heap = append(h.heap, x.(uint32)) }

func (h *byDue) Pop() any {
	last := h.heap[len(h.heap)-1]
	h.heap = h.heap[:len(h.heap)-1]
	return last
}
