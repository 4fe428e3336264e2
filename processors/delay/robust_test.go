package delay

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/spillway/spillway/schemas"
)

var home = schemas.HomePartition([]byte("acme"), partitions)

func (b *bench) admin() *kadm.Client { return kadm.NewClient(b.client) }

// retain deletes what is before offset in overflow.
func (b *bench) retain(offset int64) {
	b.t.Helper()
	to := kadm.Offsets{}
	to.AddOffset(topics.Overflow(), home, offset, -1)
	resp, err := b.admin().DeleteRecords(b.t.Context(), to)
	if err == nil {
		err = resp.Error()
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// commit sets the group's offset in overflow.
func (b *bench) commit(offset int64) {
	b.t.Helper()
	to := kadm.Offsets{}
	to.AddOffset(topics.Overflow(), home, offset, -1)
	if err := b.admin().CommitAllOffsets(b.t.Context(), topics.Prefix+"delay", to); err != nil {
		b.t.Fatal(err)
	}
}

// committed is the group's offset in overflow, -1 if there is none.
func (b *bench) committed() int64 {
	b.t.Helper()
	got, err := b.admin().FetchOffsets(b.t.Context(), topics.Prefix+"delay")
	if err != nil {
		b.t.Fatal(err)
	}
	if o, ok := got.Lookup(topics.Overflow(), home); ok {
		return o.At
	}
	return -1
}

func (b *bench) end(topic string) int64 {
	b.t.Helper()
	ends, err := b.admin().ListEndOffsets(b.t.Context(), topic)
	if err != nil {
		b.t.Fatal(err)
	}
	end, _ := ends.Lookup(topic, home)
	return end.Offset
}

// expect reads events until it has seen these ids, in order.
func (b *bench) expect(ids ...string) {
	b.t.Helper()
	got, _ := b.take(topics.Events(), len(ids))
	for i, r := range got {
		if i < len(ids) && header(r, schemas.HeaderID) != ids[i] {
			b.t.Fatalf("record %d is %s, want %s", i, header(r, schemas.HeaderID), ids[i])
		}
	}
}

// Route writes in transactions, so the newest in a quiet partition is a
// marker. It is committed too: when retention takes all, nothing is missing.
func TestAQuietPartitionGoesOnAfterRetention(t *testing.T) {
	b := newBench(t)
	txn, err := kgo.NewClient(append(b.kafka, kgo.TransactionalID("route"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer txn.Close()
	plain := b.client
	b.client = txn
	if err := txn.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	b.wait(topics.Overflow(), "acme", "a", time.Now())
	if err := txn.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	b.client = plain
	reg := prometheus.NewRegistry()
	_, stop := b.start(nil)
	b.expect("a")
	b.await("the marker is committed", func() bool { return b.committed() == 2 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	b.retain(2)
	b.run(func(c *Config) { c.Registerer = reg })
	b.wait(topics.Overflow(), "acme", "b", time.Now())
	b.expect("a", "b")
	if n := count(t, reg, "gap_offsets_total"); n != 0 {
		t.Errorf("%v offsets are a gap", n)
	}
}

// What was committed is before the log's start: reading goes on at the start,
// and the gap is counted, whether Kafka says where logs start or only at the
// second time of asking.
func TestAGapIsCountedAndPassed(t *testing.T) {
	for _, unknown := range []bool{false, true} {
		t.Run(fmt.Sprint("unknown at first ", unknown), func(t *testing.T) {
			b := newBench(t)
			for i := range 5 {
				b.wait(topics.Overflow(), "acme", fmt.Sprint(i), time.Now())
			}
			b.commit(1)
			b.retain(3)
			if unknown {
				b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: topics.Overflow(), Partitions: []int32{home}, Err: kerr.TopicAuthorizationFailed})
			}
			reg := prometheus.NewRegistry()
			d, _ := b.start(func(c *Config) { c.Registerer = reg })
			b.expect("3", "4")
			if n := count(t, reg, "gap_offsets_total"); n != 2 {
				t.Errorf("%v offsets are a gap", n)
			}
			if err := d.Ready(); err != nil {
				t.Error(err)
			}
			b.await("all is committed", func() bool { return b.committed() == 5 })
		})
	}
}

// An offset after the log's end means that Kafka has lost records. To begin
// anew would give back all that the log has once more.
func TestAnOffsetAfterTheEndIsAFault(t *testing.T) {
	b := newBench(t)
	b.wait(topics.Overflow(), "acme", "old", time.Now())
	b.commit(100)
	d, _ := b.start(nil)
	b.await("the fault is noted", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		f := d.faults[faultAt{partition{topics.Overflow(), home}, readingAhead}]
		return f != nil && errors.Is(f.err, kerr.OffsetOutOfRange) && d.owned[partition{topics.Overflow(), home}].paused == pausedError
	})
	if end := b.end(topics.Events()); end != 0 {
		t.Errorf("%d records were given back", end)
	}
}

// rereads fails readings of payloads, n times.
func (b *bench) rereads(n int, err *kerr.Error) *kfake.FaultHandle {
	return b.cluster.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Fetch}, Topic: topics.Overflow(), Count: n, Err: err,
		When: func(r kmsg.Request) bool { return r.(*kmsg.FetchRequest).MaxBytes == readAheadMax },
	})
}

func TestAReadingThatFailsIsTriedAgain(t *testing.T) {
	b := newBench(t)
	failed := b.rereads(3, kerr.UnknownServerError)
	ids := []string{}
	for i := range 20 {
		ids = append(ids, fmt.Sprint(i))
		b.wait(topics.Overflow(), "acme", ids[i], time.Now())
	}
	d, stop := b.start(func(c *Config) { c.PayloadBytes = 1 })
	b.expect(ids...)
	if failed.Hits() != 3 {
		t.Errorf("%d readings failed", failed.Hits())
	}
	if err := stop(); err != nil || len(d.faults) != 0 || d.inFlight != 0 {
		t.Errorf("%v, %d faults, %d in flight", err, len(d.faults), d.inFlight)
	}
}

// What retention takes while it waits is lost; what is after it is not.
func TestWhatRetentionTakesIsCounted(t *testing.T) {
	b := newBench(t)
	reg := prometheus.NewRegistry()
	hold := b.rereads(-1, kerr.UnknownServerError)
	for i := range 5 {
		b.wait(topics.Overflow(), "acme", fmt.Sprint(i), time.Now())
	}
	b.run(func(c *Config) { c.PayloadBytes, c.Registerer = 1, reg })
	b.await("all wait, and a reading has failed", func() bool { return count(t, reg, "waiting_records") == 5 && hold.Hits() > 0 })
	b.retain(3)
	hold.Remove()
	b.expect("3", "4")
	if n := count(t, reg, "lost_records_total"); n != 3 {
		t.Errorf("%v are lost", n)
	}
	b.await("all is committed", func() bool { return b.committed() == 5 })
}

// opened is a Delay whose clients are open and whose loop does not run. It
// holds one record of overflow that is due.
func (b *bench) opened(drain time.Duration) (*Delay, release) {
	b.t.Helper()
	d := b.make(func(c *Config) { c.DrainTimeout = drain })
	if err := d.open(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { d.consumer.CloseAllowingRebalance(); d.producer.Close() })
	var w *waiting
	b.await("it is assigned", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		w = d.owned[partition{topics.Overflow(), home}]
		return w != nil && w.begun
	})
	w.Add(0, 0)
	r, ok := d.next(w)
	if !ok {
		b.t.Fatal("nothing is due")
	}
	r.record = &kgo.Record{Topic: topics.Overflow(), Partition: home, Key: []byte("acme"), Headers: []kgo.RecordHeader{
		{Key: schemas.HeaderDue, Value: []byte("1")}, {Key: schemas.HeaderOrigin, Value: schemas.OriginHeader(origin, 0, "")},
	}}
	return d, r
}

// Kafka that does not answer must not hold a rebalance for ever.
func TestRevocationHasABound(t *testing.T) {
	b := newBench(t)
	b.cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		return nil, nil, true
	})
	d, r := b.opened(20 * time.Millisecond)
	d.produce(t.Context(), r)
	revoked := make(chan struct{})
	go func() {
		d.revoked(context.WithoutCancel(t.Context()), nil, map[string][]int32{topics.Overflow(): {home}})
		close(revoked)
	}()
	select {
	case <-revoked:
	case <-time.After(5 * time.Second):
		t.Fatal("a revocation waits for an answer that does not come")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owned[r.w.tp] == r.w || !r.w.leaving {
		t.Error("the partition is still ours")
	}
}

func TestAReturnRefusedWhileDrainingIsRunsError(t *testing.T) {
	b := newBench(t)
	b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topics.Events(), Count: -1, Err: kerr.MessageTooLarge})
	d, r := b.opened(5 * time.Second)
	d.produce(t.Context(), r)
	if err := d.drain(t.Context()); !errors.Is(err, kerr.MessageTooLarge) {
		t.Errorf("Run ends with %v", err)
	}
}

// While a commit is on its way, answers are taken and partitions do not leave.
func TestACommitHoldsRevocationAndNothingElse(t *testing.T) {
	b := newBench(t)
	d, r := b.opened(5 * time.Second)
	var seen, free, held atomic.Bool
	b.cluster.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
		seen.Store(true)
		held.Store(!d.commitMu.TryLock())
		for range 1000 {
			if d.mu.TryLock() {
				free.Store(true)
				d.mu.Unlock()
				break
			}
			runtime.Gosched()
		}
		return nil, nil, false
	})
	d.produce(t.Context(), r)
	b.await("it can be committed", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		at, _ := r.w.Committable()
		return at == 1
	})
	d.commit(t.Context())
	if !seen.Load() || !free.Load() || !held.Load() {
		t.Errorf("a commit was seen: %v; answers can be noted: %v; revocation waits: %v", seen.Load(), free.Load(), held.Load())
	}
}
