//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestBrokerFaults loses brokers of three under load. Nothing that was
// acknowledged is lost and nothing is decided twice: audit_records compares all
// records at the end.
func TestBrokerFaults(t *testing.T) {
	t.Parallel() // it has parts of its own, and waits more than it works
	t.Run("containers", func(t *testing.T) {
		on(t, "containers")
		s := own(t, "containers", func(data string) (stack, error) {
			return newContainers(data, containersConfig{brokers: 3, kafka: map[string]string{"KAFKA_HEAP_OPTS": "-Xms384m -Xmx384m"}})
		})
		dir := t.TempDir()
		s.run(t, "kind: tenant\nname: kill-slow\nspec:\n  fast: {rate: 10, burst: 10}\n", "apply", "-f", "-")
		load := startSending(t, s, filepath.Join(dir, "ledger"))
		for _, story := range []struct {
			name string
			tell func(*testing.T, *site, *sending)
		}{
			{"coordinator of transactions killed mid-commit", testCoordinatorKilled},
			{"leaders moved", testLeadersMoved},
			{"one of three down for 30 s", testOneDown},
			{"two of three down", testTwoDown},
		} {
			t.Run(story.name, func(t *testing.T) { story.tell(t, s, load) })
		}
		load.stop(t)
		s.compareRecords(t, filepath.Join(dir, "ledger"))
	})
}

// admin asks Kafka as an operator would.
func (s *site) admin(t *testing.T) *kadm.Client {
	t.Helper()
	adm, err := kadm.NewOptClient(kgo.SeedBrokers(strings.Split(s.at().Kafka, ",")...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(adm.Close)
	return adm
}

// flows waits until every stream has been acknowledged once more.
func (l *sending) flows(t *testing.T, most time.Duration) {
	t.Helper()
	before := l.acked.Load()
	within(t, most, "events are acknowledged again", func() bool { return l.acked.Load() > before+50 })
}

// testCoordinatorKilled kills the broker that holds the transactions of a
// router, at moments at which it most likely commits: it always does.
func testCoordinatorKilled(t *testing.T, s *site, load *sending) {
	adm := s.admin(t)
	load.flows(t, 30*time.Second)
	for i := range 2 {
		id := fmt.Sprintf("spillway.route/0/%d", i)
		found := adm.FindTxnCoordinators(t.Context(), id)
		if err := found.Error(); err != nil {
			t.Fatal(err)
		}
		s.bounce(t, fmt.Sprintf("kafka-%d", found[id].NodeID), 3*time.Second)
		load.flows(t, 30*time.Second)
		s.allReady(t)
	}
}

// bounce kills a broker, starts it again after a while, and returns when all
// replicas are in sync.
func (s *site) bounce(t *testing.T, part string, down time.Duration) {
	t.Helper()
	if err := s.Kill(part); err != nil {
		t.Fatal(err)
	}
	after(t, down)
	began := time.Now()
	if err := s.Start(part); err != nil {
		t.Fatal(err)
	}
	s.inSync(t)
	t.Logf("%s was killed, down for %s, and in sync again %s after its start", part, down, time.Since(began).Round(time.Millisecond))
}

// inSync waits until every partition has all of its replicas.
func (s *site) inSync(t *testing.T) {
	t.Helper()
	adm := s.admin(t)
	var missing []string
	within(t, 90*time.Second, "all replicas are in sync", func() bool {
		missing = nil
		topics, err := adm.ListTopicsWithInternal(t.Context())
		topics.EachPartition(func(p kadm.PartitionDetail) {
			if len(p.ISR) < len(p.Replicas) || p.Leader < 0 {
				missing = append(missing, fmt.Sprintf("%s/%d", p.Topic, p.Partition))
			}
		})
		return err == nil && len(missing) == 0
	}, func() string { return fmt.Sprint(missing) })
}

// testLeadersMoved takes every partition of events, fan-out and the group's
// offsets to another leader, twice, while routers commit.
func testLeadersMoved(t *testing.T, s *site, load *sending) {
	adm := s.admin(t)
	moved := []string{"spillway.events", "spillway.fanout.local", "spillway.audit", "__consumer_offsets", "__transaction_state"}
	for range 2 {
		topics, err := adm.ListTopicsWithInternal(t.Context(), moved...)
		if err != nil {
			t.Fatal(err)
		}
		before := map[string]int32{}
		var req kadm.AlterPartitionAssignmentsReq
		var which kadm.TopicsSet
		topics.EachPartition(func(p kadm.PartitionDetail) {
			before[fmt.Sprintf("%s/%d", p.Topic, p.Partition)] = p.Leader
			turned := slices.Clone(p.Replicas) // the first that is alive leads
			for turned[0] == p.Leader {
				turned = append(turned[1:], turned[0])
			}
			req.Assign(p.Topic, p.Partition, turned)
			which.Add(p.Topic, p.Partition)
		})
		altered, err := adm.AlterPartitionAssignments(t.Context(), req)
		if err := errors.Join(err, altered.Error()); err != nil {
			t.Fatal(err)
		}
		if _, err := adm.ElectLeaders(t.Context(), kadm.ElectPreferredReplica, which); err != nil {
			t.Fatal(err)
		}
		var same []string
		within(t, 30*time.Second, "the leaders move", func() bool {
			same = nil
			topics, err := adm.ListTopicsWithInternal(t.Context(), moved...)
			topics.EachPartition(func(p kadm.PartitionDetail) {
				if name := fmt.Sprintf("%s/%d", p.Topic, p.Partition); before[name] == p.Leader {
					same = append(same, name)
				}
			})
			return err == nil && len(same) == 0
		}, func() string { return fmt.Sprint(same) })
		load.flows(t, 30*time.Second)
		s.allReady(t)
	}
}

// testOneDown: two of three replicas are enough. Until the controller has
// noticed (9 s) partitions led by the dead broker answer 503; after that nothing
// does.
func testOneDown(t *testing.T, s *site, load *sending) {
	const noticed = 15 * time.Second
	if err := s.Kill("kafka-2"); err != nil {
		t.Fatal(err)
	}
	after(t, noticed)
	load.flows(t, 20*time.Second)
	acked, refused := load.acked.Load(), load.refused.Load()
	after(t, 30*time.Second-noticed)
	if n := load.refused.Load() - refused; n > 0 {
		t.Errorf("%d events were refused although two replicas are there", n)
	}
	if load.acked.Load()-acked < 200 {
		t.Errorf("only %d events were acknowledged in %s", load.acked.Load()-acked, 30*time.Second-noticed)
	}
	s.allReady(t)
	if err := s.Start("kafka-2"); err != nil {
		t.Fatal(err)
	}
	s.inSync(t)
	load.flows(t, 20*time.Second)
}

// testTwoDown: one replica of three is not enough for min.insync.replicas=2.
// Ingest says so in time, and everything goes on by itself when they are back.
func testTwoDown(t *testing.T, s *site, load *sending) {
	for _, part := range []string{"kafka-1", "kafka-3"} {
		if err := s.Kill(part); err != nil {
			t.Fatal(err)
		}
	}
	token := strings.TrimSpace(s.run(t, "", "token", "kill-probe", "--role", "producer"))
	refused := 0
	for began := time.Now(); time.Since(began) < 20*time.Second; {
		sent := time.Now()
		_, err := load.post("probe", fmt.Sprintf("probe-%d", sent.UnixNano()), token)
		if took := time.Since(sent); took > 7*time.Second {
			t.Errorf("an answer took %s", took)
		}
		if err == nil && time.Since(began) > 2*time.Second {
			t.Error("an event was acknowledged that one replica holds")
		}
		if errors.Is(err, errAgain) && strings.Contains(err.Error(), "503 ") && strings.Contains(err.Error(), "kafka_unavailable") {
			refused++
		}
		after(t, 100*time.Millisecond)
	}
	if refused < 3 {
		t.Errorf("%d answers were 503 kafka_unavailable", refused)
	}
	if code, text := s.readyz(t, "ingest"); code != http.StatusServiceUnavailable || !strings.Contains(text, "Kafka") {
		t.Errorf("ingest's /readyz is %d %q", code, text)
	} else {
		t.Logf("ingest: %s", text)
	}
	for _, role := range []string{"route", "delay", "audit", "fanout", "control"} {
		code, text := s.readyz(t, role)
		t.Logf("%s: %d %s", role, code, text)
	}
	began := time.Now()
	for _, part := range []string{"kafka-1", "kafka-3"} {
		if err := s.Start(part); err != nil {
			t.Fatal(err)
		}
	}
	load.flows(t, time.Minute)
	t.Logf("events are acknowledged again %s after the brokers were started", time.Since(began).Round(time.Millisecond))
	s.inSync(t)
	s.allReady(t)
}

// readyz asks a role whether it can do its work.
func (s *site) readyz(t *testing.T, role string) (int, string) {
	t.Helper()
	c, ok := s.stack.(*containersStack)
	if !ok {
		t.Fatalf("a stack of kind %s has no admin port for each role", s.kind)
	}
	return askReady(t, c.roles.proc(role))
}

func askReady(t *testing.T, p *proc) (int, string) {
	t.Helper()
	return get(t, web(p.admin)+"/readyz")
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, strings.TrimSpace(string(text))
}

// allReady waits until every role can do its work.
func (s *site) allReady(t *testing.T) {
	t.Helper()
	for _, role := range killable {
		text := ""
		within(t, 45*time.Second, role+" is ready again", func() (ok bool) {
			var code int
			code, text = s.readyz(t, role)
			return code == http.StatusOK
		}, func() string { return text })
	}
}

// alter sets one setting of a topic.
func alter(t *testing.T, adm *kadm.Client, topic string, settings ...string) {
	t.Helper()
	var changes []kadm.AlterConfig
	for i := 0; i+1 < len(settings); i += 2 {
		changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: settings[i], Value: kmsg.StringPtr(settings[i+1])})
	}
	done, err := adm.AlterTopicConfigs(t.Context(), changes, topic)
	if err == nil {
		for _, d := range done {
			err = errors.Join(err, d.Err)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
