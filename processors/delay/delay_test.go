package delay

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

const partitions = 3

var (
	topics = schemas.Topics{Prefix: schemas.DefaultPrefix}
	secret = schemas.Secret{ID: "s1", Key: []byte("0123456789abcdef")}
	origin = schemas.Origin{Topic: schemas.TopicID{7}, Partition: 1, Offset: 99, AcceptedAt: 1_700_000_000_000}
)

type secrets struct{}

func (secrets) SigningSecret() schemas.Secret { return secret }

// A bench is a broker with delay's topics, and a client to write to them.
type bench struct {
	t       *testing.T
	cluster *kfake.Cluster
	kafka   []kgo.Opt
	client  *kgo.Client
}

func newBench(t *testing.T) *bench {
	t.Helper()
	names := []string{topics.Overflow(), topics.Events(), topics.Work(), topics.Dead()}
	for _, tier := range schemas.RetryTiers {
		names = append(names, topics.Retry(tier))
	}
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, names...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	b := &bench{t: t, cluster: c, kafka: []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}}
	b.client, err = kgo.NewClient(append(b.kafka, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.client.Close)
	return b
}

// wait appends a record that waits until due.
func (b *bench) wait(topic, tenant, id string, due time.Time, extra ...kgo.RecordHeader) {
	b.t.Helper()
	b.append(&kgo.Record{
		Topic: topic, Partition: schemas.HomePartition([]byte(tenant), partitions), Key: []byte(tenant), Value: []byte("value of " + id),
		Headers: append([]kgo.RecordHeader{
			{Key: schemas.HeaderID, Value: []byte(id)},
			{Key: schemas.HeaderOrigin, Value: schemas.OriginHeader(origin, 2, "job")},
			{Key: schemas.HeaderDue, Value: strconv.AppendInt(nil, due.UnixMilli(), 10)},
		}, extra...),
	})
}

func (b *bench) append(r *kgo.Record) {
	b.t.Helper()
	if err := b.client.ProduceSync(b.t.Context(), r).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

// run starts a Delay and returns what stops it and waits for its end.
func (b *bench) run(change func(*Config)) (stop func() error) {
	b.t.Helper()
	_, stop = b.start(change)
	return stop
}

func (b *bench) start(change func(*Config)) (d *Delay, stop func() error) {
	b.t.Helper()
	d = b.make(change)
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	b.t.Cleanup(func() { _ = stop() })
	return d, stop
}

func (b *bench) make(change func(*Config)) *Delay {
	b.t.Helper()
	cfg := Config{Kafka: b.kafka, Topics: topics, Partitions: partitions, Secrets: secrets{}, Node: "d-1"}
	if change != nil {
		change(&cfg)
	}
	d, err := New(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	return d
}

// await polls a condition for 20 s.
func (b *bench) await(what string, ok func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			b.t.Fatal("never: " + what)
		}
		select {
		case <-b.t.Context().Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// count is the sum of a counter, or how many a histogram has seen.
func count(t *testing.T, reg *prometheus.Registry, name string) (n float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "spillway_delay_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			n += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return n
}

// take reads n records of a topic, and the time each was seen.
func (b *bench) take(topic string, n int) (out []*kgo.Record, seen []time.Time) {
	b.t.Helper()
	c, err := kgo.NewClient(append(b.kafka, kgo.ConsumeTopics(topic), kgo.FetchMaxWait(50*time.Millisecond))...)
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	for len(out) < n {
		fetches := c.PollFetches(ctx)
		if ctx.Err() != nil {
			b.t.Fatalf("%d of %d records on %s", len(out), n, topic)
		}
		for _, r := range fetches.Records() {
			out, seen = append(out, r), append(seen, time.Now())
		}
	}
	return out, seen
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

func TestReleasesAreSignedInOrderAndNeverEarly(t *testing.T) {
	b := newBench(t)
	b.run(nil)
	begin := time.Now()
	dues := map[string]time.Time{}
	for i := range 40 {
		id := fmt.Sprint("e", i)
		dues[id] = begin.Add(time.Duration(200+i*5) * time.Millisecond)
		b.wait(topics.Overflow(), "acme", id, dues[id])
	}
	got, _ := b.take(topics.Events(), 40)
	home := schemas.HomePartition([]byte("acme"), partitions)
	for i, r := range got {
		id := fmt.Sprint("e", i)
		if header(r, schemas.HeaderID) != id || string(r.Value) != "value of "+id || r.Partition != home {
			t.Fatalf("record %d is %s with %q on %d", i, header(r, schemas.HeaderID), r.Value, r.Partition)
		}
		if r.Timestamp.UnixMilli() < dues[id].UnixMilli() {
			t.Errorf("%s came %s early", id, dues[id].Sub(r.Timestamp))
		}
		ret, err := schemas.ParseReturn([]byte(header(r, schemas.HeaderReturn)), r.Key, r.Value, func(string) ([]byte, bool) { return secret.Key, true })
		want := schemas.Return{
			Kind: schemas.Release, Origin: origin, Of: schemas.Place{Topic: "overflow", Partition: home, Offset: int64(i)}, Generation: 2, Job: "job",
		}
		if err != nil || ret != want {
			t.Errorf("%s: %+v, %v, want %+v", id, ret, err, want)
		}
		for _, h := range []string{schemas.HeaderDue, schemas.HeaderOrigin} {
			if header(r, h) != "" {
				t.Errorf("%s still has %s", id, h)
			}
		}
	}
}

func TestWaitsRetriesHopsAndGarbage(t *testing.T) {
	b := newBench(t)
	b.run(nil)
	begin := time.Now()
	b.wait(topics.Retry(16*time.Second), "acme", "waits", begin.Add(100*time.Millisecond), kgo.RecordHeader{Key: schemas.HeaderWait, Value: []byte("schema")})
	b.wait(topics.Retry(time.Second), "acme", "retried", begin.Add(150*time.Millisecond), kgo.RecordHeader{Key: schemas.HeaderAttempt, Value: []byte("3")})
	b.wait(topics.Retry(time.Second), "acme", "hops", begin.Add(3500*time.Millisecond))
	b.append(&kgo.Record{Topic: topics.Overflow(), Partition: 0, Key: []byte("acme"), Value: []byte("garbage")})

	got, _ := b.take(topics.Events(), 1)
	ret, err := schemas.ParseReturn([]byte(header(got[0], schemas.HeaderReturn)), got[0].Key, got[0].Value, func(string) ([]byte, bool) { return secret.Key, true })
	if err != nil || ret.Kind != schemas.Wait || ret.Of.Topic != "retry.16s" {
		t.Errorf("%+v, %v", ret, err)
	}
	dead, _ := b.take(topics.Dead(), 1)
	if string(dead[0].Value) != "garbage" || header(dead[0], schemas.HeaderReason) != string(schemas.Internal) || header(dead[0], schemas.HeaderError) == "" {
		t.Errorf("dead letter %q %v", dead[0].Value, dead[0].Headers)
	}
	work, seen := b.take(topics.Work(), 2)
	if header(work[0], schemas.HeaderID) != "retried" || header(work[0], schemas.HeaderAttempt) != "3" || header(work[1], schemas.HeaderID) != "hops" {
		t.Errorf("work has %v, %v", work[0].Headers, work[1].Headers)
	}
	if early := begin.Add(3500 * time.Millisecond).Sub(seen[1]); early > 0 {
		t.Errorf("a record that hops came %s early", early)
	}
	hops, _ := b.take(topics.Retry(2*time.Second), 1)
	if header(hops[0], schemas.HeaderDue) != strconv.FormatInt(begin.Add(3500*time.Millisecond).UnixMilli(), 10) {
		t.Errorf("the hop has another due time: %v", hops[0].Headers)
	}
}

func TestPayloadsThatDoNotFitAreReadAgain(t *testing.T) {
	b := newBench(t)
	reg := prometheus.NewRegistry()
	begin := time.Now()
	for i := range 300 {
		b.wait(topics.Overflow(), "acme", fmt.Sprint("e", i), begin.Add(time.Duration(500+i)*time.Millisecond))
	}
	d, stop := b.start(func(c *Config) { c.PayloadBytes, c.MaxRecords, c.Registerer = 10_000, 100, reg })
	got, _ := b.take(topics.Events(), 300)
	for i, r := range got {
		if header(r, schemas.HeaderID) != fmt.Sprint("e", i) {
			t.Fatalf("record %d is %s", i, header(r, schemas.HeaderID))
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if d.payloads.size != 0 || len(d.payloads.records) != 0 || d.inFlight != 0 || d.inFlightBytes != 0 {
		t.Errorf("all is given back, and %d bytes are kept, %d records (%d bytes) in flight", d.payloads.size, d.inFlight, d.inFlightBytes)
	}
	if count(t, reg, "reread_records_total") == 0 || count(t, reg, "lost_records_total") != 0 {
		t.Error("nothing was read again, or something is lost")
	}
}

// A second Delay takes over half of the partitions; when the first one ends,
// all. Everything comes back, in order, repeats aside.
func TestRebalanceAndRestart(t *testing.T) {
	b := newBench(t)
	tenants := []string{"acme", "globex", "initech", "umbrella"}
	begin := time.Now()
	const each = 150
	for i := range each {
		for _, tenant := range tenants {
			b.wait(topics.Overflow(), tenant, strconv.Itoa(i), begin.Add(time.Duration(i*20)*time.Millisecond))
		}
	}
	stop := b.run(nil)
	b.take(topics.Events(), 50)
	b.run(func(c *Config) { c.Node = "d-2" })
	b.take(topics.Events(), 200)
	if err := stop(); err != nil {
		t.Errorf("the first one ended with %v", err)
	}
	adm := kadm.NewClient(b.client)
	b.await("everything is committed", func() bool {
		lags, err := adm.Lag(t.Context(), topics.Prefix+"delay")
		return err == nil && lags.Error() == nil && lags[topics.Prefix+"delay"].Lag.Total() == 0
	})
	ends, err := adm.ListEndOffsets(t.Context(), topics.Events())
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	ends.Each(func(o kadm.ListedOffset) { total += int(o.Offset) })
	got, _ := b.take(topics.Events(), total)
	next := map[string]int{}
	for _, r := range got {
		i, err := strconv.Atoi(header(r, schemas.HeaderID))
		if err != nil {
			t.Fatal(err)
		}
		tenant := string(r.Key)
		if i > next[tenant] {
			t.Fatalf("%s: %d comes before %d", tenant, i, next[tenant])
		}
		if i == next[tenant] {
			next[tenant]++
		}
	}
	for _, tenant := range tenants {
		if next[tenant] != each {
			t.Errorf("%s: %d of %d came back", tenant, next[tenant], each)
		}
	}
	t.Logf("%d released, %d of them twice", total, total-each*len(tenants))
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("an empty Config is taken")
	}
}
