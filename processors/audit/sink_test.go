package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/deploy/dev/broker"
	"github.com/spillway/spillway/schemas"
)

// A world is a broker with topics, a producer, and a database.
type world struct {
	t      *testing.T
	topics schemas.Topics
	server Server
	seeds  []kgo.Opt
	cl     *kgo.Client
	conn   driver.Conn
	topic  schemas.TopicID // of events

	appended map[place]int64 // append times of events, Unix ms
}

var testSecret = schemas.Secret{ID: "s1", Key: []byte("0123456789abcdef0123")}

var testSchemaIDs = map[string]int32{schemas.TransitionName: 11, schemas.ReceiptName: 12, schemas.SessionRangeName: 13}

const testPartitions = 3

func newWorld(t *testing.T) *world {
	t.Helper()
	server := testServer(t)
	b, err := broker.Start(broker.Config{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	w := &world{t: t, topics: schemas.Topics{Prefix: schemas.DefaultPrefix}, server: server, seeds: []kgo.Opt{kgo.SeedBrokers(b.Addr())}, appended: map[place]int64{}}
	w.cl, err = kgo.NewClient(append(w.seeds, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ConsumeTopics(w.topics.Events()),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(50*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.cl.Close)
	admin := kadm.NewClient(w.cl)
	for _, spec := range w.topics.Layout(testPartitions, []string{"eu"}, false) {
		configs := map[string]*string{}
		for k, v := range spec.Config {
			configs[k] = kadm.StringPtr(v)
		}
		made, err := admin.CreateTopic(t.Context(), spec.Partitions, 1, configs, spec.Name)
		if err != nil {
			t.Fatal(err)
		}
		if spec.Name == w.topics.Events() {
			w.topic = schemas.TopicID(made.ID)
		}
	}
	w.conn = connect(t, server)
	return w
}

func connect(t *testing.T, s Server) driver.Conn {
	t.Helper()
	conn, err := s.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (w *world) config() Config {
	return Config{
		Kafka: w.seeds, Topics: w.topics, Server: w.server, Migrate: true, SchemaIDs: testSchemaIDs, Secrets: secretKeys{},
		Node: "n1", FlushEvery: 20 * time.Millisecond, Now: time.Now,
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	}
}

type secretKeys struct{}

func (secretKeys) SecretKey(id string) ([]byte, bool) { return testSecret.Key, id == testSecret.ID }

// run starts a sink; stop ends it and returns its error.
func (w *world) run(cfg Config, change ...func(*Sink)) (s *Sink, stop func() error) {
	w.t.Helper()
	cfg.Registerer = prometheus.NewRegistry()
	s, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range change {
		c(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	var result error
	stopped := false
	stop = func() error {
		cancel()
		if !stopped {
			stopped, result = true, <-ended
		}
		return result
	}
	w.t.Cleanup(func() { _ = stop() })
	return s, stop
}

// put writes records and returns them with their places.
func (w *world) put(records ...*kgo.Record) []*kgo.Record {
	w.t.Helper()
	if err := w.cl.ProduceSync(w.t.Context(), records...).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
	return records
}

func (w *world) event(tenant string, n int) *kgo.Record {
	return &kgo.Record{
		Topic: w.topics.Events(), Partition: int32(n % testPartitions), Key: []byte(tenant), Value: wire(7, fmt.Sprintf("payload %d", n)),
		Headers: []kgo.RecordHeader{
			{Key: schemas.HeaderID, Value: fmt.Appendf(nil, "ev-%d", n)}, {Key: schemas.HeaderType, Value: []byte("demo.Message")},
			{Key: schemas.HeaderSubject, Value: []byte("chat.1")}, {Key: "x-twice", Value: []byte("a")}, {Key: "x-twice", Value: []byte{0xff, 0}},
			{Key: schemas.HeaderTraceparent, Value: []byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")},
		},
	}
}

func wire(id int32, body string) []byte { return append(schemas.AppendWireHeader(nil, id), body...) }

// origin is rec's place in events, with the append time that the broker gave it.
func (w *world) origin(rec *kgo.Record) schemas.Origin {
	w.t.Helper()
	for key := (place{rec.Partition, rec.Offset}); ; {
		if ms, ok := w.appended[key]; ok {
			return schemas.Origin{Topic: w.topic, Partition: rec.Partition, Offset: rec.Offset, AcceptedAt: ms}
		}
		fetches := w.cl.PollFetches(w.t.Context())
		if err := fetches.Err(); err != nil {
			w.t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { w.appended[place{r.Partition, r.Offset}] = r.Timestamp.UnixMilli() })
	}
}

type place struct {
	partition int32
	offset    int64
}

// audit is the record of audit that says t, r or s.
func (w *world) audit(tenant string, v interface{ AppendAvro([]byte) []byte }) *kgo.Record {
	id := map[bool]int32{true: testSchemaIDs[schemas.TransitionName]}[isTransition(v)]
	switch v.(type) {
	case *schemas.Receipt:
		id = testSchemaIDs[schemas.ReceiptName]
	case *schemas.SessionRange:
		id = testSchemaIDs[schemas.SessionRangeName]
	}
	return &kgo.Record{
		Topic: w.topics.Audit(), Partition: schemas.HomePartition([]byte(tenant), testPartitions), Key: []byte(tenant),
		Value: v.AppendAvro(schemas.AppendWireHeader(nil, id)),
	}
}

func isTransition(v any) bool { _, ok := v.(*schemas.Transition); return ok }

func count(t *testing.T, conn driver.Conn, query string) (n uint64) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// await polls the query until it answers n: the sink has no other sign that a
// row is there.
func (w *world) await(query string, n uint64) {
	w.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		var got uint64
		err := w.conn.QueryRow(w.t.Context(), query).Scan(&got)
		if err == nil && got == n {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: %d, want %d (%v)", query, got, n, err)
		}
		if err := wait(w.t.Context(), 20*time.Millisecond); err != nil {
			w.t.Fatal(err)
		}
	}
}

func TestEachKindLands(t *testing.T) {
	w := newWorld(t)
	_, stop := w.run(w.config())
	events := w.put(w.event("acme", 1), w.event("acme", 2))
	o := w.origin(events[0])

	back := w.event("acme", 1)
	back.Headers = append(back.Headers, kgo.RecordHeader{Key: schemas.HeaderReturn, Value: schemas.Return{Kind: schemas.Release, Origin: o}.Sign(testSecret, back.Key, back.Value)})
	forged := w.event("acme", 3)
	forged.Headers = append(forged.Headers, kgo.RecordHeader{Key: schemas.HeaderReturn, Value: schemas.Return{Kind: schemas.Release, Origin: o}.Sign(schemas.Secret{ID: "s1", Key: []byte("not the key at all")}, forged.Key, forged.Value)})
	bare := &kgo.Record{Topic: w.topics.Events()}

	dead := w.event("acme", 2)
	dead.Topic = w.topics.Dead()
	dead.Headers = append(dead.Headers,
		kgo.RecordHeader{Key: schemas.HeaderOrigin, Value: schemas.OriginHeader(w.origin(events[1]), 0, "")},
		kgo.RecordHeader{Key: schemas.HeaderReason, Value: []byte(schemas.SchemaMismatch)},
		kgo.RecordHeader{Key: schemas.HeaderError, Value: []byte("field text: cut short")}, kgo.RecordHeader{Key: schemas.HeaderStep, Value: []byte("valid")})
	home := schemas.HomePartition([]byte("acme"), testPartitions)
	epoch := int64(schemas.Epoch(w.topic, home))
	w.put(back, forged, bare, dead,
		w.audit("acme", &schemas.Transition{Tenant: "acme", Origin: o, EventID: "ev-1", Status: schemas.Processing, Path: "fast", At: o.AcceptedAt, Home: home, Cursor: 41}),
		w.audit("acme", &schemas.Receipt{Tenant: "acme", Node: "f1", Region: "eu", Home: home, Epoch: epoch, At: o.AcceptedAt + 500, Deliveries: []schemas.Delivery{
			{Cursor: 41, Appended: o.AcceptedAt, Sessions: 2, LatencyUS: 1500}, {Cursor: 41, Appended: o.AcceptedAt, Sessions: 1, LatencyUS: 9000}, {Cursor: 42, Appended: o.AcceptedAt, Sessions: 1, LatencyUS: 900}}}),
		w.audit("acme", &schemas.SessionRange{Tenant: "acme", Session: "s", Channel: "chat.*", Home: home, Epoch: epoch, From: 1, To: 42, Acked: -1, OpenedAt: o.AcceptedAt, At: o.AcceptedAt}),
		&kgo.Record{Topic: w.topics.Audit(), Key: []byte("acme"), Value: []byte("not ours")},
		&kgo.Record{Topic: w.topics.Audit(), Value: wire(11, "cut")}, &kgo.Record{Topic: w.topics.Audit(), Value: wire(999, "")})

	for query, n := range map[string]uint64{
		"SELECT count() FROM v_events": 4, // two, the forged one, the bare one; not the one that came back
		"SELECT count() FROM v_events WHERE tenant = '' AND event_id = origin AND schema_id = -1 AND channel = 'default'": 1,
		"SELECT count() FROM transitions WHERE status = 'processing' AND cursor = 41":                                     1,
		"SELECT count() FROM receipts":       3,
		"SELECT count() FROM session_ranges": 1,
		"SELECT count() FROM v_dead_letters WHERE tenant = 'acme' AND event_id = 'ev-2' AND reason = 'schema_mismatch' AND step = 'valid' AND error != ''": 1,
		"SELECT count() FROM undecodable": 3,
		"SELECT toUInt64(sessions) FROM v_status_now WHERE tenant = 'acme' AND event_id = 'ev-1' AND status = 'delivered' AND latency_us = 9000": 3,
	} {
		w.await(query, n)
	}
	var headers map[string]string
	var payload, trace, origin string
	if err := w.conn.QueryRow(t.Context(), "SELECT headers, payload, trace_id, origin FROM v_events WHERE event_id = 'ev-1'").Scan(&headers, &payload, &trace, &origin); err != nil {
		t.Fatal(err)
	}
	if headers["x-twice"] != "\xff\x00" || payload != string(events[0].Value) || trace != "4bf92f3577b34da6a3ce929d0e0e4736" || origin != o.String() {
		t.Errorf("headers %q, payload %q, trace %q, origin %q, want %s", headers, payload, trace, origin, o)
	}
	w.await("SELECT toUInt64(length(mapKeys(headers))) FROM dead_letters", 6) // without the internal ones, with both of the repeated
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.checkCommitted()
}

// checkCommitted: what the groups committed is the end of every partition.
func (w *world) checkCommitted() {
	w.t.Helper()
	admin := kadm.NewClient(w.cl)
	for group, topics := range map[string][]string{
		"spillway.audit.events": {w.topics.Events()}, "spillway.audit": {w.topics.Audit(), w.topics.Dead()},
	} {
		ends, err := admin.ListEndOffsets(w.t.Context(), topics...)
		if err != nil {
			w.t.Fatal(err)
		}
		committed, err := admin.FetchOffsets(w.t.Context(), group)
		if err != nil {
			w.t.Fatal(err)
		}
		ends.Each(func(end kadm.ListedOffset) {
			at, ok := committed.Lookup(end.Topic, end.Partition)
			if end.Offset > 0 && (!ok || at.At != end.Offset) {
				w.t.Errorf("%s: %s/%d committed %d, end %d", group, end.Topic, end.Partition, at.At, end.Offset)
			}
		})
	}
}

// TestCrashBetweenInsertAndCommit kills the sink again and again after its
// rows are acknowledged and before its offsets are committed: no count changes.
func TestCrashBetweenInsertAndCommit(t *testing.T) {
	w := newWorld(t)
	const n = 300
	var records []*kgo.Record
	for i := range n {
		records = append(records, w.event("acme", i))
	}
	w.put(records...)
	var system []*kgo.Record
	home := schemas.HomePartition([]byte("acme"), testPartitions)
	for i, rec := range records {
		o := w.origin(rec)
		system = append(system,
			w.audit("acme", &schemas.Transition{Tenant: "acme", Origin: o, EventID: fmt.Sprintf("ev-%d", i), Status: schemas.Processing, Path: "fast", At: o.AcceptedAt, Home: home, Cursor: int64(i)}),
			w.audit("acme", &schemas.Receipt{Tenant: "acme", Node: "f1", Region: "eu", Home: home, Epoch: int64(schemas.Epoch(w.topic, home)), At: o.AcceptedAt,
				Deliveries: []schemas.Delivery{{Cursor: int64(i), Appended: o.AcceptedAt, Sessions: 2, LatencyUS: 1000}}}))
	}
	w.put(system...)
	errCrash := errors.New("crash")
	var inserted atomic.Int32
	for range 3 {
		_, stop := w.run(w.config(), func(s *Sink) {
			s.hooks.beforeCommit = func() error { inserted.Add(1); return errCrash }
		})
		deadline, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		for before := inserted.Load(); inserted.Load() == before && deadline.Err() == nil; {
			_ = wait(deadline, 10*time.Millisecond)
		}
		cancel()
		if err := stop(); !errors.Is(err, errCrash) {
			t.Fatalf("ended with %v", err)
		}
	}
	_, stop := w.run(w.config())
	w.await("SELECT count() FROM v_status_now WHERE status = 'delivered' AND sessions = 2", n)
	w.await("SELECT count() FROM v_events", n)
	for query, want := range map[string]uint64{
		"SELECT count() FROM v_status_now":                                             n,
		"SELECT toUInt64(sum(sessions)) FROM v_latency_minute":                         2 * n,
		"SELECT sum(events) FROM v_latency_minute":                                     n,
		"SELECT count() FROM v_event_timeline WHERE tenant='acme' AND event_id='ev-7'": 3,
	} {
		if got := count(t, w.conn, query); got != want {
			t.Errorf("%s: %d, want %d", query, got, want)
		}
	}
	if repeats := count(t, w.conn, "SELECT sum(rows) FROM system.parts WHERE database = currentDatabase() AND table = 'events' AND active"); repeats < n {
		t.Errorf("%d rows stored", repeats)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.checkCommitted()
}
