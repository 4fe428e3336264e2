package route

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/spillway/spillway/schemas"
)

// notReady waits until the router says why it is not ready.
func (s *stage) notReady(r *Router, why string) {
	s.t.Helper()
	s.until(patience, func() string {
		if err := r.Ready(); err == nil || !strings.Contains(err.Error(), why) {
			return fmt.Sprintf("ready: %v, want %q", err, why)
		}
		return ""
	})
}

// TestCommittedOffsetOutsideOfTheLog: the partition is refused with a reason
// and a metric, its offset stays, and the others go on.
func TestCommittedOffsetOutsideOfTheLog(t *testing.T) {
	home := schemas.HomePartition([]byte("acme"), partitions)
	for _, c := range []struct {
		reason string
		change func(*stage, *kadm.Client)
		offset int64
	}{
		{belowStart, func(s *stage, admin *kadm.Client) {
			s.produce(record("acme", "lost-1", "x"), record("acme", "lost-2", "x"), record("acme", "kept", "x"))
			to := kadm.Offsets{}
			to.AddOffset(topics.Events(), home, 3, -1)
			deleted, err := admin.DeleteRecords(s.ctx(), to)
			if err := errors.Join(err, deleted.Error()); err != nil {
				s.t.Fatal(err)
			}
		}, 1},
		{beyondEnd, func(s *stage, admin *kadm.Client) {
			to := kadm.Offsets{}
			to.AddOffset(topics.Events(), home, 100, -1)
			if err := admin.CommitAllOffsets(s.ctx(), topics.Prefix+"route", to); err != nil {
				s.t.Fatal(err)
			}
		}, 100},
	} {
		t.Run(c.reason, func(t *testing.T) {
			s := newStage(t)
			admin := kadm.NewClient(s.producer)
			s.produce(record("acme", "before", "x"))
			_, stop := s.run(s.config(0))
			s.read(topics.Fanout("eu"), 1)
			s.settled()
			stop()
			c.change(s, admin)
			cfg := s.config(0)
			cfg.Registerer = prometheus.NewRegistry()
			r, stop := s.run(cfg)
			s.notReady(r, "is refused")
			other := elsewhere(t, home)
			s.produce(record(other, "goes on", "x"))
			if got := s.read(topics.Fanout("eu"), 2); !strings.Contains(string(got[0].Value)+string(got[1].Value), "goes on") {
				t.Errorf("delivered: %s and %s", got[0].Value, got[1].Value)
			}
			if n := r.refusedFor(t, "0", c.reason) + r.refusedFor(t, "1", c.reason); n != 1 {
				t.Errorf("%v partitions are refused, want 1", n)
			}
			stop()
			offsets, err := admin.FetchOffsets(s.ctx(), topics.Prefix+"route")
			if o, ok := offsets.Lookup(topics.Events(), home); err != nil || !ok || o.At != c.offset {
				t.Errorf("committed: %+v, %v, want %d", o, err, c.offset)
			}
		})
	}
}

// refusedFor is the metric of refused partitions.
func (r *Router) refusedFor(t *testing.T, session, reason string) float64 {
	t.Helper()
	var m dto.Metric
	if err := r.metrics.refused.WithLabelValues(session, reason).Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetGauge().GetValue()
}

// elsewhere is a tenant of another home partition.
func elsewhere(t *testing.T, home int32) string {
	t.Helper()
	for _, tenant := range []string{"globex", "initech"} {
		if schemas.HomePartition([]byte(tenant), partitions) != home {
			return tenant
		}
	}
	t.Fatal("all tenants are at one home")
	return ""
}

// TestTopicMadeAnew: events is deleted and created again while route runs. It
// says so and decides nothing; a router that starts then takes the new topic
// from its start.
func TestTopicMadeAnew(t *testing.T) {
	s := newStage(t)
	admin := kadm.NewClient(s.producer)
	r, stop := s.run(s.config(0))
	s.produce(record("acme", "old", "x"))
	s.read(topics.Fanout("eu"), 1)
	s.settled()
	if gone, err := admin.DeleteTopic(s.ctx(), topics.Events()); errors.Join(err, gone.Err) != nil {
		t.Fatal(err, gone.Err)
	}
	stamp := "LogAppendTime"
	if _, err := admin.CreateTopic(s.ctx(), partitions, 1, map[string]*string{"message.timestamp.type": &stamp}, topics.Events()); err != nil {
		t.Fatal(err)
	}
	s.notReady(r, "made anew")
	stop()
	// Kafka deletes a group's offsets with the topic; the embedded broker keeps them.
	if _, err := admin.DeleteGroup(s.ctx(), topics.Prefix+"route"); err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		t.Fatal(err)
	}
	fresh := s.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(topics.Events()))
	if err := fresh.ProduceSync(s.ctx(), record("acme", "new", "x")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	s.run(s.config(0))
	if got := s.read(topics.Fanout("eu"), 2); !strings.Contains(string(got[1].Value), `"id":"new"`) {
		t.Errorf("delivered: %s", got[1].Value)
	}
}

// TestOutputMadeAnew: a topic that route writes to is deleted and created
// again. Meanwhile nothing is committed and ready says why, without a try every
// millisecond; afterwards everything is delivered.
func TestOutputMadeAnew(t *testing.T) {
	s := newStage(t)
	admin := kadm.NewClient(s.producer)
	cfg := s.config(0)
	cfg.Sessions = 1
	r, _ := s.run(cfg)
	s.produce(record("acme", "old", "x"))
	s.read(topics.Fanout("eu"), 1)
	s.settled()
	if gone, err := admin.DeleteTopic(s.ctx(), topics.Fanout("eu")); errors.Join(err, gone.Err) != nil {
		t.Fatal(err, gone.Err)
	}
	s.produce(record("acme", "meanwhile", "x"))
	s.notReady(r, topics.Fanout("eu"))
	if _, err := admin.CreateTopic(s.ctx(), partitions, 1, nil, topics.Fanout("eu")); err != nil {
		t.Fatal(err)
	}
	if got := s.read(topics.Fanout("eu"), 1); !strings.Contains(string(got[0].Value), `"id":"meanwhile"`) {
		t.Errorf("delivered: %s", got[0].Value)
	}
	s.settled()
	if err := r.Ready(); err != nil {
		t.Errorf("not ready afterwards: %v", err)
	}
	if n := s.count(topics.Audit()); n != 2 {
		t.Errorf("%d decisions about 2 events", n)
	}
}

// TestCorruptBatch: a batch that no client can decode is skipped, its place is
// in dead, and what lies around it is delivered.
func TestCorruptBatch(t *testing.T) {
	s := newStage(t)
	home := schemas.HomePartition([]byte("acme"), partitions)
	s.produce(record("acme", "before", "x"))
	produceCorrupt(s, home)
	s.produce(record("acme", "after", "x"))
	r, _ := s.run(s.config(0))
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
	if err := r.Ready(); err != nil {
		t.Errorf("not ready afterwards: %v", err)
	}
}

// TestGoodRecordsBeforeACorruptBatch: none of those that one poll brings
// together with the error is lost, however small the batches are.
func TestGoodRecordsBeforeACorruptBatch(t *testing.T) {
	s := newStage(t)
	home := schemas.HomePartition([]byte("acme"), partitions)
	const good = 40
	var records []*kgo.Record
	for i := range good {
		records = append(records, record("acme", fmt.Sprint("m-", i), "x"))
	}
	s.produce(records...)
	produceCorrupt(s, home)
	s.produce(record("acme", "after", "x"))
	cfg := s.config(0)
	cfg.MaxBatch = 3
	s.run(cfg)
	got := s.read(topics.Fanout("eu"), good+1)
	if !strings.Contains(string(got[good].Value), `"id":"after"`) {
		t.Errorf("last delivered: %s", got[good].Value)
	}
	s.settled()
	if n := s.count(topics.Dead()); n != 1 {
		t.Errorf("%d dead letters, want 1", n)
	}
}

// produceCorrupt appends a batch whose checksum is right and whose gzip is
// none.
func produceCorrupt(s *stage, partition int32) {
	s.t.Helper()
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, Attributes: 1, FirstTimestamp: time.Now().UnixMilli(), MaxTimestamp: time.Now().UnixMilli(),
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: 1, Records: []byte("this is no gzip"),
	}
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12)) // its length, without offset and length
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 5000
	topic := kmsg.NewProduceRequestTopic()
	described, err := kadm.NewClient(s.producer).ListTopics(s.ctx(), topics.Events())
	if err != nil {
		s.t.Fatal(err)
	}
	topic.Topic, topic.TopicID = topics.Events(), described[topics.Events()].ID
	part := kmsg.NewProduceRequestTopicPartition()
	part.Partition, part.Records = partition, raw
	topic.Partitions = append(topic.Partitions, part)
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(s.ctx(), s.producer)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}
