package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/spillway/spillway/schemas"
)

// bare measures what the broker alone takes, in the same run and under the same
// load: a record is produced with acks=all to a topic of its own, replicated as
// `events` is, and a consumer waits for it. What Spillway adds is the
// difference.
type bare struct {
	kafka []kgo.Opt
	topic string
	now   clock
	taken latencies
}

const (
	bareEvery = 10 * time.Millisecond // between two records
	bareBytes = 300                   // of a record: an event's usual size
)

// open makes the topic.
func (b *bare) open(ctx context.Context, events string) error {
	admin, err := kadm.NewOptClient(b.kafka...)
	if err != nil {
		return err
	}
	defer admin.Close()
	like, err := admin.ListTopics(ctx, events)
	if err != nil {
		return err
	}
	if err := like[events].Err; err != nil {
		return err
	}
	replicas := int16(like[events].Partitions.NumReplicas())
	if _, err := admin.CreateTopic(ctx, 1, replicas, nil, b.topic); err != nil {
		return fmt.Errorf("create %s: %w", b.topic, err)
	}
	return nil
}

// close removes the topic.
func (b *bare) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	admin, err := kadm.NewOptClient(b.kafka...)
	if err != nil {
		return err
	}
	defer admin.Close()
	if _, err := admin.DeleteTopic(ctx, b.topic); err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return fmt.Errorf("delete %s: %w", b.topic, err)
	}
	return nil
}

// measure produces and consumes from the run's start until ctx ends or the run
// does. Producing is open loop: a record's time counts from when it was due.
func (b *bare) measure(ctx context.Context, run time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out, err := kgo.NewClient(append([]kgo.Opt{kgo.DefaultProduceTopic(b.topic), kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(kgo.NoCompression())}, b.kafka...)...)
	if err != nil {
		return err
	}
	defer out.Close()
	in, err := kgo.NewClient(append([]kgo.Opt{kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{b.topic: {0: kgo.NewOffset().AtStart()}})}, b.kafka...)...)
	if err != nil {
		return err
	}
	defer in.Close()
	var both errgroup.Group
	both.Go(func() error { b.consume(ctx, in); return nil })
	both.Go(func() error {
		defer cancel()
		return b.produce(ctx, out, run)
	})
	return both.Wait()
}

func (b *bare) produce(ctx context.Context, out *kgo.Client, run time.Duration) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for due := time.Duration(0); due < run; {
		if due > b.now() {
			select {
			case <-ticker.C:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		value := make([]byte, bareBytes)
		binary.BigEndian.PutUint64(value, uint64(due))
		out.Produce(ctx, &kgo.Record{Value: value}, nil) // one that is not acknowledged is not consumed either, and not measured
		due += bareEvery
	}
	return out.Flush(ctx)
}

func (b *bare) consume(ctx context.Context, in *kgo.Client) {
	for ctx.Err() == nil {
		in.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			if len(r.Value) == bareBytes {
				b.taken.add(b.now() - time.Duration(binary.BigEndian.Uint64(r.Value)))
			}
		})
	}
}

// newBare is a run's measurement of the broker alone.
func newBare(kafka []kgo.Opt, topics schemas.Topics, run string, now clock) *bare {
	return &bare{kafka: kafka, topic: topics.Prefix + "load." + run, now: now}
}
