package fanout

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/spillway/spillway/schemas"
)

// corrupt appends a batch to fanout whose checksum is right and whose gzip is
// none, in place of one event that is let through.
func (l *testLog) corrupt(tenant string) {
	l.tb.Helper()
	l.put([]*entry{{tenant: tenant, channel: "a", id: "unreadable"}})
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, Attributes: 1, FirstTimestamp: time.Now().UnixMilli(), MaxTimestamp: time.Now().UnixMilli(),
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: 1, Records: []byte("this is no gzip"),
	}
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	topics, err := l.adm.ListTopics(l.ctx(), testTopics.Fanout(testRegion))
	if err != nil {
		l.tb.Fatal(err)
	}
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.TopicID = testTopics.Fanout(testRegion), topics[testTopics.Fanout(testRegion)].ID
	part := kmsg.NewProduceRequestTopicPartition()
	part.Partition, part.Records = home(tenant), raw
	topic.Partitions = append(topic.Partitions, part)
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 5000
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(l.ctx(), l.plain())
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		l.tb.Fatal(err)
	}
}

// untilGap reads events until a gap is told.
func (c *testClient) untilGap() (before []string, gap schemas.ServerFrame) {
	c.tb.Helper()
	for {
		switch f := c.read(); f.T {
		case "ev":
			before = append(before, idsOf(c.tb, f)...)
		case "gap":
			return before, f
		case "err":
			c.tb.Fatalf("%+v", f)
		}
	}
}

// TestABatchThatCannotBeDecoded: it stops nobody. Who is connected, who comes
// back from before it, and who comes to a node that starts behind it are told a
// gap there, and nothing else is missing.
func TestABatchThatCannotBeDecoded(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l)
	tok := token("acme", "*")
	c, _ := n.open(tok, ask("a", "live"))
	var all []*entry
	for i := range 6 {
		all = append(all, &entry{tenant: "acme", channel: "a", id: fmt.Sprint(i)})
	}
	l.write(all[:3]...)
	if got := c.events(3); !slices.Equal(got, ids(all[:3])) {
		t.Fatalf("before: %v", got)
	}
	l.corrupt("acme")
	l.write(all[3:]...)
	before := schemas.Cursor{Epoch: all[3].cursor.Epoch, Offset: all[3].cursor.Offset - 1}.String()
	check := func(who string, c *testClient, have int) {
		t.Helper()
		got, gap := c.untilGap()
		if !slices.Equal(got, ids(all[have:3])) || gap.From != all[2].cursor.String() || gap.To != before {
			t.Errorf("%s: %v, then %+v, want a gap to %s", who, got, gap, before)
		}
		if got := c.events(3); !slices.Equal(got, ids(all[3:])) {
			t.Errorf("%s: behind the gap: %v", who, got)
		}
	}
	check("connected", c, 3)
	again, _ := n.open(tok, ask("a", all[0].cursor.String()))
	check("comes back", again, 1)
	other := startNode(t, l)
	elsewhere, _ := other.open(tok, ask("a", all[0].cursor.String()))
	check("comes back to another node", elsewhere, 1)
	if got := n.metric("spillway_fanout_skipped_total", string(schemas.UndecodableBatch)); got != 1 {
		t.Errorf("%v offsets are counted", got)
	}
}

// TestRetentionPassesTheReader: all that the node has not read is deleted. It
// goes on with what comes next, also if Kafka does not say at first where the
// log starts, and tells the gap.
func TestRetentionPassesTheReader(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l)
	c, _ := n.open(token("acme", "*"), ask("a", "live"))
	first := &entry{tenant: "acme", channel: "a", id: "first"}
	l.write(first)
	c.events(1)
	topic := testTopics.Fanout(testRegion)
	hold := l.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Count: -1, Err: kerr.NotLeaderForPartition})
	l.write(&entry{tenant: "acme", channel: "a", id: "lost 0"}, &entry{tenant: "acme", channel: "a", id: "lost 1"})
	ends, err := l.adm.ListEndOffsets(l.ctx(), topic)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(topic, home("acme"))
	var cut kadm.Offsets
	cut.AddOffset(topic, home("acme"), end.Offset, -1)
	if _, err := l.adm.DeleteRecords(l.ctx(), cut); err != nil {
		t.Fatal(err)
	}
	unknown := l.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: topic, Count: 2, Err: kerr.TopicAuthorizationFailed})
	hold.Remove()
	n.eventually("the consumer is out of range", func() bool { return n.metric("spillway_fanout_kafka_failures_total", offsetGone) > 0 })
	n.eventually("Kafka does not say where the log starts", func() bool { return unknown.Hits() > 0 })
	n.eventually("it waits where the log is", func() bool {
		n.source.mu.Lock()
		p := n.source.parts[home("acme")]
		n.source.mu.Unlock()
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.next == end.Offset
	})
	was := n.metric("spillway_fanout_kafka_failures_total", offsetGone)
	<-time.After(500 * time.Millisecond) // of a log that stays empty
	if now := n.metric("spillway_fanout_kafka_failures_total", offsetGone); now > was+5 {
		t.Errorf("out of range again and again: %v times, then %v", was, now)
	}
	next := &entry{tenant: "acme", channel: "a", id: "next"}
	l.write(next)
	if got, gap := c.untilGap(); len(got) > 0 || gap.From != first.cursor.String() {
		t.Errorf("%v, then %+v", got, gap)
	}
	if got := c.events(1); got[0] != "next" {
		t.Errorf("got %v", got)
	}
}

func (n *testNode) eventually(what string, ok func() bool) {
	n.tb.Helper()
	for deadline := time.After(20 * time.Second); !ok(); {
		select {
		case <-deadline:
			n.tb.Fatal("never: ", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// TestALeaderThatIsGone: a read that failed asks anew who has the partition.
func TestALeaderThatIsGone(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l)
	l.write(&entry{tenant: "acme", channel: "a", id: "0"})
	if _, _, err := n.reader.leader(l.ctx(), home("acme")); err != nil {
		t.Fatal(err)
	}
	n.reader.mu.Lock()
	n.reader.leaders = map[int32]int32{home("acme"): 99}
	n.reader.mu.Unlock()
	ctx, cancel := context.WithTimeout(l.ctx(), kafkaTimeout)
	defer cancel()
	if _, err := n.reader.fetch(ctx, home("acme"), 0, chunkBytes); err == nil {
		t.Fatal("a broker that does not exist has answered")
	}
	if c, err := n.reader.fetch(l.ctx(), home("acme"), 0, chunkBytes); err != nil || len(c.records) != 1 {
		t.Errorf("the second read: %d records, %v", len(c.records), err)
	}
}

// TestOthersStandThere: Kafka has lost what was read, and what comes in its
// place is delivered.
func TestOthersStandThere(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l)
	c, _ := n.open(token("acme", "*"), ask("a", "live"))
	l.write(&entry{tenant: "acme", channel: "a", id: "0"}, &entry{tenant: "acme", channel: "a", id: "1"})
	c.events(2)
	topic := testTopics.Fanout(testRegion)
	n.source.failed(t.Context(), topic, home("acme"), &kgo.ErrDataLoss{Topic: topic, Partition: home("acme"), ConsumedTo: 2, ResetTo: 1})
	other := &entry{tenant: "acme", channel: "a", id: "other"}
	l.put([]*entry{other})
	rec := l.records([]*entry{other})[0]
	rec.Offset = 1
	n.source.take(kgo.FetchTopicPartition{Topic: topic, FetchPartition: kgo.FetchPartition{Partition: home("acme"), Records: []*kgo.Record{rec}}})
	if got := c.events(1); got[0] != "other" {
		t.Errorf("got %v", got)
	}
}

// TestRecordsOfAnEarlierReading: a partition that is opened again takes none
// that were read for the one before it.
func TestRecordsOfAnEarlierReading(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l)
	p := &partition{id: 1, opened: make(chan struct{})}
	n.source.mu.Lock()
	n.source.parts[1] = p
	n.source.mu.Unlock()
	n.source.take(kgo.FetchTopicPartition{FetchPartition: kgo.FetchPartition{Partition: 1, Records: l.records([]*entry{{tenant: "acme", channel: "a", id: "0"}})}})
	if p.next != 0 {
		t.Errorf("it is read up to %d", p.next)
	}
	n.source.mu.Lock()
	delete(n.source.parts, 1)
	n.source.mu.Unlock()
}

// TestMadeAnewWhileOpening: a partition that was warmed from a topic which is
// no more is read from the new one's start.
func TestMadeAnewWhileOpening(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l)
	l.write(&entry{tenant: "acme", channel: "a", id: "0"})
	n.source.mu.Lock()
	n.source.log = topicID{1}
	n.source.mu.Unlock()
	p, err := n.source.acquire(l.ctx(), home("acme"))
	if err != nil {
		t.Fatal(err)
	}
	defer n.source.release(p)
	n.eventually("the event is read again", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.next > 0 && p.tail.Events() == 1 && n.metric("spillway_fanout_events_total", "") == 2
	})
}

// TestKafkaIsSilent: the node says so, though its consumer only waits.
func TestKafkaIsSilent(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l)
	n.open(token("acme", "*"), ask("a", "live"))
	n.eventually("it is ready", func() bool { return n.Ready() == nil })
	l.cluster.Close()
	n.eventually("it is not ready", func() bool { return n.Ready() != nil })
}

// TestLargeEventsAreNotAllWarmed: a partition opens with the newest part that
// fits.
func TestLargeEventsAreNotAllWarmed(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l)
	data := `{"text":"` + strings.Repeat("x", 512<<10) + `"}`
	const written = 100
	var last *entry
	for i := range written {
		last = &entry{tenant: "acme", channel: "a", id: fmt.Sprint(i), data: data}
		l.write(last)
	}
	p, err := n.source.acquire(l.ctx(), home("acme"))
	if err != nil {
		t.Fatal(err)
	}
	defer n.source.release(p)
	if got := p.tail.Events(); got < warmLeast/2 || got > written/2 || p.tail.Head() != last.cursor {
		t.Errorf("%d events up to %s, want about %d up to %s", got, p.tail.Head(), warmLeast/2, last.cursor)
	}
}

// TestCutBeforeTheHandshake: a drain that is over ends a connection which is
// still being made, and leaves its socket to the one who makes it.
func TestCutBeforeTheHandshake(t *testing.T) {
	c := &conn{woken: make(chan struct{}, 1)}
	c.stop()
	if !c.cut.Load() {
		t.Error("it goes on")
	}
}

// deadlines is a ResponseWriter that remembers when a write must be over.
type deadlines struct {
	*httptest.ResponseRecorder
	last time.Time
}

func (d *deadlines) SetWriteDeadline(t time.Time) error { d.last = t; return nil }

// TestACutStreamDoesNotWait: the last words of a stream that is cut off have
// closeTimeout, not what a slow client has.
func TestACutStreamDoesNotWait(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l)
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	s := &stream{f: n.Fanout, w: w, rc: http.NewResponseController(w), woken: make(chan struct{}, 1)}
	s.stop()
	if code := s.due(); code != int(schemas.CloseDrain) || time.Until(w.last) > closeTimeout {
		t.Errorf("code %d, the write has %s", code, time.Until(w.last))
	}
}
