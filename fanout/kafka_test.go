package fanout

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

const (
	testRegion     = "eu"
	testPartitions = 3
)

var testTopics = schemas.Topics{Prefix: "test."}

// A testLog is a Kafka that plays route: it writes events to `events` and, in
// transactions, what fanout reads.
type testLog struct {
	tb      testing.TB
	cluster *kfake.Cluster
	cl      *kgo.Client
	adm     *kadm.Client
	eventID schemas.TopicID
	last    int64 // ms of the newest event
}

func newTestLog(tb testing.TB) *testLog {
	tb.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1),
		kfake.SeedTopics(testPartitions, testTopics.Events(), testTopics.Audit(), testTopics.Fanout(testRegion)),
		kfake.SeedTopics(1, testTopics.Nodes()))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(cluster.Close)
	l := &testLog{tb: tb, cluster: cluster}
	l.cl = l.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID("route"), kgo.ProducerLinger(0))
	l.adm = kadm.NewClient(l.client())
	topics, err := l.adm.ListTopics(l.ctx(), testTopics.Events())
	if err != nil {
		tb.Fatal(err)
	}
	l.eventID = schemas.TopicID(topics[testTopics.Events()].ID)
	return l
}

func (l *testLog) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	l.tb.Cleanup(cancel)
	return ctx
}

func (l *testLog) opts() []kgo.Opt { return []kgo.Opt{kgo.SeedBrokers(l.cluster.ListenAddrs()...)} }

func (l *testLog) client(opts ...kgo.Opt) *kgo.Client {
	cl, err := kgo.NewClient(append(l.opts(), opts...)...)
	if err != nil {
		l.tb.Fatal(err)
	}
	l.tb.Cleanup(cl.Close)
	return cl
}

// An entry is an event to write; its cursor is set when it is written.
type entry struct {
	tenant, channel, id string
	data                string
	cursor              schemas.Cursor
}

func home(tenant string) int32 { return schemas.HomePartition([]byte(tenant), testPartitions) }

// write lets events through: one record each on `events`, then all in one
// transaction on fanout.
func (l *testLog) write(entries ...*entry) {
	l.tb.Helper()
	l.put(entries)
	if err := l.cl.BeginTransaction(); err != nil {
		l.tb.Fatal(err)
	}
	for _, rec := range l.records(entries) {
		l.cl.Produce(l.ctx(), rec, func(_ *kgo.Record, err error) {
			if err != nil {
				l.tb.Error(err)
			}
		})
	}
	if err := l.cl.Flush(l.ctx()); err != nil {
		l.tb.Fatal(err)
	}
	if err := l.cl.EndTransaction(l.ctx(), kgo.TryCommit); err != nil {
		l.tb.Fatal(err)
	}
}

// put appends to `events` and sets cursors.
func (l *testLog) put(entries []*entry) {
	l.tb.Helper()
	cl := l.plain()
	recs := make([]*kgo.Record, len(entries))
	for i, e := range entries {
		recs[i] = &kgo.Record{Topic: testTopics.Events(), Partition: home(e.tenant), Key: []byte(e.tenant), Value: []byte("x")}
	}
	if err := cl.ProduceSync(l.ctx(), recs...).FirstErr(); err != nil {
		l.tb.Fatal(err)
	}
	for i, e := range entries {
		e.cursor = schemas.Cursor{Epoch: schemas.Epoch(l.eventID, recs[i].Partition), Offset: recs[i].Offset}
	}
}

var plainOpts = []kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0)}

func (l *testLog) plain() *kgo.Client {
	if l.adm == nil {
		l.tb.Fatal("no client")
	}
	if plainClients[l] == nil {
		plainClients[l] = l.client(plainOpts...)
		l.tb.Cleanup(func() { delete(plainClients, l) })
	}
	return plainClients[l]
}

var plainClients = map[*testLog]*kgo.Client{}

func (l *testLog) records(entries []*entry) []*kgo.Record {
	now := max(time.Now().UnixMilli(), l.last)
	l.last = now
	recs := make([]*kgo.Record, len(entries))
	for i, e := range entries {
		recs[i] = &kgo.Record{
			Topic: testTopics.Fanout(testRegion), Partition: home(e.tenant), Key: []byte(e.tenant), Timestamp: time.UnixMilli(now),
			Value: cloudEvent(e, now),
			Headers: []kgo.RecordHeader{
				{Key: schemas.HeaderSubject, Value: []byte(e.channel)}, {Key: schemas.HeaderCursor, Value: []byte(e.cursor.String())},
			},
		}
	}
	return recs
}

func cloudEvent(e *entry, ms int64) []byte {
	data := e.data
	if data == "" {
		data = `{"text":"hi"}`
	}
	ev := schemas.Event{ID: e.id, Tenant: e.tenant, Channel: e.channel, Type: "demo.Message", Origin: schemas.Origin{AcceptedAt: ms}}
	return schemas.AppendCloudEvent(nil, &ev, []byte(data))
}
