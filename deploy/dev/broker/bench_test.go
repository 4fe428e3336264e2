package broker

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// quantiles reports p50 and p99 of what was measured.
func quantiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	at := func(q float64) float64 {
		return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
}

func benchTopic(b *testing.B) (*Broker, *kgo.Client, *kgo.Client) {
	br := start(b, Config{})
	producer := client(b, br, kgo.DefaultProduceTopic("events"))
	createTopic(b, producer, "events", 12, "message.timestamp.type", "LogAppendTime")
	return br, producer, client(b, br, kgo.ConsumeTopics("events"), kgo.FetchMaxWait(time.Second))
}

// BenchmarkProduceFetch is the way of one record at a time, from the call of
// produce to the end of poll.
func BenchmarkProduceFetch(b *testing.B) {
	_, producer, consumer := benchTopic(b)
	took := make([]time.Duration, 0, b.N)
	for b.Loop() {
		begin := time.Now()
		producer.Produce(context.Background(), &kgo.Record{Key: []byte("acme"), Value: make([]byte, 300)}, nil)
		for consumer.PollFetches(context.Background()).NumRecords() == 0 {
		}
		took = append(took, time.Since(begin))
	}
	quantiles(b, took)
}

// BenchmarkProduceFetch5k is the same at 5,000 records a second, spread evenly.
func BenchmarkProduceFetch5k(b *testing.B) {
	_, producer, consumer := benchTopic(b)
	const every = 5 // milliseconds
	go func() {
		t := time.NewTicker(every * time.Millisecond)
		defer t.Stop()
		for left := b.N; left > 0; {
			at := <-t.C
			for range min(left, 5*every) {
				producer.Produce(context.Background(), &kgo.Record{Key: []byte{byte(left)}, Value: make([]byte, 300), Headers: []kgo.RecordHeader{{Key: "at", Value: binaryTime(at)}}}, nil)
				left--
			}
		}
	}()
	took := make([]time.Duration, 0, b.N)
	for len(took) < b.N {
		fs := consumer.PollFetches(context.Background())
		now := time.Now()
		fs.EachRecord(func(r *kgo.Record) { took = append(took, now.Sub(timeBinary(r.Headers[0].Value))) })
	}
	quantiles(b, took)
}

func binaryTime(t time.Time) []byte {
	v, _ := t.MarshalBinary() // times with an ordinary zone never fail
	return v
}

func timeBinary(v []byte) (t time.Time) {
	_ = t.UnmarshalBinary(v)
	return t
}

// BenchmarkTransaction is route's cycle: poll, begin, produce 50, commit with
// the offsets.
func BenchmarkTransaction(b *testing.B) {
	br := start(b, Config{})
	producer := client(b, br, kgo.DefaultProduceTopic("events"))
	createTopic(b, producer, "events", 12, "message.timestamp.type", "LogAppendTime")
	createTopic(b, producer, "fanout", 12)
	s, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(br.Addr()), kgo.TransactionalID("route"), kgo.ConsumerGroup("route"),
		kgo.ConsumeTopics("events"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.ProducerLinger(0), kgo.FetchMaxWait(time.Second),
		kgo.DefaultProduceTopic("fanout"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	took := make([]time.Duration, 0, b.N)
	for b.Loop() {
		if err := producer.ProduceSync(context.Background(), &kgo.Record{Key: []byte("acme"), Value: make([]byte, 300)}).FirstErr(); err != nil {
			b.Fatal(err)
		}
		for s.PollFetches(context.Background()).NumRecords() == 0 {
		}
		begin := time.Now()
		if err := s.Begin(); err != nil {
			b.Fatal(err)
		}
		for i := range 50 {
			s.Produce(context.Background(), &kgo.Record{Key: []byte{byte(i)}, Value: make([]byte, 300)}, nil)
		}
		if ok, err := s.End(context.Background(), kgo.TryCommit); !ok || err != nil {
			b.Fatal(ok, err)
		}
		took = append(took, time.Since(begin))
	}
	quantiles(b, took[min(len(took)-1, 1):]) // the first one takes its producer id
}

// BenchmarkStamp is what append time costs a batch of 700 small records.
func BenchmarkStamp(b *testing.B) {
	deltas := make([]int64, 700)
	for i := range deltas {
		deltas[i] = int64(i / 10)
	}
	for name, c := range map[string]codec{"plain": 0, "snappy": codecSnappy} {
		in := makeBatch(b, c, 1000, deltas...)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(makeBatch(b, 0, 1000, deltas...))))
			for b.Loop() {
				stamp(slices.Clone(in), appendMillis)
			}
		})
	}
}
