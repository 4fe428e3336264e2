package route

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// moveKeys is how many keys each partition remembers before it moves.
const moveKeys = 1_000_000

// BenchmarkMove: four partitions of 1 M keys each; a second router joins and
// two of them move to it, while each gets an event every 2 ms. stall-ms is from
// the last decision of the old owner to the first of the new one, others-ms the
// longest time without a decision about a partition that stayed.
func BenchmarkMove(b *testing.B) {
	s := benchStage(b)
	cfg := s.config(0)
	cfg.Node, cfg.Sessions = "old", 1
	_, stop := s.run(cfg)
	defer stop()
	tenants := s.tenantOfEach()
	began := time.Now()
	s.fill(tenants, moveKeys)
	b.Logf("%d keys decided in %s", len(tenants)*moveKeys, time.Since(began).Round(time.Millisecond))
	b.ResetTimer()
	for i := range b.N {
		s.move(b, tenants, i)
	}
}

// tenantOfEach is one tenant of each home partition.
func (s *stage) tenantOfEach() []string {
	out := make([]string, partitions)
	for found, i := 0, 0; found < partitions; i++ {
		tenant := fmt.Sprint("tenant-of-", i)
		if home := schemas.HomePartition([]byte(tenant), partitions); out[home] == "" {
			out[home] = tenant
			s.control.set(tenant, schemas.Policy{Fast: schemas.Rate{Rate: 1e9}})
			found++
		}
	}
	return out
}

// fill has n events of each tenant decided.
func (s *stage) fill(tenants []string, n int) {
	records := make([]*kgo.Record, 0, 4000)
	for i := range n {
		for _, tenant := range tenants {
			records = append(records, record(tenant, fmt.Sprint("fill-", i), "x"))
		}
		if len(records) == cap(records) || i == n-1 {
			s.produce(records...)
			records = records[:0]
		}
	}
	s.settledWithin(2 * time.Minute)
}

func (s *stage) move(b *testing.B, tenants []string, round int) {
	reader := s.client(kgo.ConsumeTopics(topics.Audit()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()))
	defer reader.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // the trickle
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			<-tick.C
			for _, tenant := range tenants {
				s.producer.Produce(ctx, record(tenant, fmt.Sprint("move-", round, "-", n), "x"), nil)
			}
		}
	}()
	type seen struct {
		last          time.Time
		by            string
		longest, over time.Duration // without a decision; from the old owner to the new one
	}
	var all [partitions]seen
	moved, joined := 0, false
	var stop func()
	for begin := time.Now(); time.Since(begin) < 12*time.Second; {
		fetches := reader.PollFetches(ctx)
		now := time.Now()
		fetches.EachRecord(func(r *kgo.Record) {
			_, body, _ := schemas.WireHeader(r.Value)
			t, err := schemas.DecodeTransition(body)
			if err != nil {
				b.Fatal(err)
			}
			p := &all[t.Home]
			if gap := now.Sub(p.last); !p.last.IsZero() && joined {
				p.longest = max(p.longest, gap)
				if p.by != t.Node {
					p.over = gap
					moved++
				}
			}
			p.last, p.by = now, t.Node
		})
		if !joined && time.Since(begin) > 2*time.Second {
			cfg := s.config(1)
			cfg.Node, cfg.Sessions = "new", 1
			_, stop = s.run(cfg)
			joined = true
		}
	}
	stop()
	var stall, others time.Duration
	for _, p := range all {
		stall = max(stall, p.over)
		if p.over == 0 {
			others = max(others, p.longest)
		}
	}
	if moved == 0 {
		b.Fatal("no partition has moved")
	}
	b.ReportMetric(float64(stall.Milliseconds()), "stall-ms")
	b.ReportMetric(float64(others.Milliseconds()), "others-ms")
	b.ReportMetric(float64(moved), "moved")
}

// BenchmarkHalfRate: first how many events a second the copy loop of
// BenchmarkCopyLoopTwo takes while they are produced; then, at half of that, how
// long an event takes to be visible behind it, and behind the router.
func BenchmarkHalfRate(b *testing.B) {
	const n = 100_000
	s := benchStage(b)
	stop := s.copying(2)
	began := time.Now()
	s.load(n, "m-")
	s.await(topics.Fanout("eu"), n)
	half := int(n / time.Since(began).Seconds() / 2)
	stop()
	b.Run(fmt.Sprint("copy-", half), func(b *testing.B) {
		s := benchStage(b)
		defer s.copying(2)()
		benchLatency(b, s, half, topics.Fanout("eu"))
	})
	b.Run(fmt.Sprint("router-", half), func(b *testing.B) {
		s := benchStage(b)
		s.run(s.config(0))
		benchLatency(b, s, half, topics.Fanout("eu"))
	})
}
