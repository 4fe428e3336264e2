package delay

import (
	"context"
	"errors"
	"fmt"

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

// keep keeps r if there is room.
func (p *payloads) keep(tp partition, r *kgo.Record) bool { return p.keepWithin(p.max, tp, r) }

// keepAgain keeps r, which was read again because its neighbour is due: it has
// room of its own, else a memory full of what is due much later would make
// every record cost a reading.
func (p *payloads) keepAgain(tp partition, r *kgo.Record) bool {
	return p.keepWithin(p.max+2*readAheadMax, tp, r)
}

func (p *payloads) keepWithin(limit int64, tp partition, r *kgo.Record) bool {
	n := recordBytes(r)
	if p.size+n > limit {
		return false
	}
	if _, ok := p.records[slot{tp, r.Offset}]; !ok {
		p.records[slot{tp, r.Offset}] = r
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

func recordBytes(r *kgo.Record) int64 {
	n := int64(len(r.Key)+len(r.Value)) + 256
	for _, h := range r.Headers {
		n += int64(len(h.Key)+len(h.Value)) + 40
	}
	return n
}

var errGone = errors.New("the record is gone: retention is shorter than the wait")

// readFrom reads a partition again, from the record at offset on, readAheadMax
// bytes or so. It uses a client of its own, for the group's goes forward only.
//
// errGone says that the record is not there any more; any other error may pass.
func readFrom(ctx context.Context, opts []kgo.Opt, tp partition, offset int64) ([]*kgo.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, readAgain)
	defer cancel()
	client, err := kgo.NewClient(append(readOptions(opts),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{tp.topic: {tp.number: kgo.NewOffset().At(offset)}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchMaxPartitionBytes(readAheadMax),
	)...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	fetches := client.PollFetches(ctx)
	if err := fetches.Err(); err != nil {
		return nil, fmt.Errorf("read %s/%d offset %d again: %w", tp.topic, tp.number, offset, err)
	}
	records := fetches.Records()
	if len(records) == 0 || records[0].Offset != offset {
		return nil, fmt.Errorf("%s/%d offset %d: %w", tp.topic, tp.number, offset, errGone)
	}
	return records, nil
}
