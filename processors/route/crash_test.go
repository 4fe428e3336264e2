package route

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/spillway/spillway/deploy/dev/cable"
	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/schemas"
)

// steps are the requests of a router's life: poll, produce (outputs and state),
// offsets, commit, and what a restart asks before it decides again.
var steps = []struct {
	key  kmsg.Key
	most int // how many of them may pass before
}{
	{kmsg.Fetch, 30}, {kmsg.Produce, 40}, {kmsg.TxnOffsetCommit, 12}, {kmsg.EndTxn, 12}, {kmsg.Heartbeat, 3},
	{kmsg.InitProducerID, 2}, {kmsg.JoinGroup, 2}, {kmsg.SyncGroup, 2}, {kmsg.OffsetFetch, 2}, {kmsg.ListOffsets, 4}, {kmsg.Metadata, 6},
}

// traffic appends events of several tenants until stopped; one in eight comes
// twice.
type traffic struct {
	appended int // records
	once     int // of them, those with an id of their own
}

func (s *stage) traffic(ctx context.Context, rng *rand.Rand) *traffic {
	tr := &traffic{}
	tick := time.NewTicker(4 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return tr
		case <-tick.C:
		}
		var records []*kgo.Record
		for range 1 + rng.IntN(5) {
			tenant := []string{"acme", "globex", "initech"}[rng.IntN(3)]
			id := fmt.Sprintf("%s-%d-%d", tenant, n, len(records))
			records = append(records, record(tenant, id, "x"))
			tr.once++
			if rng.IntN(8) == 0 {
				records = append(records, record(tenant, id, "x"))
			}
		}
		if err := s.producer.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
			s.t.Errorf("produce: %v", err)
			return tr
		}
		tr.appended += len(records)
	}
}

// crashing runs a router of this ordinal that dies at one request, over and
// over, until ctx ends. What is left of each is waited for at the end.
func (s *stage) crashing(ctx context.Context, ordinal int, rng *rand.Rand, died func(step string)) {
	for ctx.Err() == nil {
		step := steps[rng.IntN(len(steps))]
		after := rng.IntN(2) == 0
		c := cable.Cut(cable.Point{At: step.key, Left: rng.IntN(step.most), After: after})
		cfg := s.config(ordinal)
		cfg.Kafka = append(append([]kgo.Opt{}, s.kafka...), kgo.Dialer(c.Dial))
		cfg.MaxBatch = 1 + rng.IntN(50)
		r, err := New(cfg)
		if err != nil {
			s.t.Error(err)
			return
		}
		runCtx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = r.Run(runCtx) // a process that dies tells nobody
		}()
		limit := time.NewTimer(2 * time.Second) // a step that does not come
		select {
		case <-c.Done():
		case <-limit.C:
		case <-ctx.Done():
		}
		limit.Stop()
		c.Sever()
		cancel()
		s.t.Cleanup(func() { <-done })
		died(fmt.Sprint(step.key.Name(), " ", after))
	}
}

// TestCrashes: routers that die at every step, in place and beside each other,
// under load. Everything is decided once and delivered in order, repeats are
// duplicates, and the chain of route.state has no hole.
func TestCrashes(t *testing.T) {
	t.Parallel()
	faults := 500
	if n, err := strconv.Atoi(os.Getenv("ROUTE_FAULTS")); err == nil {
		faults = n
	}
	s := newStage(t)
	load, stopLoad := context.WithCancel(context.Background())
	appended := make(chan *traffic, 1)
	go func() { appended <- s.traffic(load, rand.New(rand.NewPCG(1, 1))) }()
	crashes, enough := context.WithCancel(context.Background())
	defer enough()
	var mu sync.Mutex
	byStep := map[string]int{}
	total := 0
	var routers sync.WaitGroup
	for ordinal := range 2 {
		routers.Go(func() {
			s.crashing(crashes, ordinal, rand.New(rand.NewPCG(7, uint64(ordinal))), func(step string) {
				mu.Lock()
				defer mu.Unlock()
				byStep[step]++
				if total++; total >= faults {
					enough()
				}
			})
		})
	}
	routers.Wait()
	stopLoad()
	sent := <-appended
	_, stop := s.run(s.config(0))
	s.settled()
	stop()
	t.Logf("%d faults, %d records; by step %v", total, sent.appended, byStep)
	s.checkDecisions(sent)
	s.checkState()
}

// checkDecisions: every record of events was decided once; the ids were
// delivered once each, in the order of events.
func (s *stage) checkDecisions(sent *traffic) {
	s.t.Helper()
	decided := map[schemas.Origin]int{}
	status := map[schemas.Status]int{}
	for _, r := range s.all(topics.Audit()) {
		_, body, _ := schemas.WireHeader(r.Value)
		tr, err := schemas.DecodeTransition(body)
		if err != nil {
			s.t.Fatal(err)
		}
		decided[schemas.Origin{Partition: tr.Origin.Partition, Offset: tr.Origin.Offset}]++
		status[tr.Status]++
	}
	for place, times := range decided {
		if times != 1 {
			s.t.Errorf("%d/%d was decided %d times", place.Partition, place.Offset, times)
		}
	}
	if len(decided) != sent.appended || status[schemas.Processing] != sent.once || status[schemas.Dup] != sent.appended-sent.once {
		s.t.Errorf("%d records decided, %v; want %d, of them %d processing", len(decided), status, sent.appended, sent.once)
	}
	s.checkDelivered(sent.once)
}

// checkState folds route.state from its start: each record goes on where the
// one before it ended, and the last one reaches to the committed offset.
func (s *stage) checkState() {
	s.t.Helper()
	folds, reached := map[int32]*processors.Restore{}, map[int32]int64{}
	for _, r := range s.all(topics.RouteState()) {
		if folds[r.Partition] == nil {
			folds[r.Partition] = processors.NewRestore(0)
		}
		head, err := folds[r.Partition].Apply(r.Value)
		if err != nil || head.From != reached[r.Partition] {
			s.t.Errorf("route.state %d/%d: from %d, want %d; %v", r.Partition, r.Offset, head.From, reached[r.Partition], err)
		}
		reached[r.Partition] = head.To
	}
	offsets, err := kadm.NewClient(s.producer).FetchOffsets(s.ctx(), topics.Prefix+"route")
	if err != nil {
		s.t.Fatal(err)
	}
	for number, to := range reached {
		if o, ok := offsets.Lookup(topics.Events(), number); !ok || o.At != to {
			s.t.Errorf("partition %d: committed %d, its state reaches to %d", number, o.At, to)
		}
	}
}
