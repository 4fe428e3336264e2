package route

import (
	"context"
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
// the next time. Nor is one that has good records before it, for those come
// with this poll or the next ones, and only then it is its turn.
func (s *session) corrupt(ctx context.Context, number int32, polled error) (span, bool) {
	at := s.position(ctx, number)
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	part, err := s.fetch(ctx, number, at)
	if err != nil {
		s.log.Warn("a batch cannot be decoded and not be read again", "partition", number, "offset", at, "err", errors.Join(polled, err))
		return span{}, false
	}
	bounded, ok := s.gts.Client().OptValue(kgo.WithDecompressor).(kgo.Decompressor)
	if !ok {
		panic("route: the client has no decompressor")
	}
	for {
		b, ok := schemas.BatchAt(part.RecordBatches, at)
		if !ok || b.Raw == nil {
			return span{}, false
		}
		one := *part
		one.RecordBatches = b.Raw
		got, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
			Offset: at, Topic: s.cfg.Topics.Events(), Partition: number, IsolationLevel: kgo.ReadUncommitted(), KeepControlRecords: true,
		}, &one, bounded, nil)
		var code *kerr.Error
		switch {
		case got.Err != nil && !errors.As(got.Err, &code):
			s.log.Error("a batch is corrupt and skipped", "topic", s.cfg.Topics.Events(), "partition", number, "offset", b.Offset, "next", b.Next, "err", got.Err)
			return span{number, b.Offset, b.Next, b.Epoch, "cannot be decoded: " + got.Err.Error()}, true
		case len(got.Records) > 0:
			return span{}, false
		}
		at = b.Next
	}
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
