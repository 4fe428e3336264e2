package route

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// until waits until left, asked again and again, has nothing to say.
func (s *stage) until(limit time.Duration, left func() string) {
	s.t.Helper()
	deadline, tick := time.After(limit), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		what := left()
		if what == "" {
			return
		}
		select {
		case <-deadline:
			s.t.Fatalf("after %s: %s", limit, what)
		case <-tick.C:
		}
	}
}

// ended waits until no transaction is open on topic: one that a dead router
// left hides what others have committed behind it, until it times out.
func (s *stage) ended(topic string) (stable kadm.ListedOffsets) {
	s.t.Helper()
	admin := kadm.NewClient(s.producer)
	s.until(patience, func() string {
		ends, err := admin.ListEndOffsets(s.t.Context(), topic)
		if err != nil {
			s.t.Fatal(err)
		}
		if stable, err = admin.ListCommittedOffsets(s.t.Context(), topic); err != nil {
			s.t.Fatal(err)
		}
		open := 0
		ends.Each(func(e kadm.ListedOffset) {
			if o, ok := stable.Lookup(topic, e.Partition); !ok || o.Offset < e.Offset {
				open++
			}
		})
		return some(open, "partitions of "+topic+" have an open transaction")
	})
	return stable
}

func some(n int, what string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n, " ", what)
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

func (s *stage) settledWithin(limit time.Duration) {
	s.t.Helper()
	s.until(limit, func() string { return s.behind(s.ends()) })
}

// behind says how many partitions are not decided up to ends.
func (s *stage) behind(ends kadm.ListedOffsets) string {
	s.t.Helper()
	offsets, err := kadm.NewClient(s.producer).FetchOffsets(s.t.Context(), topics.Prefix+"route")
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // no member has joined yet
		s.t.Fatal(err)
	}
	behind := 0
	ends.Each(func(e kadm.ListedOffset) {
		if o, ok := offsets.Lookup(e.Topic, e.Partition); e.Offset > 0 && (!ok || o.At < e.Offset) {
			behind++
		}
	})
	return some(behind, "partitions are not decided to their end")
}

// ends are the ends of events now.
func (s *stage) ends() kadm.ListedOffsets {
	s.t.Helper()
	ends, err := kadm.NewClient(s.producer).ListEndOffsets(s.t.Context(), topics.Events())
	if err != nil {
		s.t.Fatal(err)
	}
	return ends
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
