package tail

// A queue is a first-in first-out list that is read by index. Its zero value
// is empty. Memory follows its length within a factor of two.
type queue[T any] struct {
	items []T
	off   int
}

func (q *queue[T]) len() int { return len(q.items) - q.off }

// at returns the i-th item from the oldest. The pointer is good until the next
// push or drop.
func (q *queue[T]) at(i int) *T { return &q.items[q.off+i] }

func (q *queue[T]) push(v T) { q.items = append(q.items, v) }

// drop forgets the n oldest items.
func (q *queue[T]) drop(n int) {
	clear(q.items[q.off : q.off+n]) // lets go of what they point to
	q.off += n
	if q.off > 32 && q.off*2 > len(q.items) {
		q.items = append(make([]T, 0, q.len()+q.len()/4), q.items[q.off:]...)
		q.off = 0
	}
}
