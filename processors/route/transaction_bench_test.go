package route

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/spillway/spillway/deploy/dev/broker"
)

// BenchmarkTransaction is what one transaction from consume to produce costs,
// step by step, with franz-go's GroupTransactSession and no router:
//
//	begin ─▶ produce to 3 topics, flush ─▶ offsets, heartbeat, EndTxn ─▶ markers ─▶ read_committed reader
//	          flush-…-ms                    end-…-ms                    seen-…-ms, counted from the end
//
// "again" begins the next transaction as soon as End returns, as the router
// does under load: Kafka may then still be writing the last one's markers and
// answer CONCURRENT_TRANSACTIONS. "rested" waits until the reader has seen it,
// "after-2ms" that long.
// For each request: <name>-p50-ms, -p90-ms, -p99-ms and <name>/op, how many of
// them a transaction takes. With one record more than one Produce is that
// refusal; one that the broker retries itself (add.partitions.to.txn.retry.
// backoff.ms, 20 by default) is a Produce that takes so much longer.
//
// SPILLWAY_TEST_KAFKA names a broker; without it, it is the embedded one.
func BenchmarkTransaction(b *testing.B) {
	addrs := strings.Split(os.Getenv("SPILLWAY_TEST_KAFKA"), ",")
	if addrs[0] == "" {
		embedded, err := broker.Start(broker.Config{Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = embedded.Close() })
		addrs = []string{embedded.Addr()}
	}
	for _, client := range []struct {
		name string
		opts []kgo.Opt
	}{
		{"client=default", nil},
		{"client=route", []kgo.Opt{kgo.RetryBackoffFn(retryAfter), kgo.MetadataMinAge(metadataMinAge)}},
		{"client=quick", []kgo.Opt{
			kgo.RetryBackoffFn(func(int) time.Duration { return 2 * time.Millisecond }),
			kgo.MetadataMinAge(10 * time.Millisecond), kgo.ConcurrentTransactionsBackoff(2 * time.Millisecond),
		}},
	} {
		for _, records := range []int{1, 500} {
			for _, pace := range []struct {
				name   string
				rested bool
				pause  time.Duration
			}{{"rested", true, 0}, {"again", false, 0}, {"after-2ms", false, 2 * time.Millisecond}, {"after-4ms", false, 4 * time.Millisecond}} {
				b.Run(fmt.Sprintf("%s/records=%d/%s", client.name, records, pace.name), func(b *testing.B) {
					benchTransaction(b, txnRun{addrs: addrs, opts: client.opts, records: records, rested: pace.rested, pause: pace.pause})
				})
			}
		}
	}
}

// A txnRun is one way to make transactions.
type txnRun struct {
	addrs   []string
	opts    []kgo.Opt
	records int // of one transaction
	rested  bool
	pause   time.Duration // between the end of one and the begin of the next

	b       *testing.B
	in      string   // what is consumed
	out     []string // what is produced to
	session *kgo.GroupTransactSession
	reader  *kgo.Client
}

const txnWarm = 20 // transactions before those that count

func benchTransaction(b *testing.B, r txnRun) {
	r.b = b
	stop := r.prepare()
	defer stop()
	requests := &requestTimes{took: map[int16][]time.Duration{}}
	r.session = r.newSession(requests)
	defer r.session.CloseAllowingRebalance()

	n := txnWarm + b.N
	ended, seen := make([]time.Time, n), make([]time.Time, n)
	sees := make(chan int, n) // transactions as the reader sees them
	go r.watch(n, seen, sees)
	var flush, end []time.Duration
	for i := range n {
		if i == txnWarm {
			for !r.rested && <-sees < i-1 { // the reader has found its topics
			}
			requests.reset()
			b.ResetTimer()
		}
		flushed, finished := r.one(i)
		ended[i] = time.Now()
		flush, end = append(flush, flushed), append(end, finished)
		if r.rested {
			for <-sees < i {
			}
		}
		if r.pause > 0 {
			<-time.After(r.pause)
		}
	}
	b.StopTimer()
	requests.report(b)
	if !r.rested {
		for <-sees < n-1 {
		}
	}
	var visible []time.Duration
	for i := txnWarm; i < n; i++ {
		visible = append(visible, seen[i].Sub(ended[i]))
	}
	reportTimes(b, "flush", flush[txnWarm:])
	reportTimes(b, "end", end[txnWarm:])
	reportTimes(b, "seen", visible)
}

// prepare makes topics of its own, what is to be consumed, and a reader of what
// is produced.
func (r *txnRun) prepare() (stop func()) {
	b := r.b
	b.Helper()
	filler, err := kgo.NewClient(kgo.SeedBrokers(r.addrs...), kgo.ProducerLinger(0))
	if err != nil {
		b.Fatal(err)
	}
	prefix := fmt.Sprintf("txn-%d-", time.Now().UnixNano())
	r.in, r.out = prefix+"in", []string{prefix + "a", prefix + "b", prefix + "c"}
	names := append([]string{r.in}, r.out...)
	admin := kadm.NewClient(filler)
	if _, err := admin.CreateTopics(b.Context(), partitions, -1, nil, names...); err != nil {
		b.Fatal(err)
	}
	left := (txnWarm + b.N) * r.records
	for left > 0 {
		batch := make([]*kgo.Record, min(left, 5000))
		for i := range batch {
			batch[i] = &kgo.Record{Topic: r.in, Value: make([]byte, 64)}
		}
		if err := filler.ProduceSync(b.Context(), batch...).FirstErr(); err != nil {
			b.Fatal(err)
		}
		left -= len(batch)
	}
	r.reader, err = kgo.NewClient(kgo.SeedBrokers(r.addrs...), kgo.ConsumeTopics(r.out...), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		r.reader.Close()
		if _, err := admin.DeleteTopics(context.WithoutCancel(b.Context()), names...); err != nil {
			b.Error(err)
		}
		filler.Close()
	}
}

func (r *txnRun) newSession(hook kgo.Hook) *kgo.GroupTransactSession {
	opts := []kgo.Opt{
		kgo.SeedBrokers(r.addrs...), kgo.WithHooks(hook), kgo.ConsumerGroup(r.in), kgo.TransactionalID(r.in), kgo.ConsumeTopics(r.in),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.ManualPartitioner()),
	}
	s, err := kgo.NewGroupTransactSession(append(opts, r.opts...)...)
	if err != nil {
		r.b.Fatal(err)
	}
	return s
}

// one makes transaction number i: its records go to all three topics and to
// all their partitions.
func (r *txnRun) one(i int) (flush, end time.Duration) {
	var got int
	for got < r.records {
		fetches := r.session.PollRecords(r.b.Context(), r.records-got)
		if err := fetches.Err(); err != nil {
			r.b.Fatal(err)
		}
		got += fetches.NumRecords()
	}
	value := binary.BigEndian.AppendUint32(make([]byte, 0, 64), uint32(i))[:64]
	began := time.Now()
	if err := r.session.Begin(); err != nil {
		r.b.Fatal(err)
	}
	for n := range got * len(r.out) {
		record := &kgo.Record{Topic: r.out[n%len(r.out)], Partition: int32(n / len(r.out) % partitions), Value: value}
		r.session.Produce(r.b.Context(), record, func(_ *kgo.Record, err error) {
			if err != nil {
				r.b.Error(err)
			}
		})
	}
	if err := r.session.Client().Flush(r.b.Context()); err != nil {
		r.b.Fatal(err)
	}
	flushed := time.Now()
	if ok, err := r.session.End(r.b.Context(), kgo.TryCommit); err != nil || !ok {
		r.b.Fatalf("transaction %d: committed %v, %v", i, ok, err)
	}
	return flushed.Sub(began), time.Since(flushed)
}

// watch notes when a reader of committed records has all of each transaction.
func (r *txnRun) watch(n int, seen []time.Time, sees chan<- int) {
	left := make([]int, n)
	for i := range left {
		left[i] = r.records * len(r.out)
	}
	for open := n; open > 0; {
		fetches := r.reader.PollFetches(r.b.Context())
		if fetches.IsClientClosed() || r.b.Context().Err() != nil {
			return
		}
		now := time.Now()
		fetches.EachRecord(func(record *kgo.Record) {
			i := int(binary.BigEndian.Uint32(record.Value))
			if left[i]--; left[i] == 0 {
				seen[i] = now
				open--
				sees <- i
			}
		})
	}
}

// requestTimes are the times of the requests of a client, by their key, from
// the first byte written to the last one read.
type requestTimes struct {
	mu   sync.Mutex
	took map[int16][]time.Duration
}

// OnBrokerE2E is kgo.HookBrokerE2E.
func (t *requestTimes) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.took[key] = append(t.took[key], e2e.DurationE2E())
}

func (t *requestTimes) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.took)
}

func (t *requestTimes) report(b *testing.B) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, took := range t.took {
		if key == int16(kmsg.Fetch) {
			continue // waits for what there is to read
		}
		name := kmsg.NameForKey(key)
		b.ReportMetric(float64(len(took))/float64(b.N), name+"/op")
		reportTimes(b, name, took)
	}
}

func reportTimes(b *testing.B, name string, took []time.Duration) {
	took = slices.Sorted(slices.Values(took))
	b.ReportMetric(took[len(took)/2].Seconds()*1000, name+"-p50-ms")
	b.ReportMetric(took[len(took)*9/10].Seconds()*1000, name+"-p90-ms")
	b.ReportMetric(took[len(took)*99/100].Seconds()*1000, name+"-p99-ms")
}
