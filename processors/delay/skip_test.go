package delay

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/spillway/spillway/schemas"
)

// A batch that decompresses to more than the bound becomes a dead letter that
// says where it is; what lies around it is given back, also after a restart.
func TestABombIsSkipped(t *testing.T) {
	b := newBench(t)
	b.wait(topics.Overflow(), "acme", "before", time.Now())
	bomb, err := kgo.NewClient(append(b.kafka, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.ZstdCompression()),
		kgo.ProducerBatchMaxBytes(2*maxBatchBytes), kgo.BrokerMaxWriteBytes(3*maxBatchBytes))...)
	if err != nil {
		t.Fatal(err)
	}
	defer bomb.Close()
	if err := bomb.ProduceSync(t.Context(), &kgo.Record{Topic: topics.Overflow(), Partition: home, Key: []byte("acme"), Value: make([]byte, maxBatchBytes+1)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	b.wait(topics.Overflow(), "acme", "after", time.Now())
	reg := prometheus.NewRegistry()
	stop := b.run(func(c *Config) { c.Registerer = reg })
	b.expect("before", "after")
	letters, _ := b.take(topics.Dead(), 1)
	o, _, _, err := schemas.ParseOriginHeader([]byte(header(letters[0], schemas.HeaderOrigin)))
	if err != nil || o.Partition != home || o.Offset != 1 || header(letters[0], schemas.HeaderReason) != string(schemas.UndecodableBatch) {
		t.Errorf("dead letter: origin %+v, %v, headers %v", o, err, letters[0].Headers)
	}
	b.await("all is committed", func() bool { return b.committed() == 3 })
	if n := count(t, reg, "dead_total"); n != 1 {
		t.Errorf("%v dead letters are counted", n)
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

// Commits that Kafka does not take are counted and a reason not to be ready;
// when it takes one again, all is well.
func TestCommitsFail(t *testing.T) {
	b := newBench(t)
	fault := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.GroupAuthorizationFailed, Count: -1})
	b.wait(topics.Overflow(), "acme", "a", time.Now())
	reg := prometheus.NewRegistry()
	d, _ := b.start(func(c *Config) { c.Registerer = reg })
	b.expect("a")
	b.await("it is not ready", func() bool {
		err := d.Ready()
		return err != nil && strings.Contains(err.Error(), "committing of the group fails") && strings.Contains(err.Error(), "GROUP_AUTHORIZATION_FAILED")
	})
	if n := count(t, reg, "commit_failures_total"); n < 2 {
		t.Errorf("%v failures are counted", n)
	}
	fault.Remove()
	b.await("it is ready again", func() bool { return d.Ready() == nil })
	b.await("it is committed", func() bool { return b.committed() == 1 })
}
