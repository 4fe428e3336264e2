//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// onBroker runs a story on the shared containers, under a prefix of its own.
func onBroker(t *testing.T, prefix string, story func(*testing.T, *deployment)) {
	t.Run("containers", func(t *testing.T) {
		on(t, "containers")
		story(t, &deployment{site: shared(t, "containers"), prefix: prefix})
	})
}

// A deployment is a second one at a site: other topics on the same broker.
type deployment struct {
	*site
	prefix string
}

// setup runs `spillway setup` for it and returns what it printed.
func (d *deployment) setup(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return d.try(t.Context(), "", append([]string{"setup", "--topic-prefix", d.prefix, "--kafka-brokers", d.at().Kafka, "--registry-url", d.at().Registry,
		"--clickhouse-url", d.at().ClickHouse, "--replication", "1", "--min-isr", "1", "--open"}, args...)...)
}

func (d *deployment) mustSetup(t *testing.T) {
	t.Helper()
	if out, err := d.setup(t); err != nil {
		t.Fatalf("setup: %v\n%s", err, out)
	}
}

// role starts a role of it, which is killed when the test ends.
func (d *deployment) role(t *testing.T, name string, args ...string) *proc {
	t.Helper()
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	p := &proc{name: name, admin: ports[0], args: append([]string{name, "--topic-prefix", d.prefix}, args...)}
	if err := newRoleSet(d.data, d.at(), nil).start(p); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	return p
}

// count is how many data records a topic holds that can be read committed.
func (d *deployment) count(t *testing.T, topic string, match func(*kgo.Record) bool) int {
	t.Helper()
	n := 0
	d.read(t, topic, func(r *kgo.Record) {
		if match(r) {
			n++
		}
	})
	return n
}

// read reads a topic from its start to its end.
func (d *deployment) read(t *testing.T, topic string, each func(*kgo.Record)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	adm := d.admin(t)
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	ends, err := adm.ListCommittedOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	from, left := map[int32]kgo.Offset{}, map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if start, ok := starts.Lookup(topic, o.Partition); ok && start.Offset < o.Offset {
			from[o.Partition], left[o.Partition] = kgo.NewOffset().At(start.Offset), o.Offset
		}
	})
	if len(left) == 0 {
		return
	}
	c, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(d.at().Kafka, ",")...), kgo.KeepControlRecords(), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for len(left) > 0 {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %s: %v", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() && r.Offset < left[r.Partition] {
				each(r)
			}
			if r.Offset >= left[r.Partition]-1 {
				delete(left, r.Partition)
			}
		})
	}
}

// remake deletes a topic and lets setup create it again after a while.
func (d *deployment) remake(t *testing.T, topic string, meanwhile func()) {
	t.Helper()
	adm := d.admin(t)
	if gone, err := adm.DeleteTopic(t.Context(), d.prefix+topic); errors.Join(err, gone.Err) != nil {
		t.Fatal(errors.Join(err, gone.Err))
	}
	meanwhile()
	eventually(t, d.prefix+topic+" is created again", func() bool { // Kafka may still be deleting it
		_, err := d.setup(t)
		return err == nil
	})
}

// TestAppendTime: the time of an event is the broker's, whatever its producer
// says, and route refuses a topic on which that is not so.
func TestAppendTime(t *testing.T) { onBroker(t, "stamped.", testAppendTime) }

func testAppendTime(t *testing.T, d *deployment) {
	d.clickhouseReady(t)
	good, client := d.demoMessage(t, "hi"), d.kafka(t, false)
	for _, year := range []int{1970, 2100} {
		id := fmt.Sprintf("clock-%d-%d", year, time.Now().UnixNano())
		r := &kgo.Record{Key: []byte("acme"), Value: good, Partition: homeOf("acme"), Timestamp: time.Date(year, 1, 2, 0, 0, 0, 0, time.UTC),
			Headers: []kgo.RecordHeader{{Key: "ce_id", Value: []byte(id)}}}
		before := time.Now()
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		spillway := &deployment{site: d.site}
		found := spillway.count(t, "spillway.events", func(r *kgo.Record) bool {
			if len(r.Headers) == 0 || string(r.Headers[0].Value) != id {
				return false
			}
			if off := r.Timestamp.Sub(before).Abs(); off > time.Minute || r.Attrs.TimestampType() != 1 {
				t.Errorf("%d: the record's time is %s (type %d), now is %s", year, r.Timestamp, r.Attrs.TimestampType(), before)
			}
			return true
		})
		if found != 1 {
			t.Errorf("%d: %d records in events", year, found)
		}
		for _, table := range []string{"events", "transitions"} { // occurred_at without ce_time, and what route decided
			at := map[string]string{"events": "occurred_at", "transitions": "at"}[table]
			sql := fmt.Sprintf("SELECT count() > 0 AND max(abs(toUnixTimestamp(accepted_at) - %d)) < 60 AND max(abs(toUnixTimestamp(%s) - %d)) < 60 FROM spillway.%s WHERE event_id = '%s'",
				before.Unix(), at, before.Unix(), table, id)
			eventually(t, fmt.Sprintf("table %s has the broker's time of an event of %d", table, year), func() bool { return d.query(t, sql) == "1" },
				func() string {
					return d.query(t, fmt.Sprintf("SELECT accepted_at, %s FROM spillway.%s WHERE event_id = '%s'", at, table, id))
				})
		}
	}
	d.mustSetup(t)
	alter(t, d.admin(t), d.prefix+"events", "message.timestamp.type", "CreateTime")
	out, err := d.try(t.Context(), "", "route", "--topic-prefix", d.prefix, "--kafka-brokers", d.at().Kafka, "--registry-url", d.at().Registry, "--admin-listen", "127.0.0.1:0")
	if err == nil || !strings.Contains(out, "stamped.events is not message.timestamp.type=LogAppendTime") {
		t.Errorf("route on a topic with the producers' time: %v\n%s", err, out)
	}
}

// TestCompaction: after Kafka has compacted control, a new follower knows what
// the old one knew; what was deleted is gone.
func TestCompaction(t *testing.T) { onBroker(t, "compact.", testCompaction) }

func testCompaction(t *testing.T, d *deployment) {
	d.mustSetup(t)
	topic, adm := d.prefix+"control", d.admin(t)
	alter(t, adm, topic, "segment.ms", "100", "min.cleanable.dirty.ratio", "0.001", "delete.retention.ms", "100", "max.compaction.lag.ms", "1000")
	url := d.control(t)
	apply := func(name string, rate int) {
		d.run(t, fmt.Sprintf("kind: tenant\nname: %s\nspec:\n  fast: {rate: %d}\n", name, rate), "apply", "--control-url", url, "-f", "-")
	}
	for rate := range 20 {
		apply("often", 100+rate)
	}
	apply("gone", 5)
	operator := strings.TrimSpace(d.run(t, "", "token", "*", "--role", "operator"))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, url+"/v1/tenants/gone", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+operator)
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode/100 != 2 {
		t.Fatalf("delete a tenant: %v %v", resp, err)
	}
	_ = resp.Body.Close()
	keys := map[string]int{}
	extra := 0
	within(t, 2*time.Minute, "control is compacted", func() bool {
		extra++
		apply("later", 100+extra%7) // the newest segment is never compacted: begin another one
		clear(keys)
		d.read(t, topic, func(r *kgo.Record) { keys[string(r.Key)]++ })
		return keys["tenant/often"] == 1 && keys["tenant/gone"] == 0
	}, func() string { return fmt.Sprint(keys) })
	t.Logf("records by key: %v", keys)
	before := d.run(t, "", "get", "--control-url", url, "-o", "yaml")
	after := d.run(t, "", "get", "--control-url", d.control(t), "-o", "yaml")
	if before != after || !strings.Contains(after, "often") || !strings.Contains(after, "119") || strings.Contains(after, "gone") {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	// Secrets and settings are records like any other: a router starts, too.
	d.role(t, "route")
}

// control starts a control role and returns its address.
func (d *deployment) control(t *testing.T) string {
	t.Helper()
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	d.role(t, "control", "--listen", local(ports[0]), "--open")
	return web(ports[0])
}
