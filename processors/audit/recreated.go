package audit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/spillway/spillway/schemas"
)

// A topic that is deleted and made anew has another id, and its offsets begin
// again. Those of the old one say nothing about it:
//
//	while it runs     reads fail ─▶ what is held is inserted ─▶ a new client, from the new start
//	at an assignment  committed offsets carry the id of their topic; of another one ─▶ from the start
//
// The same mends an offset that the topic no longer holds, after an outage
// longer than its retention. What nobody had read is gone then, and the log
// says so.

// errRecreated ends a reader's client: the next one finds where to begin.
var errRecreated = errors.New("a topic was deleted and made anew, or no longer holds what comes next")

// askTopics is how often the ids of topics are asked for while reads fail.
const askTopics = time.Second

// kafkaTimeout bounds a question to Kafka.
const kafkaTimeout = 10 * time.Second

// markTopic precedes the topic's id in the metadata of a committed offset.
const markTopic = "topic="

// The reasons of what keeps a reader from Kafka, a metric label.
const (
	topicGone      = "topic_gone"
	topicRecreated = "topic_recreated"
	offsetGone     = "offset_gone"
	kafkaRefuses   = "not_allowed"
	kafkaAway      = "unreachable"
)

var kafkaReasons = []string{topicGone, topicRecreated, offsetGone, kafkaRefuses, kafkaAway}

// kafkaReason is the metric label of an error in reading or committing.
func kafkaReason(err error) string {
	switch {
	case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.UnknownTopicOrPartition):
		return topicGone
	case errors.Is(err, kerr.OffsetOutOfRange):
		return offsetGone
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed):
		return kafkaRefuses
	}
	return kafkaAway
}

// currentIDs are the ids of the topics that exist now.
func (r *reader) currentIDs(ctx context.Context) (map[string]schemas.TopicID, error) {
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	topics, err := kadm.NewClient(r.cl).ListTopics(ctx, r.topics...)
	if err != nil {
		return nil, fmt.Errorf("ask for the ids of topics: %w", err)
	}
	ids := map[string]schemas.TopicID{}
	for name, t := range topics {
		if t.Err == nil {
			ids[name] = schemas.TopicID(t.ID)
		}
	}
	return ids, nil
}

// isRecreated reports whether a topic that could not be read is there under
// another id than the one that was read so far. It asks Kafka now and then.
func (r *reader) isRecreated(ctx context.Context) bool {
	now := r.sink.cfg.Now()
	maps.DeleteFunc(r.gone, func(_ string, met time.Time) bool { return now.Sub(met) > readAgain })
	if len(r.gone) == 0 && !r.passed || now.Sub(r.asked) < askTopics {
		return false
	}
	r.asked = now
	if r.passed {
		return true
	}
	ids, err := r.currentIDs(ctx)
	if err != nil {
		return false // the next poll says so again
	}
	for _, name := range r.topics {
		id, there := ids[name]
		if _, gone := r.gone[name]; gone && !there {
			r.gone[name] = now // it may come back as another one
		}
		if had, ok := r.topicID(name); ok && there && had != id {
			r.sink.health.bad(r.reads(name), partKafka, topicRecreated,
				fmt.Errorf("topic %s was deleted and made anew (id %s, now %s): what the audit had not read of it is gone; it goes on at the new start", name, had, id))
			return true
		}
	}
	return false
}

// reads is who meets a fault in reading a topic.
func (r *reader) reads(topic string) string { return r.name + " reads " + topic }

func (r *reader) topicID(name string) (schemas.TopicID, bool) {
	r.idMu.Lock()
	defer r.idMu.Unlock()
	id, ok := r.ids[name]
	return id, ok
}

// adjust is told where an assignment begins. Offsets that were committed under
// another topic id begin at the start instead.
func (r *reader) adjust(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	ids, err := r.currentIDs(ctx)
	if err != nil {
		return nil, err
	}
	r.idMu.Lock()
	for name, id := range ids {
		if _, ok := r.ids[name]; !ok { // the client keeps to the id that it met first
			r.ids[name] = id
		}
	}
	r.idMu.Unlock()
	admin := kadm.NewClient(r.cl)
	committed, err := admin.FetchOffsets(ctx, r.group)
	if err != nil {
		return nil, fmt.Errorf("ask for the offsets of %s: %w", r.group, err)
	}
	starts, err := admin.ListStartOffsets(ctx, r.topics...)
	if err != nil {
		return nil, fmt.Errorf("ask for the oldest offsets: %w", err)
	}
	ends, err := admin.ListEndOffsets(ctx, r.topics...)
	if err != nil {
		return nil, fmt.Errorf("ask for the newest offsets: %w", err)
	}
	for topic, partitions := range offsets {
		for p := range partitions {
			at, _ := committed.Lookup(topic, p)
			start, _ := starts.Lookup(topic, p)
			end, _ := ends.Lookup(topic, p)
			if why := unusable(at, ids[topic], start, end); why != "" {
				partitions[p] = kgo.NewOffset().AtStart()
				r.sink.metrics.failures.WithLabelValues(partKafka, offsetGone).Inc()
				r.sink.cfg.Logger.Warn("the audit begins at the oldest record; what was before it is missing in ClickHouse",
					"topic", topic, "partition", p, "committed", at.At, "oldest", start.Offset, "why", why)
			}
		}
	}
	return offsets, nil
}

// unusable says why a committed offset is no place to go on from, "" if it is
// one or there is none.
func unusable(at kadm.OffsetResponse, id schemas.TopicID, start, end kadm.ListedOffset) string {
	of, marked := strings.CutPrefix(at.Metadata, markTopic)
	switch {
	case at.Topic == "" || at.At < 0 || start.Topic == "" || start.Err != nil || end.Err != nil:
		return ""
	case marked && id != (schemas.TopicID{}) && of != id.String():
		return "the offset is of an earlier topic of this name, id " + of
	case at.At < start.Offset:
		return "the topic no longer holds it"
	case at.At > end.Offset:
		return "the topic does not reach so far"
	}
	return ""
}

// mark writes the topics' ids beside the offsets of a commit.
func (r *reader) mark(req *kmsg.OffsetCommitRequest) error {
	for i := range req.Topics {
		t := &req.Topics[i]
		id, ok := r.topicID(t.Topic)
		for j := range t.Partitions {
			if text := markTopic + id.String(); ok {
				t.Partitions[j].Metadata = &text
			}
		}
	}
	return nil
}
