package main

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

var statuses = []string{"pending", "processing", "failed", "delivered", "dead", "duplicate", "dropped", "cancelled"}

// readDecision reads a record of audit; is reports whether it is a Transition
// and not something else. A Transition holds the 16 bytes of the topic id right
// behind the tenant, which nothing else there does.
func readDecision(r *kgo.Record, topic [16]byte) (d decision, is bool, err error) {
	if len(r.Value) < 5 || r.Value[0] != 0 {
		return d, false, fmt.Errorf("audit %s: no wire format", placeOf(r))
	}
	b := &avro{rest: r.Value[5:]}
	tenant := b.text()
	if id := b.take(16); [16]byte(append(id[:len(id):len(id)], make([]byte, 16)...)[:16]) != topic || b.err != nil {
		return d, false, nil
	}
	d = decision{in: placeOf(r), tenant: tenant}
	d.origin = place{int32(b.long()), b.long()}
	b.long() // accepted_at
	d.id = b.text()
	if n := b.long(); n >= 0 && n < int64(len(statuses)) {
		d.status = statuses[n]
	} else {
		b.err = errors.New("no such status")
	}
	d.path, d.reason = b.text(), b.text()
	d.generation, d.attempt = int32(b.long()), int32(b.long())
	b.long() // ts
	b.long() // latency_us
	b.text() // node
	b.text() // session
	b.text() // trace_id
	d.ofReplay = b.text()
	d.home, d.cursor = int32(b.long()), b.long()
	if b.err == nil && len(b.rest) > 0 {
		b.err = fmt.Errorf("%d bytes too many", len(b.rest))
	}
	if b.err != nil {
		return d, false, fmt.Errorf("audit %s: %w", placeOf(r), b.err)
	}
	return d, true, nil
}

// avro reads Avro's binary encoding.
type avro struct {
	rest []byte
	err  error
}

func (a *avro) long() int64 {
	n, size := binary.Varint(a.rest) // zigzag, as Avro has it
	if size <= 0 {
		a.err = errors.New("too short")
		return 0
	}
	a.rest = a.rest[size:]
	return n
}

func (a *avro) take(n int64) []byte {
	if n < 0 || n > int64(len(a.rest)) {
		a.err = errors.New("too short")
		return nil
	}
	out := a.rest[:n]
	a.rest = a.rest[n:]
	return out
}

func (a *avro) text() string { return string(a.take(a.long())) }
