package route

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// An output is the memory of one transaction's records: they, their headers
// and what their values are made of, in chunks that never move, reused once
// the transaction has committed. After an abort it is given up instead, for
// the client may still be reading it.
type output struct {
	records [][]kgo.Record // full chunks but the last
	of      []placeOf      // the event of each record, in order
	headers []kgo.RecordHeader
	bytes   []byte

	mu     sync.Mutex
	failed []failure
}

type failure struct {
	record *kgo.Record
	err    error
	of     placeOf
}

const (
	recordChunk = 1024
	headerChunk = 8192
	byteChunk   = 1 << 20
	maxKept     = 4 << 20 // a larger chunk is given back after its transaction
)

// record is a zero record that stays where it is.
func (o *output) record(of placeOf) *kgo.Record {
	n := len(o.records)
	if n == 0 || len(o.records[n-1]) == recordChunk {
		o.records = append(o.records, make([]kgo.Record, 0, recordChunk))
		n++
	}
	chunk := append(o.records[n-1], kgo.Record{})
	o.records[n-1] = chunk
	o.of = append(o.of, of)
	return &chunk[len(chunk)-1]
}

// buffer is an empty slice with room for n bytes; keep what was appended to it.
func (o *output) buffer(n int) []byte {
	if cap(o.bytes)-len(o.bytes) < n {
		o.bytes = make([]byte, 0, max(n, byteChunk))
	}
	return o.bytes[len(o.bytes):len(o.bytes):cap(o.bytes)]
}

// keep makes b, from buffer, stay until the transaction has ended.
func (o *output) keep(b []byte) []byte {
	if free := o.bytes[len(o.bytes):cap(o.bytes)]; len(b) > 0 && len(free) > 0 && &free[0] == &b[0] {
		o.bytes = o.bytes[:len(o.bytes)+len(b)]
	}
	return b[:len(b):len(b)]
}

// headersOf is an empty list with room for n headers.
func (o *output) headersOf(n int) []kgo.RecordHeader {
	if cap(o.headers)-len(o.headers) < n {
		o.headers = make([]kgo.RecordHeader, 0, max(n, headerChunk))
	}
	start := len(o.headers)
	o.headers = o.headers[:start+n]
	return o.headers[start : start : start+n]
}

// promise is called by the client for each record, on its own goroutine.
func (o *output) promise(r *kgo.Record, err error) {
	if err != nil {
		o.mu.Lock()
		o.failed = append(o.failed, failure{record: r, err: err})
		o.mu.Unlock()
	}
}

// failures are the records that were not appended, with their events.
func (o *output) failures() []failure {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.failed {
		o.failed[i].of = o.eventOf(o.failed[i].record)
	}
	return o.failed
}

func (o *output) eventOf(r *kgo.Record) placeOf {
	for c, chunk := range o.records {
		for i := range chunk {
			if &chunk[i] == r {
				return o.of[c*recordChunk+i]
			}
		}
	}
	return placeOf{-1, -1}
}

// reuse begins anew with the same memory.
func (o *output) reuse() {
	if len(o.records) > 1 {
		o.records = o.records[:1]
	}
	if len(o.records) == 1 {
		clear(o.records[0]) // they point to fetched records
		o.records[0] = o.records[0][:0]
	}
	clear(o.headers)
	o.of, o.headers, o.bytes = o.of[:0], o.headers[:0], o.bytes[:0]
	if cap(o.bytes) > maxKept {
		o.bytes = nil
	}
	o.forgetFailures()
}

// drop gives the memory up.
func (o *output) drop() {
	o.records, o.of, o.headers, o.bytes = nil, nil, nil, nil
	o.forgetFailures()
}

func (o *output) forgetFailures() {
	o.mu.Lock()
	o.failed = nil
	o.mu.Unlock()
}

// originals copies the headers that an event came with, without Spillway's
// own, at most schemas.MaxHeaders bytes of them, and leaves room for more.
func (o *output) originals(r *kgo.Record, room int) []kgo.RecordHeader {
	out := o.headersOf(min(len(r.Headers), maxHeaderCount) + room)
	size := 0
	for _, h := range r.Headers {
		if len(out) == maxHeaderCount || size+len(h.Key)+len(h.Value) > schemas.MaxHeaders {
			break
		}
		if internal(h.Key) {
			continue
		}
		size += len(h.Key) + len(h.Value)
		out = append(out, h)
	}
	return out
}

const maxHeaderCount = 1024

func internal(key string) bool {
	const p = schemas.HeaderInternal
	return len(key) >= len(p) && key[:len(p)] == p
}
