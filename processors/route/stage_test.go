package route

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/deploy/dev/broker"
	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/codec"
	"github.com/spillway/spillway/schemas/registry"
)

const (
	partitions   = 4
	transitionID = 900
	messageID    = 1 // demo.Message
	requestID    = 2 // ai.inference.Request
	referenceID  = 3 // a schema with references
	patience     = 20 * time.Second
)

var topics = schemas.Topics{Prefix: "t."}

// A stage is a broker with a deployment's topics, and what route asks of the
// other layers.
type stage struct {
	t        testing.TB
	kafka    []kgo.Opt
	producer *kgo.Client // to any partition, as a foreign partitioner would
	control  *fakeControl
	registry *fakeRegistry
}

// A benchmark's broker may be another one: SPILLWAY_TEST_KAFKA names it.
func newStage(t testing.TB) *stage {
	t.Helper()
	if addrs := os.Getenv("SPILLWAY_TEST_KAFKA"); addrs != "" {
		if _, ok := t.(*testing.B); ok {
			topics = schemas.Topics{Prefix: fmt.Sprintf("t%d.", time.Now().UnixNano())}
			return newStageOn(t, strings.Split(addrs, ",")...)
		}
	}
	b, err := broker.Start(broker.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return newStageOn(t, b.Addr())
}

// newStageOn is a stage on a broker that is there.
func newStageOn(t testing.TB, addrs ...string) *stage {
	t.Helper()
	s := &stage{t: t, kafka: []kgo.Opt{kgo.SeedBrokers(addrs...)}, control: newFakeControl(), registry: newFakeRegistry(t)}
	s.producer = s.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(topics.Events()),
		kgo.ProducerBatchMaxBytes(schemas.MaxClientBatch), kgo.ProducerLinger(0))
	admin := kadm.NewClient(s.producer)
	for _, spec := range topics.Layout(partitions, []string{"eu", "us"}, false) {
		configs := map[string]*string{}
		for k, v := range spec.Config {
			configs[k] = &v
		}
		if _, err := admin.CreateTopic(s.ctx(), spec.Partitions, 1, configs, spec.Name); err != nil {
			t.Fatalf("create %s: %v", spec.Name, err)
		}
	}
	return s
}

func (s *stage) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	s.t.Cleanup(cancel)
	return ctx
}

func (s *stage) client(opts ...kgo.Opt) *kgo.Client {
	s.t.Helper()
	c, err := kgo.NewClient(append(append([]kgo.Opt{}, s.kafka...), opts...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

func (s *stage) config(ordinal int) Config {
	c := Config{
		Kafka: s.kafka, Topics: topics, Partitions: partitions,
		SchemaIDs: map[string]int32{schemas.TransitionName: transitionID},
		Tenants:   s.control, Secrets: s.control, Schemas: s.registry,
		Node: "r", Ordinal: ordinal,
	}
	if os.Getenv("ROUTE_LOG") != "" {
		c.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return c
}

// run starts a router; the function it returns stops it and waits.
func (s *stage) run(cfg Config) (r *Router, stop func()) {
	s.t.Helper()
	r, err := New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("Run: %v", err)
		}
	})
	s.t.Cleanup(stop)
	return r, stop
}

// record is an event of tenant with this id, on its home partition.
func record(tenant, id, text string) *kgo.Record {
	return &kgo.Record{
		Key: []byte(tenant), Value: message(text), Partition: schemas.HomePartition([]byte(tenant), partitions),
		Headers: []kgo.RecordHeader{{Key: schemas.HeaderID, Value: []byte(id)}, {Key: schemas.HeaderSubject, Value: []byte("chat.1")}},
	}
}

// message is {"text": text} of schema messageID.
func message(text string) []byte {
	json := append(schemas.AppendJSONString([]byte(`{"text":`), text), '}')
	body, err := messageCodec.AppendAvro(nil, json, 0)
	if err != nil {
		panic(err)
	}
	return append(schemas.AppendWireHeader(nil, messageID), body...)
}

var messageCodec = compile(schemas.SampleSchemas()["demo.Message"])

func compile(text string) *codec.Codec {
	c, err := codec.Compile(text)
	if err != nil {
		panic(err)
	}
	return c
}

func (s *stage) produce(records ...*kgo.Record) {
	s.t.Helper()
	if err := s.producer.ProduceSync(s.ctx(), records...).FirstErr(); err != nil {
		s.t.Fatal(err)
	}
}

// read returns what read_committed readers see of topic, from its start, once
// there are n records.
func (s *stage) read(topic string, n int) []*kgo.Record {
	s.t.Helper()
	c := s.client(kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(50*time.Millisecond))
	defer c.Close()
	ctx, cancel := context.WithTimeout(s.ctx(), patience)
	defer cancel()
	var out []*kgo.Record
	for len(out) < n {
		f := c.PollFetches(ctx)
		if ctx.Err() != nil {
			s.t.Fatalf("%s: %d records, want %d", topic, len(out), n)
		}
		f.EachError(func(_ string, p int32, err error) { s.t.Fatalf("%s/%d: %v", topic, p, err) })
		out = append(out, f.Records()...)
	}
	return out
}

// count is how many committed records topic holds now.
func (s *stage) count(topic string) int {
	s.t.Helper()
	return len(s.all(topic))
}

// ended waits until no transaction is open on topic: one that a dead router
// left hides what others have committed behind it, until it times out.
func (s *stage) ended(topic string) kadm.ListedOffsets {
	s.t.Helper()
	admin := kadm.NewClient(s.producer)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ends, err := admin.ListEndOffsets(ctx, topic)
		if err != nil {
			s.t.Fatal(err)
		}
		stable, err := admin.ListCommittedOffsets(ctx, topic)
		if err != nil {
			s.t.Fatal(err)
		}
		open := 0
		ends.Each(func(e kadm.ListedOffset) {
			if o, ok := stable.Lookup(topic, e.Partition); !ok || o.Offset < e.Offset {
				open++
			}
		})
		if open == 0 {
			return stable
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("%s: transactions stay open on %d partitions", topic, open)
		case <-tick.C:
		}
	}
}

// all are the committed records of topic now: it is read to the offsets that
// are its ends at the time of the call.
func (s *stage) all(topic string) []*kgo.Record {
	s.t.Helper()
	ends := s.ended(topic)
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	c := s.client(kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(50*time.Millisecond))
	defer c.Close()
	var out []*kgo.Record
	for len(left) > 0 {
		f := c.PollFetches(s.ctx())
		f.EachError(func(_ string, p int32, err error) { s.t.Fatalf("%s/%d: %v", topic, p, err) })
		f.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				out = append(out, r)
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return out
}

// settled waits until the router group has committed every record of events.
func (s *stage) settled() {
	s.t.Helper()
	s.settledWithin(patience)
}

func (s *stage) settledWithin(d time.Duration) {
	s.t.Helper()
	admin := kadm.NewClient(s.producer)
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		ends, err := admin.ListEndOffsets(ctx, topics.Events())
		if err != nil {
			s.t.Fatal(err)
		}
		offsets, err := admin.FetchOffsets(ctx, topics.Prefix+"route")
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // no member has joined yet
			s.t.Fatal(err)
		}
		behind := 0
		ends.Each(func(e kadm.ListedOffset) {
			if o, ok := offsets.Lookup(e.Topic, e.Partition); e.Offset > 0 && (!ok || o.At < e.Offset) {
				behind++
			}
		})
		if behind == 0 {
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("%d partitions are not decided to their end", behind)
		case <-tick.C:
		}
	}
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// transitions reads the n first records of audit.
func (s *stage) transitions(n int) []schemas.Transition {
	s.t.Helper()
	var out []schemas.Transition
	for _, r := range s.read(topics.Audit(), n) {
		id, body, ok := schemas.WireHeader(r.Value)
		if !ok || id != transitionID {
			s.t.Fatalf("audit record with schema id %d", id)
		}
		t, err := schemas.DecodeTransition(body)
		if err != nil {
			s.t.Fatal(err)
		}
		if string(r.Key) != t.Tenant {
			s.t.Errorf("audit key %q of tenant %q", r.Key, t.Tenant)
		}
		out = append(out, t)
	}
	return out
}

// fakeControl is Tenants and Secrets.
type fakeControl struct {
	mu       sync.Mutex
	policies map[string]*schemas.Policy
	version  int64
	stale    time.Duration // how old the policies are
}

var testSecret = schemas.Secret{ID: "s1", Key: []byte("0123456789abcdef0123456789abcdef")}

func newFakeControl() *fakeControl {
	c := &fakeControl{policies: map[string]*schemas.Policy{}}
	for _, tenant := range []string{"acme", "globex", "initech"} {
		c.set(tenant, schemas.Policy{Fast: schemas.Rate{Rate: 100_000}})
	}
	return c
}

func (c *fakeControl) set(tenant string, p schemas.Policy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p = p.Under(schemas.DefaultPolicy([]string{"eu"}))
	next := maps.Clone(c.policies)
	next[tenant] = &p
	c.policies = next
	c.version++
}

// fakePolicies are what control said at one time.
type fakePolicies struct {
	policies map[string]*schemas.Policy
	version  int64
}

func (p fakePolicies) Version() int64 { return p.version }
func (p fakePolicies) Policy(tenant string) (*schemas.Policy, bool) {
	policy, ok := p.policies[tenant]
	return policy, ok
}

func (c *fakeControl) Wait(ctx context.Context) error { return ctx.Err() }
func (c *fakeControl) Policies() Policies {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fakePolicies{c.policies, c.version}
}
func (c *fakeControl) FreshAt() time.Time            { return time.Now().Add(-c.stale) }
func (c *fakeControl) SigningSecret() schemas.Secret { return testSecret }
func (c *fakeControl) DedupeKey() []byte             { return []byte("fedcba9876543210") }
func (c *fakeControl) SecretKey(id string) ([]byte, bool) {
	return testSecret.Key, id == testSecret.ID
}

// fakeRegistry knows a few ids at once and others only when it is resolved.
type fakeRegistry struct {
	mu     sync.Mutex
	known  map[int]*registry.Schema
	hidden map[int]*registry.Schema // found by Resolve
	absent map[int]time.Time
	down   bool
	asked  int
}

func newFakeRegistry(testing.TB) *fakeRegistry {
	samples := schemas.SampleSchemas()
	schema := func(id int, name string) *registry.Schema {
		return &registry.Schema{ID: id, Name: name, Codec: compile(samples[name])}
	}
	return &fakeRegistry{
		known: map[int]*registry.Schema{
			requestID:   schema(requestID, "ai.inference.Request"),
			referenceID: {ID: referenceID, HasReferences: true, Unsupported: errors.New("the schema has references to other subjects")},
		},
		hidden: map[int]*registry.Schema{messageID: schema(messageID, "demo.Message")},
		absent: map[int]time.Time{},
	}
}

func (f *fakeRegistry) ByID(id int) (*registry.Schema, registry.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.known[id]; s != nil {
		return s, registry.State{Answer: registry.Known}
	}
	if asked, ok := f.absent[id]; ok {
		return nil, registry.State{Answer: registry.Absent, Asked: asked}
	}
	return nil, registry.State{}
}

func (f *fakeRegistry) Ask(int) bool { return false }

func (f *fakeRegistry) Resolve(_ context.Context, id int) (*registry.Schema, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.down {
		return nil, registry.ErrUnavailable
	}
	if s := f.hidden[id]; s != nil {
		f.known[id] = s
		return s, nil
	}
	f.absent[id] = time.Now()
	return nil, registry.ErrAbsent
}
