package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// groups are who reads what, without the prefix.
var groups = map[string][]string{
	"route":        {"events"},
	"audit.events": {"events"},
	"audit":        {"audit", "dead"},
	"delay":        {"overflow", "retry.1s", "retry.2s", "retry.4s", "retry.8s", "retry.16s"},
}

// lag looks for records that a group has not read to their end.
func (c *checker) lag(ctx context.Context, adm *kadm.Client, brokers []string) error {
	for _, group := range slices.Sorted(maps.Keys(groups)) {
		lags, err := adm.Lag(ctx, c.prefix+group)
		if err == nil {
			err = lags.Error()
		}
		if err != nil {
			return fmt.Errorf("lag of group %s: %w", group, err)
		}
		left := 0
		for _, topic := range groups[group] {
			n, err := c.unread(ctx, adm, brokers, c.prefix+topic, lags[c.prefix+group].Lag)
			if err != nil {
				return fmt.Errorf("lag of group %s: %w", group, err)
			}
			left += n
		}
		c.equal("group "+group+": records between committed and end offset", left, 0)
	}
	return nil
}

// unread counts a topic's records behind what the group has committed; the
// group must hold all of its partitions.
func (c *checker) unread(ctx context.Context, adm *kadm.Client, brokers []string, topic string, lag kadm.GroupLag) (left int, err error) {
	topics, err := adm.ListTopics(ctx, topic)
	if err := errors.Join(err, topics.Error()); err != nil {
		return 0, err
	}
	if want := len(topics[topic].Partitions); len(lag[topic]) != want || want == 0 {
		return 0, fmt.Errorf("it reads %d of %d partitions of %s", len(lag[topic]), want, topic)
	}
	for n, p := range lag[topic] {
		if p.Err != nil {
			return 0, fmt.Errorf("%s/%d: %w", topic, n, p.Err)
		}
		records, err := dataRecords(ctx, brokers, topic, n, p.Commit.At, p.End.Offset)
		if err != nil {
			return 0, err
		}
		left += records
	}
	return left, nil
}

// dataRecords counts the records of a partition in [from, to). A topic that is
// written in transactions ends with a marker, which no consumer commits past:
// that is none.
func dataRecords(ctx context.Context, brokers []string, topic string, partition int32, from, to int64) (int, error) {
	if from >= to {
		return 0, nil
	}
	n := 0
	err := read(ctx, brokers, map[string]map[int32]int64{topic: {partition: max(from, 0)}}, map[string]map[int32]int64{topic: {partition: to}},
		func(*kgo.Record) { n++ })
	return n, err
}
