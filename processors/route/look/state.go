package look

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/schemas"
)

// before is what was remembered just before a batch.
type before struct {
	state    *processors.State
	reached  int64 // first offset that the state does not know
	decided  bool  // the batch that holds the record is committed
	policies int64 // version that decided it
}

// errEnough ends a reading.
var errEnough = errors.New("enough")

// stateBefore folds route.state up to the batch that holds offset.
func (l *look) stateBefore(ctx context.Context, partition int32, offset int64) (before, error) {
	b := before{reached: -1, policies: l.Policies}
	fold := processors.NewRestore(0)
	err := l.read(ctx, l.Topics.RouteState(), partition, 0, -1, kgo.ReadCommitted(), func(r *kgo.Record) error {
		head, err := processors.ReadRecord(r.Value)
		switch {
		case err != nil:
			return fmt.Errorf("%s/%d/%d: %w", r.Topic, r.Partition, r.Offset, err)
		case b.reached < 0 && !head.Whole:
			return nil // the log begins in the middle of an hour
		case b.reached < 0 && head.From > offset:
			return fmt.Errorf("route.state no longer holds what was remembered before offset %d: %w", offset, ErrNotFound)
		case head.To > offset && head.From <= offset:
			if b.reached < 0 && !head.Fresh {
				return fmt.Errorf("route.state no longer holds what was remembered before offset %d: %w", offset, ErrNotFound)
			}
			b.reached, b.decided, b.policies = head.From, true, head.Policies
			return errEnough
		}
		b.reached = head.To
		_, err = fold.Apply(r.Value)
		return err
	})
	if err != nil && !errors.Is(err, errEnough) {
		return b, err
	}
	b.state = fold.State()
	if b.reached < 0 { // nothing was ever decided: route begins at the log start
		b.reached = 0
	}
	return b, nil
}

// stall is how long a reading waits for the next record.
const stall = 10 * time.Second

// read calls each with the records of a partition from offset from to last, or
// to its end if last is negative. An error of each ends it.
func (l *look) read(ctx context.Context, topic string, partition int32, from, last int64, isolation kgo.IsolationLevel, each func(*kgo.Record) error) error {
	admin := kadm.NewClient(l.client)
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return fmt.Errorf("where %s begins: %w", topic, err)
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return fmt.Errorf("where %s ends: %w", topic, err)
	}
	start, ok := starts.Lookup(topic, partition)
	end, _ := ends.Lookup(topic, partition)
	if err := errors.Join(start.Err, end.Err); err != nil || !ok {
		return fmt.Errorf("%s has no partition %d: %w", topic, partition, errors.Join(err, ErrNotFound))
	}
	if last < 0 || last >= end.Offset {
		last = end.Offset - 1
	}
	if from = max(from, start.Offset); from > last {
		return nil
	}
	client, err := kgo.NewClient(append(append([]kgo.Opt{}, l.Kafka...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(from)}}),
		kgo.FetchIsolationLevel(isolation), kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond),
		kgo.MaxDecompressBatchBytes(schemas.MaxRouteBatch))...)
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		poll, cancel := context.WithTimeout(ctx, stall)
		fetches := client.PollFetches(poll)
		cancel()
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read %s/%d: %w", topic, partition, err)
		}
		for _, r := range fetches.Records() {
			if r.Offset > last {
				return nil
			}
			if !r.Attrs.IsControl() {
				if err := each(r); err != nil {
					return err
				}
			}
			if r.Offset == last {
				return nil
			}
		}
	}
}
