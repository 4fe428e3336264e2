package route

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// inspectPause is the time between two tries to reach Kafka at the start.
const inspectPause = time.Second

// inspect learns the topic id of `events` and refuses a topic that would make
// decisions wrong. While Kafka cannot be reached it tries again.
func (r *Router) inspect(ctx context.Context) error {
	client, err := kgo.NewClient(r.cfg.Kafka...)
	if err != nil {
		return fmt.Errorf("route: %w", err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	for {
		reached, err := r.inspectOnce(ctx, admin)
		if reached {
			return err
		}
		r.say("route cannot describe " + r.cfg.Topics.Events() + ": " + err.Error())
		r.cfg.Logger.Warn("events cannot be described, trying again", "topic", r.cfg.Topics.Events(), "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(inspectPause):
		}
	}
}

// inspectOnce reports whether Kafka answered; then the error is final.
func (r *Router) inspectOnce(ctx context.Context, admin *kadm.Client) (reached bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	name := r.cfg.Topics.Events()
	topics, err := admin.ListTopics(ctx, name)
	if err != nil {
		return false, err
	}
	detail := topics[name]
	if detail.Err != nil || len(detail.Partitions) == 0 {
		return true, fmt.Errorf("route: topic %s does not exist: run spillway setup", name)
	}
	if n := int32(len(detail.Partitions)); n != r.cfg.Partitions {
		return true, fmt.Errorf("route: topic %s has %d partitions, want %d: home partitions would differ", name, n, r.cfg.Partitions)
	}
	configs, err := admin.DescribeTopicConfigs(ctx, name)
	if err != nil {
		return false, err
	}
	for _, c := range configs {
		for _, entry := range c.Configs {
			if entry.Key == "message.timestamp.type" && entry.MaybeValue() == "LogAppendTime" {
				r.topic = schemas.TopicID(detail.ID)
				return true, nil
			}
		}
	}
	return true, fmt.Errorf("route: topic %s is not message.timestamp.type=LogAppendTime: producers could forge the clock; run spillway setup", name)
}
