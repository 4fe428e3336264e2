package fanout

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// recreate deletes the fanout topic and makes it anew, as seen by everybody but
// the node.
func (l *testLog) recreate(while time.Duration) {
	l.tb.Helper()
	topic := testTopics.Fanout(testRegion)
	if _, err := l.adm.DeleteTopics(l.ctx(), topic); err != nil {
		l.tb.Fatal(err)
	}
	<-time.After(while)
	if _, err := l.adm.CreateTopic(l.ctx(), testPartitions, 1, nil, topic); err != nil {
		l.tb.Fatal(err)
	}
	l.cl.PurgeTopicsFromClient(topic)
}

type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestFanoutTopicMadeAnew: who is connected is told a gap and goes on, who
// comes with a cursor of before too, on this node and on one that never saw the
// old topic.
func TestFanoutTopicMadeAnew(t *testing.T) {
	for _, while := range []time.Duration{0, 2 * time.Second} {
		l := newTestLog(t)
		log := &lines{}
		n := startNode(t, l, func(c *Config) {
			c.Logger = slog.New(slog.NewTextHandler(log, nil))
			c.Kafka = append(c.Kafka[:len(c.Kafka):len(c.Kafka)], kgo.MetadataMinAge(100*time.Millisecond))
		})
		tok := token("acme", "*")
		c, _ := n.open(tok, ask("a", "live"))
		var old []*entry
		for i := range 5 {
			old = append(old, &entry{tenant: "acme", channel: "a", id: fmt.Sprint(i)})
		}
		l.write(old...)
		if got := c.events(5); !slices.Equal(got, ids(old)) {
			t.Fatalf("before: %v", got)
		}
		l.put([]*entry{{tenant: "acme", channel: "a", id: "lost"}}) // let through into the old topic, and never read
		l.recreate(while)
		fresh := []*entry{{tenant: "acme", channel: "a", id: "new 0"}, {tenant: "acme", channel: "a", id: "new 1"}}
		l.write(fresh...)
		before := schemas.Cursor{Epoch: fresh[0].cursor.Epoch, Offset: fresh[0].cursor.Offset - 1}.String()
		gap := func(who string, c *testClient, from schemas.Cursor) {
			t.Helper()
			if g := c.read(); g.T != "gap" || g.Why != whyEpoch || g.From != from.String() || g.To != before {
				t.Errorf("%s: %+v, want a gap to %s", who, g, before)
			}
			if got := c.events(2); !slices.Equal(got, ids(fresh)) {
				t.Errorf("%s: %v", who, got)
			}
		}
		gap("connected", c, old[4].cursor)
		again, _ := n.open(tok, ask("a", old[2].cursor.String()))
		gap("comes back", again, old[2].cursor)
		other := startNode(t, l)
		elsewhere, _ := other.open(tok, ask("a", old[2].cursor.String()))
		gap("comes back to another node", elsewhere, old[2].cursor)
		if now, w := other.open(tok, ask("a", fresh[0].cursor.String())); !w.Resumed || !slices.Equal(now.events(1), []string{"new 1"}) {
			t.Errorf("a cursor of the new log: %+v", w)
		}
		if n.metric("spillway_fanout_kafka_failures_total", topicRecreated) == 0 {
			t.Error("no metric")
		}
		if said := log.String(); strings.Count(said, "deleted and made anew") != 1 || strings.Count(said, "\n") > 6 {
			t.Errorf("the log:\n%s", said)
		}
	}
}

// TestFanoutTopicGone: the node says so as long as it lasts.
func TestFanoutTopicGone(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l)
	c, _ := n.open(token("acme", "*"), ask("a", "live"))
	first := &entry{tenant: "acme", channel: "a", id: "0"}
	l.write(first)
	c.events(1)
	if _, err := l.adm.DeleteTopics(l.ctx(), testTopics.Fanout(testRegion)); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for ; ; <-time.After(20 * time.Millisecond) {
		if err := n.Ready(); err != nil && strings.Contains(err.Error(), topicGone) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("ready never says that the topic is gone: ", n.Ready())
		}
	}
	if _, err := l.adm.CreateTopic(l.ctx(), testPartitions, 1, nil, testTopics.Fanout(testRegion)); err != nil {
		t.Fatal(err)
	}
	l.cl.PurgeTopicsFromClient(testTopics.Fanout(testRegion))
	next := &entry{tenant: "acme", channel: "a", id: "1"}
	l.write(next)
	if next.cursor.Offset == first.cursor.Offset+1 { // nothing can lie between
		if got := c.events(1); got[0] != "1" {
			t.Errorf("after it is back: %v", got)
		}
	}
	for ; n.Ready() != nil; <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not ready again: ", n.Ready())
		}
	}
}

// TestAuditTopicMadeAnew: receipts reach the new topic.
func TestAuditTopicMadeAnew(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l)
	c, _ := n.open(token("acme", "*"), ask("a", "live"))
	deliver := func(id string) {
		l.write(&entry{tenant: "acme", channel: "a", id: id})
		c.events(1)
	}
	deliver("0")
	if _, err := l.adm.DeleteTopics(l.ctx(), testTopics.Audit()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.adm.CreateTopic(l.ctx(), testPartitions, 1, nil, testTopics.Audit()); err != nil {
		t.Fatal(err)
	}
	admin := kadm.NewClient(l.client())
	for deadline, i := time.Now().Add(40*time.Second), 1; ; i++ {
		deliver(fmt.Sprint(i))
		ends, err := admin.ListEndOffsets(l.ctx(), testTopics.Audit())
		if end, ok := ends.Lookup(testTopics.Audit(), home("acme")); err == nil && ok && end.Offset > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no receipt reaches the new topic")
		}
		<-time.After(200 * time.Millisecond)
	}
}
