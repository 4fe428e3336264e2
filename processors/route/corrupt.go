package route

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/spillway/spillway/schemas"
)

// A span is a batch that cannot be decoded: offsets [offset, next).
type span struct {
	partition    int32
	offset, next int64
	epoch        int32
	why          string // what its offsets do, for a person
}

// readTimeout bounds one reading of a batch that may be corrupt.
const readTimeout = 2 * time.Second

// corrupt reports which batch it is that a poll could not decode, for an error
// that is not Kafka's. It reads the batch again, on another connection: only one
// that is wrong there too is skipped, for what the network spoilt comes whole
// the next time.
func (s *session) corrupt(ctx context.Context, number int32, polled error) (span, bool) {
	at := s.position(ctx, number)
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	part, err := s.fetch(ctx, number, at)
	if err != nil {
		s.log.Warn("a batch cannot be decoded and not be read again", "partition", number, "offset", at, "err", errors.Join(polled, err))
		return span{}, false
	}
	for {
		got, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
			Offset: at, Topic: s.cfg.Topics.Events(), Partition: number, IsolationLevel: kgo.ReadUncommitted(), KeepControlRecords: true,
		}, part, kgo.DefaultDecompressor(), nil)
		var code *kerr.Error
		if got.Err != nil && !errors.As(got.Err, &code) {
			if bad, ok := batchAt(part.RecordBatches, next); ok {
				bad.partition, bad.why = number, "cannot be decoded: "+got.Err.Error()
				s.log.Error("a batch is corrupt and skipped", "topic", s.cfg.Topics.Events(), "partition", number, "offset", bad.offset, "next", bad.next, "err", got.Err)
				return bad, true
			}
		}
		if next <= at {
			return span{}, false
		}
		at = next // what could be decoded hides what comes behind it
	}
}

// Offsets into a batch: Kafka's record batch, magic 2.
const (
	batchLength     = 8
	batchEpoch      = 12
	batchLastDelta  = 23
	batchHeader     = 27
	batchOverhead   = 12      // base offset and length are not in the length
	mostLastOffsets = 1 << 24 // offsets that one batch can claim; more are garbage
)

// batchAt finds the batch among raw ones that holds an offset. Where it ends is
// where the next one begins: its own header may be what is corrupt.
func batchAt(raw []byte, offset int64) (span, bool) {
	for len(raw) >= batchHeader {
		base := int64(binary.BigEndian.Uint64(raw))
		length := int64(int32(binary.BigEndian.Uint32(raw[batchLength:]))) + batchOverhead
		last := base + int64(int32(binary.BigEndian.Uint32(raw[batchLastDelta:])))
		next := last + 1
		if length >= batchHeader && int64(len(raw)) >= length+batchOverhead {
			next = int64(binary.BigEndian.Uint64(raw[length:]))
		}
		if next <= base || next-base > mostLastOffsets {
			next = base + 1
		}
		if offset < next {
			return span{offset: max(base, offset), next: max(next, offset+1), epoch: int32(binary.BigEndian.Uint32(raw[batchEpoch:]))}, true
		}
		if length < batchHeader || length > int64(len(raw)) {
			return span{}, false
		}
		raw = raw[length:]
	}
	return span{}, false
}

// fetch reads a partition of `events` once, from its leader.
func (s *session) fetch(ctx context.Context, number int32, offset int64) (*kmsg.FetchResponseTopicPartition, error) {
	client := s.forwards.client
	leader, _, err := s.gts.Client().PartitionLeader(s.cfg.Topics.Events(), number)
	if err != nil {
		return nil, fmt.Errorf("ask for the leader: %w", err)
	}
	if leader < 0 {
		return nil, kerr.LeaderNotAvailable
	}
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition, part.FetchOffset, part.PartitionMaxBytes = number, offset, schemas.MaxClientBatch
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID, topic.Partitions = s.cfg.Topics.Events(), s.topic, append(topic.Partitions, part)
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes, req.MaxWaitMillis, req.MinBytes = schemas.MaxRouteBatch, 500, 1
	req.Topics = append(req.Topics, topic)
	answer, err := client.Broker(int(leader)).RetriableRequest(ctx, req)
	if err != nil {
		return nil, err
	}
	resp, ok := answer.(*kmsg.FetchResponse)
	switch {
	case !ok:
		return nil, fmt.Errorf("the answer is a %T", answer)
	case resp.ErrorCode != 0:
		return nil, kerr.ErrorForCode(resp.ErrorCode)
	case len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1:
		return nil, errors.New("the answer is not about the partition")
	case resp.Topics[0].Partitions[0].ErrorCode != 0:
		return nil, kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
	return &resp.Topics[0].Partitions[0], nil
}
