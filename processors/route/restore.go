package route

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/schemas"
)

const (
	restoreStall = 10 * time.Second // how long a restore waits for the next records of route.state
	restoreAgain = 2 * time.Second  // until a restore that Kafka did not answer is tried again
)

// A start is where a partition begins, and with what.
type start struct {
	at       int64             // committed offset, -1 if there is none
	metadata string            // of the committed offset
	state    *processors.State // nil: the session has it in memory
	wholes   []whole
	from     pointer // the metadata, once it was of use
}

// fetched notes the metadata of committed offsets; assigned comes next, with
// the offsets themselves.
func (s *session) fetched(_ context.Context, _ *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, group := range resp.Groups {
		for _, topic := range group.Topics {
			if topic.Topic != s.cfg.Topics.Events() && schemas.TopicID(topic.TopicID) != s.topic {
				continue
			}
			for _, p := range topic.Partitions {
				s.metadata[p.Partition] = ""
				if p.Metadata != nil {
					s.metadata[p.Partition] = *p.Metadata
				}
			}
		}
	}
	return nil
}

// restore makes the states of partitions from route.state, all at once, while
// the session goes on with its others. What cannot be made is refused.
func (s *session) restore(ctx context.Context, starts map[int32]start) map[int32]refusal {
	refusals := make(map[int32]refusal)
	began := s.cfg.Now()
	jobs, err := s.plan(ctx, starts, refusals)
	if err == nil && len(jobs) > 0 {
		err = s.readStates(ctx, jobs)
	}
	keys := 0
	for number, st := range starts {
		job := jobs[number]
		switch {
		case err != nil:
			if _, no := refusals[number]; !no {
				refusals[number] = refusal{unreadable, fmt.Sprintf("%s cannot be read: %v", s.cfg.Topics.RouteState(), err), -1}
			}
		case job == nil:
		case job.refused.reason != "":
			refusals[number] = job.refused
		case job.fold == nil:
			st.state = processors.NewState(s.cfg.MaxKeys)
			starts[number] = st
		default:
			st.state, st.wholes, st.from = job.fold.State(), job.wholes, job.from
			keys += st.state.Stats().Keys
			starts[number] = st
		}
	}
	took := s.cfg.Now().Sub(began)
	s.metrics.restores.Observe(took.Seconds())
	s.metrics.restored.Add(float64(keys))
	s.log.Info("states are restored", "partitions", len(starts), "refused", len(refusals), "keys", keys, "took", took.Round(time.Millisecond))
	return refusals
}

// A job restores one partition: records of route.state from from.start to last.
type job struct {
	from      pointer
	last      int64
	committed int64 // offset of events that it must reach to
	fold      *processors.Restore
	wholes    []whole
	reached   int64 // -1: nothing was folded yet
	topic     schemas.TopicID
	done      bool
	refused   refusal
}

// plan says what must be read for each partition, refuses those whose records
// are gone, and gives an empty state to those that have nothing to remember.
func (s *session) plan(ctx context.Context, starts map[int32]start, refusals map[int32]refusal) (map[int32]*job, error) {
	admin, topic := kadm.NewClient(s.forwards.client), s.cfg.Topics.RouteState()
	from, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	to, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	jobs := make(map[int32]*job)
	for number, st := range starts {
		first, ok1 := from.Lookup(topic, number)
		end, ok2 := to.Lookup(topic, number)
		if !ok1 || !ok2 {
			return nil, fmt.Errorf("%s has no partition %d: run spillway setup", topic, number)
		}
		if err := errors.Join(first.Err, end.Err); err != nil {
			return nil, err
		}
		j, why := s.jobOf(st, first.Offset, end.Offset)
		switch {
		case why.reason != "":
			refusals[number] = why
		case j == nil:
			st.state = processors.NewState(s.cfg.MaxKeys)
			starts[number] = st
		default:
			jobs[number] = j
		}
	}
	return jobs, nil
}

// jobOf decides how the state of a partition is made, whose route.state holds
// offsets [first, end): nil is an empty one.
func (s *session) jobOf(st start, first, end int64) (*job, refusal) {
	j := &job{fold: processors.NewRestore(s.cfg.MaxKeys), reached: -1, committed: st.at, from: pointer{start: first}, last: end - 1}
	if st.at < 0 {
		if end == first {
			return nil, refusal{}
		}
		return j, refusal{} // it may hold nothing but aborted transactions
	}
	p, err := parsePointer(st.metadata)
	switch {
	case err != nil:
		return nil, refusal{noState, err.Error() + ": another program has committed it", -1}
	case p.topic != s.topic:
		return nil, anotherTopic(s.cfg.Topics.Events(), s.topic, p.topic)
	case p.last >= end:
		return nil, refusal{stateDiffers, fmt.Sprintf("its state is at offset %d of route.state, which ends at %d: Kafka has lost records", p.last, end), -1}
	case p.last < first && p.clock <= s.cfg.Now().Add(-processors.Window).UnixMilli():
		return nil, refusal{} // all that it remembered is forgotten by now
	case p.start < first:
		return nil, refusal{stateGone, fmt.Sprintf("its state begins at offset %d of route.state, but the log begins at %d: part of what it remembers was deleted", p.start, first), -1}
	}
	j.from, j.last = p, p.last
	return j, refusal{}
}

// readStates reads route.state until every job is done. The client lives as
// long as the restore.
func (s *session) readStates(ctx context.Context, jobs map[int32]*job) error {
	topic := s.cfg.Topics.RouteState()
	from := make(map[int32]kgo.Offset)
	for number, j := range jobs {
		from[number] = kgo.NewOffset().At(j.from.start)
	}
	client, err := kgo.NewClient(append(append([]kgo.Opt{}, s.cfg.Kafka...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// The last record of a partition may be a marker, or belong to an
		// aborted transaction: only control records tell that it was passed.
		kgo.KeepControlRecords(),
		kgo.FetchMaxBytes(64<<20), kgo.FetchMaxPartitionBytes(8<<20), kgo.FetchMaxWait(100*time.Millisecond),
		kgo.MaxDecompressBatchBytes(schemas.MaxRouteBatch),
		kgo.MetadataMinAge(metadataMinAge),
	)...)
	if err != nil {
		return err
	}
	defer client.Close()
	left := len(jobs)
	for left > 0 {
		poll, cancel := context.WithTimeout(ctx, restoreStall)
		fetches := client.PollFetches(poll)
		stalled := poll.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if stalled {
			return fmt.Errorf("no record came for %s", restoreStall)
		}
		for _, e := range fetches.Errors() {
			if !errors.Is(e.Err, kerr.OffsetOutOfRange) {
				return e.Err
			}
		}
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			j := jobs[f.Partition]
			if f.Err != nil && !j.done {
				j.refuse(stateGone, "part of what it remembers was deleted while it was read")
			}
			for _, r := range f.Records {
				if !j.done {
					j.take(r, s.topic)
				}
			}
			if j.done {
				client.PauseFetchPartitions(map[string][]int32{topic: {f.Partition}})
			}
		})
		left = 0
		for _, j := range jobs {
			if !j.done {
				left++
			}
		}
	}
	return nil
}

func (j *job) refuse(reason, text string) { j.refused, j.done = refusal{reason, text, -1}, true }

// take folds one record, and ends the job with the one that it is to reach.
func (j *job) take(r *kgo.Record, events schemas.TopicID) {
	if r.Offset <= j.last && !r.Attrs.IsControl() {
		j.apply(r)
	}
	if j.done || r.Offset < j.last {
		return
	}
	j.done = true
	switch {
	case j.committed < 0 && (j.reached < 0 || j.topic != events):
		j.fold, j.wholes = nil, nil // nothing was committed, or of another topic
	case j.committed < 0:
		j.refuse(noCommit, fmt.Sprintf("no offset is committed, though everything before %d was decided: the group's offsets were deleted", j.reached))
		j.refused.goOn = j.reached
	case r.Offset > j.last || r.Attrs.IsControl():
		j.refuse(stateDiffers, fmt.Sprintf("route.state holds no record at offset %d, which the committed offset names", j.last))
	case j.reached != j.committed:
		j.refuse(stateDiffers, fmt.Sprintf("everything before offset %d is decided, but its state reaches to %d", j.committed, j.reached))
	}
}

// apply folds one record of route.state, if it goes on where the last one ended.
func (j *job) apply(r *kgo.Record) {
	head, err := j.fold.Apply(r.Value)
	switch {
	case err != nil:
		j.refuse(stateDiffers, fmt.Sprintf("offset %d of route.state: %v", r.Offset, err))
		return
	case j.reached < 0 && !head.Whole && j.committed >= 0:
		j.refuse(stateDiffers, fmt.Sprintf("offset %d of route.state is no place to begin at", r.Offset))
		return
	case j.reached >= 0 && !head.Fresh && !head.Rest && head.From != j.reached:
		j.refuse(stateDiffers, fmt.Sprintf("offset %d of route.state goes on from %d, the one before it reaches to %d", r.Offset, head.From, j.reached))
		return
	}
	j.reached = head.To
	if head.Fresh {
		j.wholes = j.wholes[:0]
	}
	if head.Whole {
		j.topic = head.Topic
		j.wholes = append(j.wholes, whole{r.Offset, head})
	}
}
