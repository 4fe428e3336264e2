package delay

import (
	"bytes"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// payloads keeps whole records up to a number of bytes, for all partitions.
// The oldest in a partition are due first as a rule, so what comes when it is
// full is not kept, and read again when its time has come.
type payloads struct {
	max, size int64
	records   map[slot]*kgo.Record
}

// A slot is the place of a record.
type slot struct {
	tp     partition
	offset int64
}

func newPayloads(limit int64) *payloads {
	return &payloads{max: limit, records: map[slot]*kgo.Record{}}
}

// keep keeps a copy of r if there is room.
func (p *payloads) keep(tp partition, r *kgo.Record) bool { return p.keepWithin(p.max, tp, r) }

// keepAgain keeps a copy of r, which was read again because its neighbour is
// due: it has room of its own, else a memory full of what is due much later
// would make every record cost a reading.
func (p *payloads) keepAgain(tp partition, r *kgo.Record) bool {
	return p.keepWithin(p.max+2*readAheadMax, tp, r)
}

func (p *payloads) keepWithin(limit int64, tp partition, r *kgo.Record) bool {
	n := recordBytes(r)
	if p.size+n > limit {
		return false
	}
	if _, ok := p.records[slot{tp, r.Offset}]; !ok {
		p.records[slot{tp, r.Offset}] = clone(r)
		p.size += n
	}
	return true
}

// take returns a record and forgets it; nil if it was not kept.
func (p *payloads) take(tp partition, offset int64) *kgo.Record {
	s := slot{tp, offset}
	r := p.records[s]
	if r != nil {
		delete(p.records, s)
		p.size -= recordBytes(r)
	}
	return r
}

// forget drops all of a partition.
func (p *payloads) forget(tp partition) {
	for s, r := range p.records {
		if s.tp == tp {
			delete(p.records, s)
			p.size -= recordBytes(r)
		}
	}
}

// clone copies what a return is made of. All records of a batch share one
// decompressed slice: without a copy a small one would hold megabytes.
func clone(r *kgo.Record) *kgo.Record {
	c := &kgo.Record{
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp,
		Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value), Headers: make([]kgo.RecordHeader, len(r.Headers)),
	}
	for i, h := range r.Headers {
		c.Headers[i] = kgo.RecordHeader{Key: strings.Clone(h.Key), Value: bytes.Clone(h.Value)}
	}
	return c
}

// recordBytes is about what a kept record takes in memory.
func recordBytes(r *kgo.Record) int64 {
	n := int64(len(r.Key)+len(r.Value)) + 256
	for _, h := range r.Headers {
		n += int64(len(h.Key)+len(h.Value)) + 40
	}
	return n
}
