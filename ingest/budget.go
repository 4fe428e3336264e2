package ingest

import (
	"sync"
	"sync/atomic"
)

// A budget bounds what is in flight. Nothing waits for it: what does not fit is
// refused.
type budget struct {
	most int64
	used atomic.Int64
}

func (b *budget) take(n int64) bool {
	if b.used.Add(n) > b.most {
		b.used.Add(-n)
		return false
	}
	return true
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// A hold is what one request has taken of both budgets. It is given back once:
// when the request is answered and Kafka has answered for all of its records.
type hold struct {
	events, bytes         *budget
	heldEvents, heldBytes int64
	owners                atomic.Int32 // the handler, and the produce
}

func (h *hold) takeBytes(n int64) bool {
	if !h.bytes.take(n) {
		return false
	}
	h.heldBytes += n
	return true
}

func (h *hold) takeEvents(n int64) bool {
	if !h.events.take(n) {
		return false
	}
	h.heldEvents += n
	return true
}

// release is called by each owner; the last one gives everything back.
func (h *hold) release() {
	if h.owners.Add(-1) == 0 {
		h.events.give(h.heldEvents)
		h.bytes.give(h.heldBytes)
	}
}

// buffer is pooled memory.
type buffer struct{ b []byte }

// bufferPool keeps buffers, but not those that one huge request made.
type bufferPool struct{ pool sync.Pool }

const keepBuffer = 1 << 20 // bytes

var buffers = bufferPool{sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, 4096)} }}}

func (p *bufferPool) get() *buffer { return p.pool.Get().(*buffer) }

func (p *bufferPool) put(b *buffer) {
	if cap(b.b) <= keepBuffer {
		p.pool.Put(b)
	}
}
