package route

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/spillway/spillway/deploy/dev/cable"
)

// takeOverTime is how long another router may need: the session of the one
// before times out, and its transaction too.
const takeOverTime = sessionTimeout + 2*transactionTimeout + patience

// TestZombie: a router is stopped in the middle of a transaction, as by
// SIGSTOP, until Kafka has given its partitions to another one that has decided
// on. Then it goes on with what it was about to send: nothing of that counts.
func TestZombie(t *testing.T) {
	t.Parallel()
	for _, point := range []cable.Point{
		{At: kmsg.Fetch, Left: 40, After: true}, // it has records, and no transaction yet
		{At: kmsg.Produce, Left: 60},
		{At: kmsg.TxnOffsetCommit, Left: 20},
		{At: kmsg.EndTxn, Left: 20},
	} {
		t.Run(point.At.Name(), func(t *testing.T) {
			t.Parallel()
			testZombie(t, point)
		})
	}
}

func testZombie(t *testing.T, point cable.Point) {
	s := newStage(t)
	c := cable.Hold(point)
	load, stopLoad := context.WithCancel(context.Background())
	defer stopLoad()
	appended := make(chan *traffic, 1)
	go func() { appended <- s.traffic(load, rand.New(rand.NewPCG(3, uint64(point.At)))) }()
	cfg := s.config(0)
	cfg.Kafka = append(append([]kgo.Opt{}, s.kafka...), kgo.Dialer(c.Dial))
	_, stopZombie := s.run(cfg)
	select {
	case <-c.Done():
	case <-time.After(patience):
		t.Fatalf("no %s came", point.At.Name())
	}
	stopped := time.Now()
	_, stop := s.run(s.config(1))
	s.decidedTo(s.ends(), takeOverTime)
	took := time.Since(stopped)
	before := s.count(topics.Audit())
	c.Resume()
	s.decidedTo(s.ends(), takeOverTime) // in spite of it
	stop()
	s.decidedTo(s.ends(), takeOverTime) // by it, for it has joined anew
	stopLoad()
	sent := <-appended
	s.settled()
	stopZombie()
	t.Logf("stopped for %s, %d of %d records decided by then", took.Round(time.Millisecond), before, sent.appended)
	s.checkDecisions(sent)
	s.checkState()
}

// decidedTo waits until the router group has committed everything before ends.
func (s *stage) decidedTo(ends kadm.ListedOffsets, limit time.Duration) {
	s.t.Helper()
	s.until(limit, func() string { return s.behind(ends) })
}

// TestRebalances: routers come and go under load, each time with another number
// of sessions. Every partition goes from hand to hand and nothing is decided
// twice or left out.
func TestRebalances(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	load, stopLoad := context.WithCancel(context.Background())
	defer stopLoad()
	appended := make(chan *traffic, 1)
	go func() { appended <- s.traffic(load, rand.New(rand.NewPCG(2, 2))) }()
	var routers sync.WaitGroup
	for ordinal := 1; ordinal <= 3; ordinal++ {
		routers.Go(func() { s.comeAndGo(ordinal, 5, rand.New(rand.NewPCG(9, uint64(ordinal)))) })
	}
	routers.Wait()
	stopLoad()
	sent := <-appended
	byThen := s.count(topics.Audit())
	_, stop := s.run(s.config(0))
	s.settled()
	stop()
	t.Logf("%d records, %d of them decided while routers came and went", sent.appended, byThen)
	if byThen == 0 {
		t.Error("nothing was decided while routers came and went")
	}
	s.checkDecisions(sent)
	s.checkState()
}

// comeAndGo starts a router and stops it politely, so many times.
func (s *stage) comeAndGo(ordinal, times int, rng *rand.Rand) {
	for n := range times {
		cfg := s.config(ordinal)
		cfg.Sessions, cfg.MaxBatch, cfg.Node = 1+rng.IntN(4), 1+rng.IntN(100), fmt.Sprint("r", ordinal, "-", n)
		r, err := New(cfg)
		if err != nil {
			s.t.Error(err)
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond+time.Duration(rng.Int64N(int64(1200*time.Millisecond))))
		if err := r.Run(ctx); err != nil {
			s.t.Errorf("Run: %v", err)
		}
		cancel()
	}
}
