package control

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

var topics = schemas.Topics{Prefix: "t."}

// cluster starts a broker in this process.
func cluster(t *testing.T) (*kfake.Cluster, []kgo.Opt) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}
}

// controlTopic starts a broker that has the topic `control`.
func controlTopic(t *testing.T) []kgo.Opt {
	t.Helper()
	_, kafka := cluster(t)
	makeTopic(t, kafka)
	return kafka
}

func makeTopic(t *testing.T, kafka []kgo.Opt) {
	t.Helper()
	admin, err := kadm.NewOptClient(kafka...)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, topics.Control()); err != nil {
		t.Fatal(err)
	}
}

func follow(t *testing.T, kafka []kgo.Opt) *Follower {
	t.Helper()
	f, err := NewFollower(FollowerConfig{Kafka: kafka, Topics: topics, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	run(t, f.Run)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := f.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	return f
}

// run runs f until the test ends, and waits for it.
func run(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// until waits for a condition, at most 10 s, and returns how long it took.
func until(t *testing.T, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(began) > 10*time.Second {
			t.Fatalf("waited 10 s: %s", what)
		}
		<-tick.C
	}
	return time.Since(began)
}

// put writes raw records in one transaction.
func put(t *testing.T, kafka []kgo.Opt, commit bool, records ...*kgo.Record) {
	t.Helper()
	client, err := kgo.NewClient(append(kafka[:len(kafka):len(kafka)], kgo.TransactionalID("test"), kgo.DefaultProduceTopic(topics.Control()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := client.EndTransaction(t.Context(), kgo.TransactionEndTry(commit)); err != nil {
		t.Fatal(err)
	}
}

func record(t *testing.T, name string, kind Kind, version int64, value any) *kgo.Record {
	t.Helper()
	r := &kgo.Record{Key: []byte(key{kind, name}.String())}
	if value != nil {
		b, err := encodeRecord(entry{version, value}, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Value = b
	}
	return r
}

func adminClient(t *testing.T, kafka []kgo.Opt) *kadm.Client {
	t.Helper()
	admin, err := kadm.NewOptClient(kafka...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	return admin
}

func alter(t *testing.T, admin *kadm.Client, topic, name, value string) {
	t.Helper()
	r, err := admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: name, Value: &value}}, topic)
	if err == nil {
		_, err = r.On(topic, func(r *kadm.AlterConfigsResponse) error { return r.Err })
	}
	if err != nil {
		t.Fatal(err)
	}
}
