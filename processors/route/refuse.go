package route

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/spillway/spillway/schemas"
)

// A refusal is why a partition is not read: going on would lose or double
// events without a word. It stands until a person accepts that (see Accept), or
// the partition is assigned anew and found good; the other partitions go on.
type refusal struct {
	reason string // metric label
	text   string
	goOn   int64 // offset of events to go on from once a person accepts; below 0: the committed one, else the log start
}

// Why a partition is refused, the metric's label.
const (
	belowStart = "below_start" // retention has deleted what was not decided
	beyondEnd  = "beyond_end"  // the log is shorter than what was decided
	recreated  = "recreated"   // the topic was deleted and made anew

	noCommit     = "no_commit"     // there is state, but no committed offset
	noState      = "no_state"      // the offset was not committed by route
	stateGone    = "state_gone"    // part of what is remembered was deleted
	stateDiffers = "state_differs" // the state does not reach exactly to the committed offset
	unreadable   = "unreadable"    // Kafka does not give the state now; it is asked again
)

var refusalReasons = [...]string{belowStart, beyondEnd, recreated, noCommit, noState, stateGone, stateDiffers, unreadable}

// checkTimeout bounds asking Kafka about the logs of assigned partitions.
const checkTimeout = 5 * time.Second

// check compares committed offsets, -1 for none, with the logs, and returns
// the partitions that must not be read. What Kafka does not tell now, fetching
// will: an offset out of range is an error there too.
func (s *session) check(ctx context.Context, committed map[int32]int64) map[int32]refusal {
	if len(committed) == 0 {
		return map[int32]refusal{}
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	events, admin := s.cfg.Topics.Events(), kadm.NewClient(s.forwards.client)
	topics, err := admin.ListTopics(ctx, events)
	var starts, ends kadm.ListedOffsets
	if err == nil {
		starts, err = admin.ListStartOffsets(ctx, events)
	}
	if err == nil {
		ends, err = admin.ListEndOffsets(ctx, events)
	}
	if err != nil {
		s.log.Warn("where the logs of assigned partitions start and end is not known", "topic", events, "err", err)
		return map[int32]refusal{}
	}
	out := make(map[int32]refusal)
	for number, o := range committed {
		if id := schemas.TopicID(topics[events].ID); id != s.topic {
			out[number] = anotherTopic(events, id, s.topic)
			continue
		}
		start, ok1 := starts.Lookup(events, number)
		end, ok2 := ends.Lookup(events, number)
		if !ok1 || !ok2 || start.Err != nil || end.Err != nil || o < 0 {
			continue
		}
		if why, outside := outOfLog(o, start.Offset, end.Offset); outside {
			out[number] = why
		}
	}
	return out
}

func anotherTopic(events string, is, was schemas.TopicID) refusal {
	return refusal{recreated, fmt.Sprintf("%s was deleted and made anew (its id is %s, was %s): restart this router to take the new one from its start", events, is, was), 0}
}

func outOfLog(committed, start, end int64) (refusal, bool) {
	switch {
	case committed < start:
		return refusal{belowStart, fmt.Sprintf("everything before offset %d is decided, but the log begins at %d: %d offsets were deleted undecided", committed, start, start-committed), start}, true
	case committed > end:
		return refusal{beyondEnd, fmt.Sprintf("everything before offset %d is decided, but the log ends at %d: Kafka has lost records", committed, end), end}, true
	}
	return refusal{}, false
}

// stopped is a partition that the client reads no further, for its offset is
// not in the log or the log is another one.
func (s *session) stopped(ctx context.Context, number int32, err error) {
	at := s.position(ctx, number)
	if _, told := s.refusedParts[number]; told {
		return
	}
	why, found := s.check(ctx, map[int32]int64{number: at})[number]
	if !found {
		why = refusal{beyondEnd, fmt.Sprintf("offset %d cannot be read: %v", at, err), at}
		if errors.Is(err, kerr.UnknownTopicID) {
			why = refusal{recreated, fmt.Sprintf("%s was deleted and made anew (%v): restart this router to take the new one from its start", s.cfg.Topics.Events(), err), 0}
		}
	}
	s.refuse(number, why)
	s.tellRefused()
}

// position is the offset from which a partition is read: where nothing is
// committed, the log start.
func (s *session) position(ctx context.Context, number int32) int64 {
	if p := s.parts[number]; p != nil && p.reached >= 0 {
		return p.reached
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	starts, err := kadm.NewClient(s.forwards.client).ListStartOffsets(ctx, s.cfg.Topics.Events())
	start, ok := starts.Lookup(s.cfg.Topics.Events(), number)
	if err != nil || !ok || start.Err != nil {
		return 0
	}
	return start.Offset
}

// refuse notes a refusal and logs it once.
func (s *session) refuse(number int32, why refusal) {
	if s.refusedParts[number] == why {
		return
	}
	s.refusedParts[number] = why
	s.log.Error("a partition is refused", "topic", s.cfg.Topics.Events(), "partition", number, "reason", why.reason, "err", why.text)
}

// tellRefused tells metrics and those who ask which partitions are refused.
func (s *session) tellRefused() {
	counts, list := make(map[string]int), make([]Refused, 0, len(s.refusedParts))
	for _, number := range slices.Sorted(maps.Keys(s.refusedParts)) {
		why := s.refusedParts[number]
		list = append(list, Refused{number, why.reason, why.text, why.goOn})
		counts[why.reason]++
	}
	for _, reason := range refusalReasons {
		s.metrics.refused.WithLabelValues(s.name, reason).Set(float64(counts[reason]))
	}
	s.refusing.Store(&list)
}
