package route

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/schemas"
)

// What route remembers of a partition is in Kafka: memory is a cache of it.
//
//	route.state p   w···r···r···w···r···r···w···r···r     one or more a transaction; w: whole
//	                ▲ start                         ▲ last
//	offsets of p    everything before `reached` is decided; metadata: topic id, last, clock, start
//
// Outputs, records of route.state and offsets belong to one transaction, so the
// record at last always says that it reaches exactly to the committed offset.

// A pointer is the metadata of a committed offset: where its state is.
type pointer struct {
	topic schemas.TopicID // of events
	last  int64           // offset in route.state of the record that reaches to the committed offset
	clock int64           // of the partition then, ms
	start int64           // offset of the whole record at which a restore begins
}

const pointerVersion = "1"

func (p pointer) String() string {
	return fmt.Sprintf("%s %s %d %d %d", pointerVersion, p.topic, p.last, p.clock, p.start)
}

func parsePointer(metadata string) (p pointer, err error) {
	var version, topic string
	if _, err := fmt.Sscanf(metadata, "%s %s %d %d %d", &version, &topic, &p.last, &p.clock, &p.start); err != nil || version != pointerVersion {
		return pointer{}, fmt.Errorf("the committed offset says %q, which is not where its state is", short(metadata))
	}
	p.topic, err = schemas.ParseTopicID(topic)
	if err != nil || p.last < 0 || p.start < 0 || p.start > p.last {
		return pointer{}, fmt.Errorf("the committed offset says %q, which names no place in route.state", short(metadata))
	}
	return p, nil
}

func short(s string) string { return strconv.QuoteToASCII(s[:min(len(s), 100)]) }

// A whole is a record of route.state at which a restore may begin.
type whole struct {
	offset int64
	record processors.Record
}

// needed are those of wholes that a restore at clock needs.
func needed(wholes []whole, clock int64) []whole {
	first := 0
	for first < len(wholes)-1 && !wholes[first].record.Needed(clock) {
		first++
	}
	return wholes[first:]
}

// maxStateRecord is when a whole record goes on in a second one.
const maxStateRecord = 8 << 20

// remember writes what the transaction under way changed in each partition's
// state.
func (s *session) remember() {
	for _, p := range s.parts {
		if !p.open || p.after == p.reached {
			continue
		}
		p.written = p.written[:0]
		m := processors.Mark{From: max(0, p.reached), To: p.after, Policies: s.tenants.now.Version(), Topic: s.topic}
		p.state.Pack(m, maxStateRecord, func(r processors.Record, packed []byte) {
			out := s.out.record(placeOf{p.number, p.after - 1})
			out.Topic, out.Partition = s.cfg.Topics.RouteState(), p.number
			out.Value = s.out.keep(append(s.out.buffer(len(packed)), packed...))
			p.written = append(p.written, written{out, r})
			s.send(out)
		})
	}
}

// written is a record of route.state of the transaction under way.
type written struct {
	out    *kgo.Record
	record processors.Record
}

// pointTo makes a commit say where the state of each partition is. Call it when
// Kafka has all records of the transaction.
func (s *session) pointTo(ctx context.Context) context.Context {
	for _, p := range s.parts {
		if p.next = p.at; !p.open || len(p.written) == 0 {
			continue
		}
		p.wholesAfter = append(p.wholesAfter[:0], p.wholes...)
		if first := p.written[0]; first.record.Whole {
			p.wholesAfter = append(p.wholesAfter, whole{first.out.Offset, first.record})
		}
		clock := p.state.Clock()
		p.wholesAfter = slices.Delete(p.wholesAfter, 0, len(p.wholesAfter)-len(needed(p.wholesAfter, clock)))
		p.next = pointer{topic: s.topic, last: p.written[len(p.written)-1].out.Offset, clock: clock, start: p.wholesAfter[0].offset}
	}
	return kgo.PreTxnCommitFnContext(ctx, s.point)
}

// point is called by the client just before it sends the offsets.
func (s *session) point(req *kmsg.TxnOffsetCommitRequest) error {
	for i := range req.Topics {
		for j := range req.Topics[i].Partitions {
			c := &req.Topics[i].Partitions[j]
			p := s.parts[c.Partition]
			if p == nil || !p.open || c.Offset > p.after {
				return fmt.Errorf("partition %d: offset %d would be committed without its state", c.Partition, c.Offset)
			}
			c.Offset = p.after // not less, if Kafka gave records again that were decided
			text := p.next.String()
			c.Metadata = &text
		}
	}
	return nil
}
