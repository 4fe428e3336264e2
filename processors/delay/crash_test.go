package delay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/spillway/spillway/deploy/dev/cable"
	"github.com/spillway/spillway/schemas"
)

const short = 300 * time.Millisecond // for a step that does not come

// steps are the requests of a delay's life. A commit comes once a second, and a
// heartbeat every two: they are waited for.
var steps = []struct {
	key  kmsg.Key
	most int // how many of them may pass before
	wait time.Duration
	of   int // how many of 79 lives end there
}{
	{kmsg.Fetch, 6, short, 18}, {kmsg.Produce, 5, short, 22}, {kmsg.OffsetCommit, 1, 1300 * time.Millisecond, 7},
	{kmsg.JoinGroup, 1, short, 6}, {kmsg.SyncGroup, 1, short, 6}, {kmsg.OffsetFetch, 1, short, 8},
	{kmsg.Metadata, 3, short, 10}, {kmsg.Heartbeat, 1, 2300 * time.Millisecond, 2},
}

// sent is a record that was appended to wait.
type sent struct {
	topic, tenant string
	partition     int32
	offset, due   int64
	wait          bool // for an answer about its schema
}

// traffic appends records of several tenants until ctx ends, to overflow and a
// retry tier. As route does, it lets no tenant's due times decrease.
func (b *bench) traffic(ctx context.Context, rng *rand.Rand) map[string]sent {
	all, dues := map[string]sent{}, map[string]int64{}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return all
		case <-tick.C:
		}
		var records []*kgo.Record
		for range 1 + rng.IntN(4) {
			s := sent{topic: topics.Overflow(), tenant: []string{"acme", "globex", "initech", "umbrella"}[rng.IntN(4)]}
			if rng.IntN(2) == 0 {
				s.topic, s.wait = topics.Retry(time.Second), rng.IntN(2) == 0
			}
			class := fmt.Sprint(s.topic, s.tenant, s.wait)
			s.due = max(dues[class], time.Now().UnixMilli()+rng.Int64N(400))
			dues[class] = s.due
			id := strconv.Itoa(len(all))
			all[id] = s
			records = append(records, s.record(id))
		}
		if err := b.client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
			b.t.Errorf("append: %v", err)
			return all
		}
		for _, r := range records {
			s := all[header(r, schemas.HeaderID)]
			s.partition, s.offset = r.Partition, r.Offset
			all[header(r, schemas.HeaderID)] = s
		}
	}
}

func (s sent) record(id string) *kgo.Record {
	r := &kgo.Record{
		Topic: s.topic, Partition: schemas.HomePartition([]byte(s.tenant), partitions), Key: []byte(s.tenant), Value: []byte("value of " + id),
		Headers: []kgo.RecordHeader{
			{Key: schemas.HeaderID, Value: []byte(id)},
			{Key: schemas.HeaderOrigin, Value: schemas.OriginHeader(origin, 2, "job")},
			{Key: schemas.HeaderDue, Value: strconv.AppendInt(nil, s.due, 10)},
		},
	}
	if s.wait {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: schemas.HeaderWait, Value: []byte("schema")})
	}
	return r
}

// crashing runs a delay of this name that dies at one request, over and over,
// until ctx ends. What is left of each is waited for at the end.
func (b *bench) crashing(ctx context.Context, node string, rng *rand.Rand, died func(step string)) {
	var lives []int // indexes of steps
	for i, step := range steps {
		for range step.of {
			lives = append(lives, i)
		}
	}
	for ctx.Err() == nil {
		step := steps[lives[rng.IntN(len(lives))]]
		point := cable.Point{At: step.key, Left: rng.IntN(step.most), After: rng.IntN(2) == 0}
		c := cable.Cut(point)
		d, err := New(Config{
			Kafka:  append(b.kafka[:len(b.kafka):len(b.kafka)], kgo.Dialer(c.Dial)),
			Topics: topics, Partitions: partitions, Secrets: secrets{}, Node: node,
			PayloadBytes: []int64{1, 2000, 64 << 20}[rng.IntN(3)], DrainTimeout: 100 * time.Millisecond,
		})
		if err != nil {
			b.t.Error(err)
			return
		}
		runCtx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = d.Run(runCtx) // a process that dies tells nobody
		}()
		name := fmt.Sprint(step.key.Name(), map[bool]string{false: " before", true: " after"}[point.After])
		limit := time.NewTimer(step.wait)
		select {
		case <-c.Done():
		case <-limit.C:
			name = "at no step"
		case <-ctx.Done():
			name = "at the end"
		}
		limit.Stop()
		c.Sever()
		cancel()
		b.t.Cleanup(func() { <-ended })
		died(name)
	}
}

// appendTimes lets Kafka set the timestamps of what is given back.
func (b *bench) appendTimes() {
	b.t.Helper()
	value := "LogAppendTime"
	set := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "message.timestamp.type", Value: &value}}
	answers, err := b.admin().AlterTopicConfigs(b.t.Context(), set, topics.Events(), topics.Work())
	for _, a := range answers {
		err = errors.Join(err, a.Err)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// TestCrashes: two delays that die at every step, in place and beside each
// other, under load. Everything is given back, never early, one tenant's first
// returns in its order; repeats name the same place, by which route drops them.
func TestCrashes(t *testing.T) {
	t.Parallel()
	const faults = 200
	b := newBench(t)
	b.appendTimes()
	load, stopLoad := context.WithCancel(t.Context())
	appended := make(chan map[string]sent, 1)
	go func() { appended <- b.traffic(load, rand.New(rand.NewPCG(1, 1))) }()
	crashes, enough := context.WithTimeout(t.Context(), time.Minute) // far more than they take
	defer enough()
	var mu sync.Mutex
	byStep, total := map[string]int{}, 0
	var delays sync.WaitGroup
	for n := range uint64(2) {
		delays.Go(func() {
			b.crashing(crashes, fmt.Sprint("d-", n), rand.New(rand.NewPCG(7, n)), func(step string) {
				mu.Lock()
				defer mu.Unlock()
				byStep[step]++
				if total++; total >= faults {
					enough()
				}
			})
		})
	}
	begin := time.Now()
	delays.Wait()
	stopLoad()
	all := <-appended
	crashed := time.Since(begin)
	// A member that died while it joined holds the group for the rebalance
	// timeout, a minute: the dead are taken out of it.
	dead := kadm.LeaveGroup(topics.Prefix+"delay").InstanceIDs(topics.Prefix+"delay/d-0", topics.Prefix+"delay/d-1")
	if _, err := b.admin().LeaveGroup(t.Context(), dead); err != nil {
		t.Fatal(err)
	}
	b.run(func(c *Config) { c.Node = "d-2" })
	b.await("all is committed", func() bool {
		lags, err := b.admin().Lag(t.Context(), topics.Prefix+"delay")
		return err == nil && lags.Error() == nil && lags[topics.Prefix+"delay"].Lag.Total() == 0
	})
	given := b.checkReturns(all)
	t.Logf("%d faults in %s, %d records given back %d times; by step %v", total, crashed.Round(time.Millisecond), len(all), given, byStep)
	for _, step := range steps {
		if byStep[step.key.Name()+" before"]+byStep[step.key.Name()+" after"] == 0 {
			t.Errorf("none died at %s", step.key.Name())
		}
	}
	if total < faults {
		t.Errorf("only %d died", total)
	}
}

// checkReturns checks events and work against what was appended, and returns
// how many there are.
func (b *bench) checkReturns(all map[string]sent) (given int) {
	b.t.Helper()
	seen, newest := map[string]bool{}, map[string]int64{}
	for _, topic := range []string{topics.Events(), topics.Work()} {
		for _, r := range b.everything(topic) {
			given++
			id := header(r, schemas.HeaderID)
			s, known := all[id]
			if !known || string(r.Value) != "value of "+id || string(r.Key) != s.tenant || r.Partition != s.partition {
				b.t.Fatalf("%s/%d offset %d: id %q, key %q, value %q", topic, r.Partition, r.Offset, id, r.Key, r.Value)
			}
			if early := s.due - r.Timestamp.UnixMilli(); early > 0 {
				b.t.Errorf("record %s was given back %d ms early", id, early)
			}
			b.checkReturn(topic, id, s, r)
			if seen[id] {
				continue
			}
			seen[id] = true
			class := fmt.Sprint(s.topic, s.tenant, s.wait)
			if before, ok := newest[class]; ok && s.offset < before {
				b.t.Errorf("%s: offset %d of %s was given back first after %d", s.topic, s.offset, s.tenant, before)
			}
			newest[class] = s.offset
		}
	}
	if len(seen) != len(all) || len(all) == 0 {
		b.t.Errorf("%d of %d records were given back", len(seen), len(all))
	}
	for _, topic := range []string{topics.Dead(), topics.Retry(2 * time.Second)} {
		if n := len(b.everything(topic)); n != 0 {
			b.t.Errorf("%d records on %s", n, topic)
		}
	}
	return given
}

// checkReturn: to work as it was, to events with a signed return that names its
// place.
func (b *bench) checkReturn(topic, id string, s sent, r *kgo.Record) {
	b.t.Helper()
	if s.topic != topics.Overflow() && !s.wait {
		if topic != topics.Work() || header(r, schemas.HeaderDue) != strconv.FormatInt(s.due, 10) {
			b.t.Errorf("record %s of %s is on %s with %v", id, s.topic, topic, r.Headers)
		}
		return
	}
	kind := schemas.Release
	if s.wait {
		kind = schemas.Wait
	}
	want := schemas.Return{
		Kind: kind, Origin: origin, Generation: 2, Job: "job",
		Of: schemas.Place{Topic: strings.TrimPrefix(s.topic, topics.Prefix), Partition: s.partition, Offset: s.offset},
	}
	ret, err := schemas.ParseReturn([]byte(header(r, schemas.HeaderReturn)), r.Key, r.Value, func(string) ([]byte, bool) { return secret.Key, true })
	if err != nil || ret != want || topic != topics.Events() {
		b.t.Errorf("record %s is on %s: %+v, %v, want %+v", id, topic, ret, err, want)
	}
}

// everything is what a topic holds now.
func (b *bench) everything(topic string) []*kgo.Record {
	b.t.Helper()
	ends, err := b.admin().ListEndOffsets(b.t.Context(), topic)
	if err != nil {
		b.t.Fatal(err)
	}
	n := 0
	ends.Each(func(o kadm.ListedOffset) { n += int(o.Offset) })
	if n == 0 {
		return nil
	}
	records, _ := b.take(topic, n)
	return records
}
