package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/spillway/spillway/ingest/binding"
	"github.com/spillway/spillway/schemas"
)

// eventsLog is what ingest must know of the topic `events`.
type eventsLog struct{ id schemas.TopicID }

// How often the topic is looked at: its id changes when it is made anew.
const (
	topicEvery = 30 * time.Second
	topicRetry = 500 * time.Millisecond
	topicWait  = 5 * time.Second // for one answer
)

// watchTopic keeps in.log up to date until ctx ends.
func (in *Ingest) watchTopic(ctx context.Context) {
	admin := kadm.NewClient(in.client)
	for {
		pause := topicEvery
		log, err := in.lookAtTopic(ctx, admin)
		switch {
		case err == nil:
			in.found(log)
		case ctx.Err() != nil:
			return
		default:
			pause = topicRetry
			in.lost(err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-in.look:
			timer.Stop()
		}
	}
}

// found notes that the topic is there and well. If it is another one than
// before, the client must forget the old one: it would go on writing to that.
func (in *Ingest) found(log *eventsLog) {
	if before := in.log.Load(); before != nil && before.id != log.id {
		in.cfg.Logger.Error("the topic was deleted and made anew; events go to the new one", "topic", in.topic, "id", log.id.String(), "before", before.id.String())
		in.metrics.topicChanges.Inc()
		in.client.PurgeTopicsFromClient(in.topic)
	}
	in.log.Store(log)
	if in.trouble.Swap(nil) != nil {
		in.cfg.Logger.Info("the topic is as it must be", "topic", in.topic)
	}
}

// lost notes why the topic cannot be looked at, or what is wrong with it.
func (in *Ingest) lost(err error) {
	in.lastError.Store(&err)
	if before := in.trouble.Swap(&err); before == nil || (*before).Error() != err.Error() {
		in.cfg.Logger.Warn("the topic is not as it must be, or Kafka does not say", "topic", in.topic, "err", err)
	}
}

// lookAgain has watchTopic look at the topic now.
func (in *Ingest) lookAgain() {
	select {
	case in.look <- struct{}{}:
	default: // it will already
	}
}

func (in *Ingest) lookAtTopic(ctx context.Context, admin *kadm.Client) (*eventsLog, error) {
	ctx, cancel := context.WithTimeout(ctx, topicWait)
	defer cancel()
	topics, err := admin.ListTopics(ctx, in.topic)
	if err != nil {
		return nil, fmt.Errorf("ask Kafka for topic %s: %w", in.topic, err)
	}
	t := topics[in.topic]
	switch {
	case errors.Is(t.Err, kerr.UnknownTopicOrPartition):
		return nil, fmt.Errorf("topic %s: %w", in.topic, errNoTopic)
	case t.Err != nil:
		return nil, fmt.Errorf("topic %s: %w", in.topic, t.Err)
	case t.ID == kadm.TopicID{}:
		return nil, errors.New("Kafka gives topics no ids: it must be 4.0 or later")
	case len(t.Partitions) < int(in.cfg.Partitions):
		return nil, fmt.Errorf("topic %s has %d partitions, want %d: spillway setup says what differs", in.topic, len(t.Partitions), in.cfg.Partitions)
	}
	return &eventsLog{id: schemas.TopicID(t.ID)}, nil
}

// errNoTopic is what lookAtTopic returns if there is none.
var errNoTopic = errors.New("Kafka has no such topic; spillway setup creates it")

// topicID is the id of `events`. It refuses until Kafka has told it once, and
// while there is no such topic.
func (in *Ingest) topicID() (schemas.TopicID, *binding.Refusal) {
	if trouble := in.trouble.Load(); trouble != nil && errors.Is(*trouble, errNoTopic) {
		return schemas.TopicID{}, kafkaUnavailable("%v", *trouble)
	}
	if log := in.log.Load(); log != nil {
		return log.id, nil
	}
	if err := in.lastError.Load(); err != nil {
		return schemas.TopicID{}, kafkaUnavailable("Kafka has not answered yet: %v", *err)
	}
	return schemas.TopicID{}, kafkaUnavailable("Kafka has not answered yet")
}
