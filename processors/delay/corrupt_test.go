package delay

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/spillway/spillway/schemas"
)

// corrupt appends a batch to overflow whose checksum is right and whose gzip is
// none: two records that nobody can read.
func (b *bench) corrupt() {
	b.t.Helper()
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, Attributes: 1, LastOffsetDelta: 1, FirstTimestamp: time.Now().UnixMilli(), MaxTimestamp: time.Now().UnixMilli(),
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: 2, Records: []byte("this is no gzip"),
	}
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 5000
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.TopicID = topics.Overflow(), b.topicID(topics.Overflow())
	part := kmsg.NewProduceRequestTopicPartition()
	part.Partition, part.Records = home, raw
	topic.Partitions = append(topic.Partitions, part)
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(b.t.Context(), b.client)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) topicID(topic string) schemas.TopicID {
	b.t.Helper()
	described, err := b.admin().ListTopics(b.t.Context(), topic)
	if err != nil {
		b.t.Fatal(err)
	}
	return schemas.TopicID(described[topic].ID)
}

// A batch that no client can decode becomes a dead letter that says where it
// is; what lies around it is given back, and a restart does not meet it again.
func TestACorruptBatchIsSkipped(t *testing.T) {
	b := newBench(t)
	b.wait(topics.Overflow(), "acme", "before", time.Now())
	b.corrupt()
	b.wait(topics.Overflow(), "acme", "after", time.Now())
	reg := prometheus.NewRegistry()
	d, stop := b.start(func(c *Config) { c.Registerer = reg })
	b.expect("before", "after")
	letters, _ := b.take(topics.Dead(), 1)
	o, _, _, err := schemas.ParseOriginHeader([]byte(header(letters[0], schemas.HeaderOrigin)))
	if err != nil || o.Topic != b.topicID(topics.Overflow()) || o.Partition != home || o.Offset != 1 ||
		header(letters[0], schemas.HeaderReason) != string(schemas.UndecodableBatch) {
		t.Errorf("dead letter: origin %+v, %v, headers %v", o, err, letters[0].Headers)
	}
	if text := header(letters[0], schemas.HeaderError); !strings.Contains(text, "offsets 1 to 2 cannot be decoded") {
		t.Errorf("it says %q", text)
	}
	b.await("all is committed", func() bool { return b.committed() == 4 })
	if n := count(t, reg, "dead_total"); n != 1 {
		t.Errorf("%v dead letters are counted", n)
	}
	if err := d.Ready(); err != nil {
		t.Errorf("not ready afterwards: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	b.run(nil)
	b.wait(topics.Overflow(), "acme", "later", time.Now())
	b.expect("before", "after", "later")
	if end := b.end(topics.Dead()); end != 1 {
		t.Errorf("%d dead letters", end)
	}
}

// A record that waits, whose payload was not kept and whose batch has become
// corrupt, is a dead letter; its neighbours are given back.
func TestAPayloadThatIsCorruptIsBuried(t *testing.T) {
	b := newBench(t)
	b.wait(topics.Overflow(), "acme", "before", time.Now())
	b.corrupt()
	b.wait(topics.Overflow(), "acme", "after", time.Now())
	reg := prometheus.NewRegistry()
	d := b.make(func(c *Config) { c.Registerer = reg })
	if err := d.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.consumer.CloseAllowingRebalance(); d.producer.Close() })
	d.topicIDs[topics.Overflow()] = b.topicID(topics.Overflow())
	tp := partition{topics.Overflow(), home}
	var w *waiting
	b.await("it is assigned", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		w = d.owned[tp]
		return w != nil && w.begun
	})
	d.mu.Lock()
	for i := range int64(4) { // as if they could be read once
		w.Add(0, i)
	}
	d.mu.Unlock()
	if _, err := d.readFrom(t.Context(), tp, 1); !errors.As(err, new(*corruptError)) {
		t.Errorf("reading again: %v", err)
	}
	d.releaseDue(t.Context())
	b.expect("before", "after")
	letters, _ := b.take(topics.Dead(), 2)
	for i, r := range letters {
		o, _, _, err := schemas.ParseOriginHeader([]byte(header(r, schemas.HeaderOrigin)))
		if err != nil || o.Offset != int64(1+i) || header(r, schemas.HeaderReason) != string(schemas.UndecodableBatch) {
			t.Errorf("dead letter %d: origin %+v, %v, headers %v", i, o, err, r.Headers)
		}
	}
	if err := d.drain(t.Context()); err != nil {
		t.Error(err)
	}
	if got := b.committed(); got != 4 {
		t.Errorf("committed %d", got)
	}
	if n := count(t, reg, "dead_total"); n != 2 {
		t.Errorf("%v dead letters are counted", n)
	}
}
