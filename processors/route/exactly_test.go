package route

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/spillway/spillway/schemas"
)

// TestBomb: a batch that decompresses to more than the bound is skipped, its
// place is in dead, and the next record of the partition is delivered.
func TestBomb(t *testing.T) {
	s := newStage(t)
	home := schemas.HomePartition([]byte("acme"), partitions)
	s.produce(record("acme", "before", "x"))
	bomb := s.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(topics.Events()),
		kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.ProducerBatchMaxBytes(64<<20), kgo.BrokerMaxWriteBytes(100<<20))
	if err := bomb.ProduceSync(s.ctx(), &kgo.Record{Key: []byte("acme"), Value: make([]byte, 40<<20), Partition: home}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	s.produce(record("acme", "after", "x"))
	_, stop := s.run(s.config(0))
	got := s.read(topics.Fanout("eu"), 2)
	if !strings.Contains(string(got[1].Value), `"id":"after"`) {
		t.Errorf("second delivered: %s", got[1].Value)
	}
	dead := s.read(topics.Dead(), 1)[0]
	o, _, _, err := schemas.ParseOriginHeader([]byte(header(dead, schemas.HeaderOrigin)))
	if err != nil || o.Partition != home || o.Offset != 1 || header(dead, schemas.HeaderReason) != string(schemas.UndecodableBatch) {
		t.Errorf("dead: origin %+v, %v, headers %v", o, err, dead.Headers)
	}
	s.settled()
	stop()
	_, stop = s.run(s.config(0)) // it must not come again after a restart
	s.produce(record("acme", "restarted", "x"))
	s.read(topics.Fanout("eu"), 3)
	s.settled()
	stop()
	if n := s.count(topics.Dead()); n != 1 {
		t.Errorf("%d dead letters, want 1", n)
	}
}

// TestTransactionalProducer: events is read uncommitted, so a record of a
// producer's transaction is dead, whatever becomes of the transaction.
func TestTransactionalProducer(t *testing.T) {
	s := newStage(t)
	p := s.client(kgo.TransactionalID("foreign"), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(topics.Events()))
	if err := p.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := p.ProduceSync(s.ctx(), record("acme", "m-1", "x")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	s.run(s.config(0))
	s.produce(record("acme", "m-2", "x")) // behind it, while its transaction is still open
	if got := s.read(topics.Fanout("eu"), 1)[0]; !strings.Contains(string(got.Value), `"id":"m-2"`) {
		t.Errorf("delivered: %s", got.Value)
	}
	if r := s.read(topics.Dead(), 1)[0]; header(r, schemas.HeaderReason) != string(schemas.TransactionalProducer) {
		t.Errorf("dead: %v", r.Headers)
	}
	if err := p.EndTransaction(s.ctx(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
}

// TestRefusedRecord: a record that Kafka refuses for its size does not stop
// the partition: the event is dead too_large, with its place.
func TestRefusedRecord(t *testing.T) {
	s := newStage(t)
	small := "4096"
	if _, err := kadm.NewClient(s.producer).AlterTopicConfigs(s.ctx(),
		[]kadm.AlterConfig{{Name: "max.message.bytes", Value: &small}}, topics.Fanout("eu"), topics.Dead()); err != nil {
		t.Fatal(err)
	}
	s.run(s.config(0))
	s.produce(record("acme", "m-1", "x"), record("acme", "m-2", noise(20_000)), record("acme", "m-3", "x"))
	got := s.read(topics.Fanout("eu"), 2)
	for i, id := range []string{"m-1", "m-3"} {
		if !strings.Contains(string(got[i].Value), `"id":"`+id+`"`) {
			t.Errorf("delivered %.100s, want %s", got[i].Value, id)
		}
	}
	dead := s.read(topics.Dead(), 1)[0]
	if header(dead, schemas.HeaderReason) != string(schemas.TooLarge) || dead.Value != nil || header(dead, schemas.HeaderID) != "m-2" {
		t.Errorf("dead: %d bytes, %v", len(dead.Value), dead.Headers)
	}
}

// noise is text that does not compress well.
func noise(n int) string {
	rng := rand.New(rand.NewPCG(1, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(rng.IntN(26))
	}
	return string(b)
}

// TestRestart continues from the committed offset: nothing twice, nothing lost.
func TestRestart(t *testing.T) {
	s := newStage(t)
	const rounds, each = 4, 200
	for round := range rounds {
		_, stop := s.run(s.config(0))
		var records []*kgo.Record
		for i := range each {
			records = append(records, record("acme", fmt.Sprintf("m-%d-%d", round, i), "x"))
		}
		s.produce(records...)
		s.read(topics.Fanout("eu"), round*each+each/2) // somewhere in the middle
		stop()
	}
	s.run(s.config(0))
	s.settled()
	s.checkOnce(rounds * each)
}

// TestRebalance: routers come and go under load; a reader of committed data
// finds every event decided exactly once, each tenant in the order of events.
func TestRebalance(t *testing.T) {
	s := newStage(t)
	const n = 3000
	tenants := []string{"acme", "globex", "initech"}
	produced := make(chan struct{})
	_, stop0 := s.run(s.config(0))
	go func() {
		defer close(produced)
		for i := 0; i < n; i += 10 {
			var records []*kgo.Record
			for k := range 10 {
				records = append(records, record(tenants[(i+k)%3], fmt.Sprint("m-", i+k), "x"))
			}
			if err := s.producer.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	s.read(topics.Audit(), n/6)
	_, stop1 := s.run(s.config(1))
	s.read(topics.Audit(), n/3)
	stop0()
	s.read(topics.Audit(), n/2)
	s.run(s.config(2))
	s.read(topics.Audit(), n*2/3)
	stop1()
	<-produced
	s.settled()
	s.checkOnce(n)
}

// checkOnce checks that n events, each fast and of one region, were decided
// once each and delivered in the order of their tenant's appends.
func (s *stage) checkOnce(n int) {
	s.t.Helper()
	decided := map[int64]int{}
	for _, r := range s.all(topics.Audit()) {
		_, body, _ := schemas.WireHeader(r.Value)
		tr, err := schemas.DecodeTransition(body)
		if err != nil {
			s.t.Fatal(err)
		}
		if tr.Status != schemas.Processing {
			s.t.Errorf("%s: %s %s", tr.EventID, tr.Status, tr.Reason)
		}
		decided[int64(tr.Origin.Partition)<<40|tr.Origin.Offset]++
	}
	for place, times := range decided {
		if times != 1 {
			s.t.Errorf("partition %d offset %d was decided %d times", place>>40, place&(1<<40-1), times)
		}
	}
	if len(decided) != n {
		s.t.Errorf("%d events decided, want %d", len(decided), n)
	}
	s.checkDelivered(n)
}

// checkDelivered: n events were delivered, once each and in the order of their
// tenant's appends.
func (s *stage) checkDelivered(n int) {
	s.t.Helper()
	last := map[int32]string{}
	delivered := map[string]bool{}
	for _, r := range s.all(topics.Fanout("eu")) {
		var ce struct{ ID string }
		if err := json.Unmarshal(r.Value, &ce); err != nil {
			s.t.Fatal(err)
		}
		if delivered[ce.ID] {
			s.t.Errorf("%s was delivered twice", ce.ID)
		}
		delivered[ce.ID] = true
		cursor := header(r, schemas.HeaderCursor)
		if cursor <= last[r.Partition] {
			s.t.Errorf("partition %d: cursor %s after %s", r.Partition, cursor, last[r.Partition])
		}
		last[r.Partition] = cursor
	}
	if len(delivered) != n {
		s.t.Errorf("%d events delivered, want %d", len(delivered), n)
	}
}

// TestAbort: transactions that Kafka takes back leave no trace in the state:
// the same events are decided again, once, and budgets are not spent twice.
func TestAbort(t *testing.T) {
	s := newStage(t)
	s.control.set("acme", schemas.Policy{Quota: 30, Fast: schemas.Rate{Rate: 1e6}})
	cfg := s.config(0)
	cfg.Sessions = 1
	s.run(cfg)
	s.produce(record("acme", "m-0", "x"))
	s.read(topics.Fanout("eu"), 1)
	// A second member under the same transactional id fences the session in
	// the middle of its next transaction: its End fails, it is built anew.
	for round := 1; round < 5; round++ {
		s.fence(cfg.member(0))
		var records []*kgo.Record
		for i := range 3 {
			records = append(records, record("acme", fmt.Sprintf("m-%d-%d", round, i), "x"))
		}
		records = append(records, records[0])
		s.produce(records...)
		s.read(topics.Fanout("eu"), 1+3*round)
	}
	s.settled()
	var dups, fast int
	for _, tr := range s.transitions(1 + 4*4) {
		switch tr.Status {
		case schemas.Dup:
			dups++
		case schemas.Processing:
			fast++
		}
	}
	if dups != 4 || fast != 13 {
		t.Errorf("%d duplicates and %d delivered, want 4 and 13", dups, fast)
	}
	if n := s.count(topics.Audit()); n != 17 {
		t.Errorf("%d transitions, want 17", n)
	}
}

// fence takes a transactional id over, as a second process with it would.
func (s *stage) fence(id string) {
	s.t.Helper()
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis, req.ProducerID, req.ProducerEpoch = &id, 10_000, -1, -1
	resp, err := req.RequestWith(s.ctx(), s.producer)
	if err != nil || resp.ErrorCode != 0 {
		s.t.Fatalf("fence %s: %v, code %d", id, err, resp.ErrorCode)
	}
}

// TestRefuses a topic whose clock producers could forge, or whose home
// partitions would be others.
func TestRefuses(t *testing.T) {
	s := newStage(t)
	cfg := s.config(0)
	cfg.Partitions = 7
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Run(s.ctx()); err == nil || !strings.Contains(err.Error(), "has 4 partitions, want 7") {
		t.Errorf("Run: %v", err)
	}
	create := "CreateTime"
	if _, err := kadm.NewClient(s.producer).AlterTopicConfigs(s.ctx(),
		[]kadm.AlterConfig{{Name: "message.timestamp.type", Value: &create}}, topics.Events()); err != nil {
		t.Fatal(err)
	}
	r, err = New(s.config(0))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Run(s.ctx()); err == nil || !strings.Contains(err.Error(), "LogAppendTime") {
		t.Errorf("Run: %v", err)
	}
	cfg = s.config(0)
	cfg.Topics.Prefix = "none."
	if r, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := r.Run(s.ctx()); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("Run: %v", err)
	}
	if err := r.Ready(); err == nil {
		t.Error("Ready says nil of a router that does not run")
	}
}
