package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

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
		if err == nil {
			in.log.Store(log)
		} else {
			pause = topicRetry
			in.lastError.Store(&err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
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
	case t.Err != nil:
		return nil, fmt.Errorf("topic %s: %w; spillway setup creates it", in.topic, t.Err)
	case t.ID == kadm.TopicID{}:
		return nil, errors.New("Kafka gives topics no ids: it must be 4.0 or later")
	case len(t.Partitions) < int(in.cfg.Partitions):
		return nil, fmt.Errorf("topic %s has %d partitions, want %d: spillway setup says what differs", in.topic, len(t.Partitions), in.cfg.Partitions)
	}
	return &eventsLog{id: schemas.TopicID(t.ID)}, nil
}

// topicID is the id of `events`. It refuses until Kafka has told it once.
func (in *Ingest) topicID() (schemas.TopicID, *binding.Refusal) {
	if log := in.log.Load(); log != nil {
		return log.id, nil
	}
	if err := in.lastError.Load(); err != nil {
		return schemas.TopicID{}, kafkaUnavailable("Kafka has not answered yet: %v", *err)
	}
	return schemas.TopicID{}, kafkaUnavailable("Kafka has not answered yet")
}
