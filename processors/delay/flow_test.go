package delay

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// A still is a Delay without Kafka that owns one partition, and its clock.
type still struct {
	*Delay
	now time.Time
	w   *waiting
	reg *prometheus.Registry
}

func newStill(t *testing.T) *still {
	t.Helper()
	s := &still{now: time.UnixMilli(1_700_000_000_000), reg: prometheus.NewRegistry()}
	d, err := New(Config{
		Topics: topics, Partitions: partitions, Secrets: secrets{}, Node: "d", MaxRecords: 100, Registerer: s.reg, Now: func() time.Time { return s.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Delay = d
	s.w = s.own()
	return s
}

// own assigns the partition, anew if it was.
func (s *still) own() *waiting {
	tp := partition{topics.Overflow(), 0}
	s.owned[tp] = &waiting{tp: tp, since: s.now, begun: true}
	return s.owned[tp]
}

func (s *still) tick(d time.Duration) { s.now = s.now.Add(d) }

// take takes what is due now, which must be at offset.
func (s *still) take(t *testing.T, offset int64) release {
	t.Helper()
	if due := s.dueNow(); len(due) != 1 || due[0] != s.w {
		t.Fatalf("%d partitions have something due", len(due))
	}
	r, ok := s.next(s.w)
	if !ok || r.offset != offset {
		t.Fatalf("took %+v %v, want offset %d", r, ok, offset)
	}
	return r
}

func TestAStallIsReportedThenFatal(t *testing.T) {
	s := newStill(t)
	s.w.Add(s.now.UnixMilli(), 4)
	r := s.take(t, 4)
	if s.tick(notReady); s.Ready() != nil {
		t.Error("not ready too early")
	}
	if s.tick(time.Second); s.Ready() == nil || s.stuck() != nil {
		t.Errorf("after a minute: ready %v, stuck %v", s.Ready(), s.stuck())
	}
	if s.tick(giveUp); s.stuck() == nil {
		t.Error("Run would wait for ever")
	}
	s.answered(r, given{to: toEvents, due: s.now.UnixMilli()}, nil)
	if s.stuck() != nil || s.w.Len() != 0 || s.inFlight != 0 {
		t.Error("progress is not seen")
	}
}

func TestARefusedReturnIsFatal(t *testing.T) {
	s := newStill(t)
	s.w.Add(0, 5)
	r, refused := s.take(t, 5), errors.New("too large")
	s.answered(r, given{to: toEvents}, refused)
	if !errors.Is(s.stuck(), refused) || !errors.Is(s.Ready(), refused) {
		t.Errorf("a return that cannot be produced: %v", s.stuck())
	}
	if at, ok := s.w.Committable(); at != 5 || !ok {
		t.Errorf("it would be committed: %d", at)
	}
}

// An answer that comes when the partition has left and come back must not
// finish what the new one has at its offset, which was not given back yet.
func TestALateAnswerIsOfNoOtherAssignment(t *testing.T) {
	s := newStill(t)
	s.w.Add(0, 7)
	s.w.Add(0, 8)
	first, second := s.take(t, 7), s.take(t, 8)
	s.drop(map[string][]int32{topics.Overflow(): {0}})
	s.answered(first, given{to: toEvents}, nil) // nobody has it
	s.w = s.own()
	s.w.Add(s.now.Add(time.Hour).UnixMilli(), 8)
	s.tick(time.Hour)
	again := s.take(t, 8)
	s.answered(second, given{to: toEvents}, nil)
	if at, _ := s.w.Committable(); at != 8 || s.w.Len() != 1 || s.inFlight != 1 {
		t.Errorf("committable %d, %d unfinished, %d in flight", at, s.w.Len(), s.inFlight)
	}
	s.answered(again, given{to: toEvents}, nil)
	if at, _ := s.w.Committable(); at != 9 {
		t.Errorf("committable %d", at)
	}
}

func TestLatenessIsOfEventsAndWorkAlone(t *testing.T) {
	s := newStill(t)
	for offset, to := range []string{toEvents, toWork, toRetry, toDead} {
		s.w.Add(0, int64(offset))
		s.answered(s.take(t, int64(offset)), given{to: to, due: s.now.UnixMilli(), reason: schemas.Internal}, nil)
	}
	if n := count(t, s.reg, "lateness_seconds"); n != 2 {
		t.Errorf("%v observed", n)
	}
	if n := count(t, s.reg, "dead_total"); n != 1 {
		t.Errorf("%v dead letters", n)
	}
}

func TestInFlightHasTwoBounds(t *testing.T) {
	for what, fill := range map[string]func(*still, int64){
		"records": func(s *still, n int64) { s.inFlight += int(n) * maxInFlight },
		"bytes":   func(s *still, n int64) { s.inFlightBytes += n * maxInFlightBytes },
	} {
		s := newStill(t)
		s.w.Add(0, 1)
		s.w.Add(0, 2)
		r := s.take(t, 1)
		fill(s, 1)
		if _, ok := s.next(s.w); ok {
			t.Errorf("%s: more is in flight than may be", what)
		}
		waited := make(chan struct{})
		go func() { s.awaitRoom(t.Context()); close(waited) }()
		for deadline, told := time.Now().Add(5*time.Second), false; !told; { // until it waits
			if time.Now().After(deadline) {
				t.Fatalf("%s: nobody waits for room", what)
			}
			s.mu.Lock()
			told = s.noRoom
			s.mu.Unlock()
		}
		s.mu.Lock()
		fill(s, -1)
		s.mu.Unlock()
		s.answered(r, given{to: toEvents}, nil)
		select {
		case <-waited:
		case <-time.After(maxPoll / 2):
			t.Errorf("%s: an answer does not end the wait", what)
		}
		if _, ok := s.next(s.w); !ok {
			t.Errorf("%s: nothing is given back though there is room", what)
		}
	}
}

func TestWhatIsKeptSharesNothingWithItsBatch(t *testing.T) {
	p := newPayloads(1000)
	batch := []byte("acmevaluex")
	r := &kgo.Record{Topic: "a", Partition: 2, Offset: 1, Timestamp: time.UnixMilli(9), Key: batch[:4], Value: batch[4:9], Headers: []kgo.RecordHeader{{Key: "h", Value: batch[9:]}}}
	p.keep(partition{"a", 2}, r)
	clear(batch)
	got := p.take(partition{"a", 2}, 1)
	if string(got.Key) != "acme" || string(got.Value) != "value" || header(got, "h") != "x" || got.Topic != "a" || got.Partition != 2 || got.Timestamp.UnixMilli() != 9 || p.size != 0 {
		t.Errorf("%+v, %d bytes left", got, p.size)
	}
}

// A far record pins the committed offset: what is finished behind it is no
// reason to stop until a restart would repeat too much.
func TestAFarRecordPausesLate(t *testing.T) {
	s := newStill(t)
	s.w.Add(s.now.Add(24*time.Hour).UnixMilli(), 0)
	next := int64(1)
	giveBack := func(upTo int64) {
		for ; next <= upTo; next++ {
			s.w.Add(0, next)
			if offset, ok := s.w.Take(1); !ok || !s.w.Finish(offset) {
				t.Fatal("not given back")
			}
		}
	}
	giveBack(spanRecords*100 - 2)
	if pause, _ := s.pace(s.now); len(pause) != 0 || s.Ready() != nil {
		t.Errorf("paused with one that waits: %v", s.Ready())
	}
	giveBack(spanRecords * 100)
	pause, _ := s.pace(s.now)
	if len(pause) != 1 || s.Ready() == nil || !strings.Contains(s.Ready().Error(), "overflow/0") || count(t, s.reg, "paused_partitions") != 1 {
		t.Errorf("paused %v, ready %v", pause, s.Ready())
	}
	s.tick(24 * time.Hour)
	s.answered(s.take(t, 0), given{to: toEvents}, nil)
	if _, resume := s.pace(s.now); len(resume) != 1 || s.Ready() != nil || count(t, s.reg, "paused_partitions") != 0 {
		t.Errorf("resumed %v, ready %v", resume, s.Ready())
	}
}

func TestManyThatWaitPause(t *testing.T) {
	s := newStill(t)
	for i := range int64(100) {
		s.w.Add(0, i)
	}
	if pause, _ := s.pace(s.now); len(pause) != 1 {
		t.Error("not paused at MaxRecords")
	}
	for i := range int64(51) {
		if _, resume := s.pace(s.now); len(resume) != 0 {
			t.Fatalf("resumed when %d wait", s.w.Waiting())
		}
		s.answered(s.take(t, i), given{to: toEvents}, nil)
	}
	if _, resume := s.pace(s.now); len(resume) != 1 {
		t.Error("not resumed with half of them")
	}
}

func TestAPartitionErrorIsReportedThenFatal(t *testing.T) {
	s := newStill(t)
	bad := kerr.TopicAuthorizationFailed
	s.fetchError(t.Context(), s.w.tp, bad)
	if pause, _ := s.pace(s.now); len(pause) != 1 || s.Ready() != nil {
		t.Errorf("paused %v, ready %v", pause, s.Ready())
	}
	if _, resume := s.pace(s.now.Add(faultRetry)); len(resume) != 1 {
		t.Error("it is not tried again")
	}
	for range 12 {
		s.tick(time.Second)
		s.fetchError(t.Context(), s.w.tp, bad)
	}
	if !errors.Is(s.Ready(), bad) || s.stuck() != nil {
		t.Errorf("ready %v, stuck %v", s.Ready(), s.stuck())
	}
	if s.tick(faultStale + time.Second); s.Ready() != nil {
		t.Errorf("an error that has passed: %v", s.Ready())
	}
	for range giveUp/time.Second + 1 {
		s.fetchError(t.Context(), s.w.tp, bad)
		s.tick(time.Second)
	}
	if !errors.Is(s.stuck(), bad) {
		t.Error("Run would wait for ever")
	}
	s.look(s.w.tp, kgo.FetchPartition{Records: []*kgo.Record{{Topic: topics.Overflow(), Offset: 3}}})
	if s.stuck() != nil || s.w.Waiting() != 1 {
		t.Errorf("it is read again: %v", s.stuck())
	}
}

func TestAPartitionWithoutOffsetIsReported(t *testing.T) {
	s := newStill(t)
	s.w.begun = false
	if s.tick(notReady + time.Second); s.Ready() == nil {
		t.Error("a partition that was never begun is not seen")
	}
	if s.tick(giveUp); s.stuck() == nil {
		t.Error("Run would wait for ever")
	}
}

func TestErrorsThatNoRetryHelpsEndRun(t *testing.T) {
	for _, err := range []error{
		kgo.ErrClientClosed, &kgo.ErrGroupSession{Err: kerr.FencedInstanceID}, kerr.UnknownTopicID, &kgo.ErrDataLoss{},
	} {
		s := newStill(t)
		if s.fetchError(t.Context(), s.w.tp, err); !errors.Is(s.stuck(), err) {
			t.Errorf("%v: %v", err, s.stuck())
		}
	}
}
