package ingest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/spillway/spillway/schemas"
)

// TestKafkaFails sends events without end while Kafka fails in different ways,
// and comes back. What was answered 202 is in the log, exactly once, where the
// answer said; a 503 comes in time; afterwards everything works again.
func TestKafkaFails(t *testing.T) {
	const outage = 20 * time.Second
	for _, c := range []struct {
		name     string
		begin    func(*stack) (end func())
		mayWrite bool // a 503 may have been written
	}{
		{"produce error that is retried", func(s *stack) func() {
			f := s.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: -1})
			return func() { f.Remove() }
		}, false},
		{"replicas missing", func(s *stack) func() {
			f := s.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
			return func() { f.Remove() }
		}, false},
		{"answers are lost: failed, but applied", func(s *stack) func() {
			s.line.mute.Store(true)
			return func() { s.line.mute.Store(false) }
		}, true},
		{"unreachable: failed, not applied", func(s *stack) func() {
			s.line.cut.Store(true)
			return func() { s.line.cut.Store(false) }
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, s *stack) {
				l := &ledger{s: s, acked: map[string]result{}}
				run := func(stage string, during time.Duration) (ok, failed int) {
					ok0, failed0 := l.ok, l.failed
					l.sendFor(stage, during)
					return l.ok - ok0, l.failed - failed0
				}
				if ok, failed := run("before", time.Second); ok == 0 || failed > 0 {
					t.Fatalf("before: %d acknowledged, %d not", ok, failed)
				}
				end := c.begin(s)
				if ok, failed := run("during", outage); ok > 0 || failed == 0 {
					t.Errorf("during: %d acknowledged, %d not", ok, failed)
				}
				if l.slowest > 6*time.Second {
					t.Errorf("a 503 took %s", l.slowest)
				}
				if c.mayWrite && s.in.Ready() == nil {
					t.Error("ready while Kafka owes answers")
				}
				end()
				time.Sleep(30 * time.Second) //nolint:forbidigo // moves the bubble's clock
				if err := s.in.Ready(); err != nil {
					t.Errorf("not ready after recovery: %v", err)
				}
				if ok, failed := run("after", time.Second); ok == 0 || failed > 0 {
					t.Errorf("after: %d acknowledged, %d not", ok, failed)
				}
				t.Logf("%d acknowledged, %d not, slowest %s", l.ok, l.failed, l.slowest)
				l.check(c.mayWrite)
			})
		})
	}
}

// ledger remembers what was answered.
type ledger struct {
	s          *stack
	mu         sync.Mutex
	ok, failed int
	slowest    time.Duration
	acked      map[string]result // by id
}

// sendFor keeps four senders of different tenants busy.
func (l *ledger) sendFor(stage string, during time.Duration) {
	tokens := []string{l.s.producer("acme"), l.s.producer("globex"), l.s.producer("acme"), l.s.producer("filled")}
	deadline := time.Now().Add(during)
	var wg sync.WaitGroup
	for i, token := range tokens {
		wg.Go(func() {
			for k := 0; time.Now().Before(deadline); k++ {
				l.send(token, fmt.Sprintf("%s-%d-%d", stage, i, k))
				time.Sleep(50 * time.Millisecond) //nolint:forbidigo // moves the bubble's clock
			}
		})
	}
	wg.Wait()
}

func (l *ledger) send(token, id string) {
	began := time.Now()
	r := l.s.do(call{target: Path + "?type=demo.Message&id=" + id, token: token, body: hi})
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slowest = max(l.slowest, took)
	switch {
	case r.status == http.StatusAccepted:
		l.ok++
		l.acked[id] = r
	case r.status == http.StatusServiceUnavailable && r.header.Get("Retry-After") != "":
		l.failed++
	default:
		l.s.t.Errorf("%s: %d %s", id, r.status, r.body)
	}
}

func (l *ledger) check(mayWrite bool) {
	found := map[string]int{}
	for partition, records := range l.s.log() {
		for _, rec := range records {
			id := header(rec, schemas.HeaderID)
			found[id]++
			r, acked := l.acked[id]
			if !acked && !mayWrite {
				l.s.t.Errorf("%s is in the log and was refused", id)
			}
			if acked && (r.Events[0].Partition != partition || r.Events[0].Offset != rec.Offset) {
				l.s.t.Errorf("%s lies at %d/%d, answered %+v", id, partition, rec.Offset, r.Events[0])
			}
		}
	}
	for id := range l.acked {
		if found[id] != 1 {
			l.s.t.Errorf("%s was acknowledged and is in the log %d times", id, found[id])
		}
	}
	for id, n := range found {
		if n > 1 {
			l.s.t.Errorf("%s is in the log %d times", id, n)
		}
	}
}

func TestNothingIsTakenBeforeKafkaAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, nil)
		defer s.stop()
		s.line.cut.Store(true)
		synctest.Wait()
		cold, err := New(s.in.cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		cold.cfg.Listener, err = s.http.Listen("tcp", "127.0.0.1:8081")
		if err != nil {
			t.Fatal(err)
		}
		go func() { ended <- cold.Run(ctx) }()
		synctest.Wait()
		if cold.Ready() == nil {
			t.Error("ready")
		}
		warm := s.in
		s.in = cold
		if r := s.do(call{target: Path + "?type=demo.Message", token: s.producer("acme"), body: hi}); r.status != 503 || r.Error.Code != "kafka_unavailable" {
			t.Errorf("%d %s", r.status, r.body)
		}
		s.line.cut.Store(false)
		time.Sleep(time.Minute) //nolint:forbidigo // moves the bubble's clock
		if err := cold.Ready(); err != nil {
			t.Error(err)
		}
		if r := s.do(call{target: Path + "?type=demo.Message", token: s.producer("acme"), body: hi}); r.status != 202 {
			t.Errorf("%d %s", r.status, r.body)
		}
		s.in = warm
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestDrain ends Run while requests are in flight: they are answered, and none
// is taken afterwards.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, nil)
		synctest.Wait()
		client := &http.Client{Transport: &http.Transport{DialContext: s.http.DialContext}}
		post := func() (*http.Response, error) {
			r, err := http.NewRequest(http.MethodPost, "http://127.0.0.1:8080/v1/events?type=demo.Message", strings.NewReader(hi))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+s.producer("acme"))
			return client.Do(r)
		}
		s.line.mute.Store(true) // Kafka answers late
		type reply struct {
			status int
			closed bool
			err    error
		}
		answered := make(chan reply, 1)
		go func() {
			resp, err := post()
			if err != nil {
				answered <- reply{err: err}
				return
			}
			resp.Body.Close()
			answered <- reply{resp.StatusCode, resp.Close, nil}
		}()
		synctest.Wait()
		stopped := make(chan struct{})
		go func() {
			s.in.draining.Store(true) // as Run does first: what comes now is refused
			r := s.do(call{target: Path + "?type=demo.Message", token: s.producer("acme"), body: hi})
			if r.status != 503 || r.Error.Code != string(schemas.Draining) || r.header.Get("Connection") != "close" {
				t.Errorf("while draining: %d %s %v", r.status, r.body, r.header)
			}
			s.stop()
			close(stopped)
		}()
		synctest.Wait()
		select {
		case r := <-answered:
			t.Fatalf("answered before Kafka: %+v", r)
		case <-stopped:
			t.Fatal("stopped with a request in flight")
		default:
		}
		s.line.mute.Store(false)
		<-stopped
		if r := <-answered; r.err != nil || !r.closed || r.status != http.StatusAccepted && r.status != http.StatusServiceUnavailable {
			t.Errorf("in flight: %+v", r)
		}
		if _, err := post(); err == nil {
			t.Error("taken after the end")
		}
		client.CloseIdleConnections()
	})
}
