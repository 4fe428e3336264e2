package route

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// load puts n events of 16 tenants into events and returns their last offsets'
// sum, that is n.
func (s *stage) load(n int, prefix string) {
	s.t.Helper()
	var records []*kgo.Record
	for i := range n {
		r := record("tenant-"+strconv.Itoa(i%16), prefix+strconv.Itoa(i), "a line of text as people type it, of sixty bytes or there about")
		records = append(records, r)
		if len(records) == 2000 || i == n-1 {
			s.produce(records...)
			records = records[:0]
		}
	}
}

func benchStage(b *testing.B) *stage {
	s := newStage(b)
	for i := range 16 {
		s.control.set("tenant-"+strconv.Itoa(i), schemas.Policy{Fast: schemas.Rate{Rate: 1e9}})
	}
	return s
}

// await reads n committed records of topic.
func (s *stage) await(topic string, n int) {
	c := s.client(kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer c.Close()
	for n > 0 {
		n -= c.PollFetches(context.Background()).NumRecords()
	}
}

// BenchmarkRouter: a backlog of events through all steps, each with its fanout
// and its audit record. Compare with BenchmarkCopyLoop.
func BenchmarkRouter(b *testing.B) {
	s := benchStage(b)
	s.load(b.N, "m-")
	b.ResetTimer()
	s.run(s.config(0))
	s.await(topics.Fanout("eu"), b.N)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkCopyLoop is what a bare franz-go GroupTransactSession copies of the
// same backlog, with as many sessions and one output record an event.
func BenchmarkCopyLoop(b *testing.B) { benchCopy(b, 1) }

// BenchmarkCopyLoopTwo is the same with two output records an event, as the
// router has.
func BenchmarkCopyLoopTwo(b *testing.B) { benchCopy(b, 2) }

func benchCopy(b *testing.B, outputs int) {
	s := benchStage(b)
	s.load(b.N, "m-")
	b.ResetTimer()
	stop := s.copying(outputs)
	s.await(topics.Fanout("eu"), b.N)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	stop()
}

// copying runs the copy loop until the function it returns is called.
func (s *stage) copying(outputs int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	for i := range defaultSessions {
		go func() {
			defer func() { done <- struct{}{} }()
			s.copyLoop(ctx, i, outputs)
		}()
	}
	return func() {
		cancel()
		for range defaultSessions {
			<-done
		}
	}
}

func (s *stage) copyLoop(ctx context.Context, number, outputs int) {
	gts, err := kgo.NewGroupTransactSession(append(append([]kgo.Opt{}, s.kafka...),
		kgo.ConsumerGroup(topics.Prefix+"copy"), kgo.ConsumeTopics(topics.Events()), kgo.TransactionalID(fmt.Sprint(topics.Prefix, "copy", number)),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))...)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer gts.CloseAllowingRebalance()
	to := []string{topics.Fanout("eu"), topics.Audit()}
	for {
		fetches := gts.PollRecords(ctx, defaultBatch)
		if ctx.Err() != nil {
			return
		}
		if err := gts.Begin(); err != nil {
			s.t.Error(err)
			return
		}
		fetches.EachRecord(func(r *kgo.Record) {
			for i := range outputs {
				gts.Produce(ctx, &kgo.Record{Topic: to[i], Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers}, nil)
			}
		})
		if _, err := gts.End(context.Background(), kgo.TryCommit); err != nil {
			s.t.Error(err)
			return
		}
	}
}

// BenchmarkLatency is append to visible for a reader of committed records, at
// a steady rate, once both sessions have their partitions; through the router,
// and beside it a plain produce and consume.
func BenchmarkLatency(b *testing.B) {
	for _, perSecond := range []int{100, 1000, 5000} {
		b.Run("router-"+strconv.Itoa(perSecond), func(b *testing.B) {
			s := benchStage(b)
			s.run(s.config(0))
			benchLatency(b, s, perSecond, topics.Fanout("eu"))
		})
		b.Run("plain-"+strconv.Itoa(perSecond), func(b *testing.B) {
			benchLatency(b, benchStage(b), perSecond, topics.Events())
		})
	}
}

// warmUp is how long events flow before they are measured: members join, and
// their partitions settle.
const warmUp = 4 * time.Second

func benchLatency(b *testing.B, s *stage, perSecond int, topic string) {
	reader := s.client(kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	warm := int(warmUp.Seconds() * float64(perSecond))
	go func() {
		begin, tick := time.Now(), time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for sent := 0; sent < warm+b.N; {
			<-tick.C
			due := min(warm+b.N, int(time.Since(begin).Seconds()*float64(perSecond)))
			for ; sent < due; sent++ {
				r := record("tenant-"+strconv.Itoa(sent%16), "m-"+strconv.Itoa(sent), "x")
				s.producer.Produce(context.Background(), r, nil)
			}
		}
	}()
	took := make([]time.Duration, 0, b.N)
	for skip := warm; len(took) < b.N; {
		fetches := reader.PollFetches(context.Background())
		now := time.Now()
		fetches.EachRecord(func(r *kgo.Record) {
			if skip--; skip < 0 {
				took = append(took, now.Sub(r.Timestamp)) // its append time, in whole milliseconds
			}
		})
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "max-ms")
}
