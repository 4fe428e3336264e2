package audit

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// recreate deletes a topic and, after a while, makes it anew.
func (w *world) recreate(topic string, partitions int32, while time.Duration) {
	w.t.Helper()
	admin := kadm.NewClient(w.cl)
	if _, err := admin.DeleteTopics(w.t.Context(), topic); err != nil {
		w.t.Fatal(err)
	}
	if err := wait(w.t.Context(), while); err != nil {
		w.t.Fatal(err)
	}
	stamp := "LogAppendTime"
	made, err := admin.CreateTopic(w.t.Context(), partitions, 1, map[string]*string{"message.timestamp.type": &stamp}, topic)
	if err != nil {
		w.t.Fatal(err)
	}
	if topic == w.topics.Events() {
		w.topic = schemas.TopicID(made.ID)
	}
	w.cl.PurgeTopicsFromClient(topic)
}

// TestTopicDeletedAndMadeAnew: what was read of the old topic stays, all of the
// new one is read from its start, and log, /readyz and metrics say what was.
func TestTopicDeletedAndMadeAnew(t *testing.T) {
	for _, while := range []time.Duration{0, 1500 * time.Millisecond} {
		w := newWorld(t)
		log := &lines{}
		cfg := w.config()
		cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
		cfg.Kafka = append(cfg.Kafka[:len(cfg.Kafka):len(cfg.Kafka)], kgo.MetadataMinAge(100*time.Millisecond))
		s, stop := w.run(cfg)
		for i := range 60 {
			w.put(w.event("acme", i))
		}
		w.await("SELECT count() FROM v_events", 60)
		w.recreate(w.topics.Events(), testPartitions, while)
		for i := 100; i < 130; i++ {
			w.put(w.event("acme", i))
		}
		awaitTrue(t, "ready says that the topic was made anew", func() bool {
			err := s.Ready()
			return err != nil && strings.Contains(err.Error(), "was deleted and made anew")
		})
		w.await("SELECT count() FROM v_events", 90)
		awaitTrue(t, "ready again", func() bool { return s.Ready() == nil })
		if s.failures(partKafka, "topic_recreated") == 0 {
			t.Error("no metric")
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		w.checkCommitted()
		if said := log.take(); strings.Count(said, "was deleted and made anew") != 1 || strings.Count(said, "\n") > 12 {
			t.Errorf("the log:\n%s", said)
		}
	}
}

// TestStaleOffsets: offsets of an earlier topic, or that the topic does not
// hold, are no place to go on from.
func TestStaleOffsets(t *testing.T) {
	w := newWorld(t)
	_, stop := w.run(w.config())
	for i := range 9 {
		w.put(w.event("acme", i))
	}
	w.await("SELECT count() FROM v_events", 9)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	admin := kadm.NewClient(w.cl)
	earlier, err := admin.FetchOffsets(t.Context(), "spillway.audit.events")
	if err != nil {
		t.Fatal(err)
	}
	w.recreate(w.topics.Events(), testPartitions, 0)
	var stale kadm.Offsets // as if the group had kept them
	earlier.Each(func(o kadm.OffsetResponse) {
		if !strings.HasPrefix(o.Metadata, markTopic) {
			t.Errorf("%s/%d is committed with metadata %q", o.Topic, o.Partition, o.Metadata)
		}
		o.Offset.LeaderEpoch = -1
		stale.Add(o.Offset)
	})
	awaitTrue(t, "the static member's session is over", func() bool {
		return admin.CommitAllOffsets(t.Context(), "spillway.audit.events", stale) == nil
	})
	for i := 10; i < 31; i++ {
		w.put(w.event("acme", i))
	}
	_, stop = w.run(w.config())
	w.await("SELECT count() FROM v_events", 30)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.checkCommitted()

	// Retention passes the sink.
	for i := 40; i < 49; i++ {
		w.put(w.event("acme", i))
	}
	var cut kadm.Offsets
	cut.AddOffset(w.topics.Events(), 1, 9, -1)
	if _, err := admin.DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	_, stop = w.run(w.config())
	w.await("SELECT count() FROM v_events", 30+9-2)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.checkCommitted()
}

// TestRetentionPassesARunningSink: it says what is missing and goes on.
func TestRetentionPassesARunningSink(t *testing.T) {
	w := newWorld(t)
	server := newWard(t, w.server)
	cfg := w.config()
	cfg.Server, cfg.MaxRows = server.server, 1
	cfg.Kafka = append(cfg.Kafka[:len(cfg.Kafka):len(cfg.Kafka)], kgo.FetchMaxPartitionBytes(1))
	s, stop := w.run(cfg)
	w.put(w.event("acme", 0))
	w.await("SELECT count() FROM v_events", 1)
	server.now.Store(&sicknesses[0])
	for i := range 40 {
		w.put(w.event("acme", 3*i+3))
	}
	awaitTrue(t, "it stands", func() bool { return s.failures(partClickHouse, sicknesses[0].reason) > 0 })
	var cutAt kadm.Offsets
	cutAt.AddOffset(w.topics.Events(), 0, 40, -1)
	if _, err := kadm.NewClient(w.cl).DeleteRecords(t.Context(), cutAt); err != nil {
		t.Fatal(err)
	}
	server.now.Store(nil)
	w.await("SELECT count() FROM v_events WHERE event_id = 'ev-120'", 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.checkCommitted()
}
