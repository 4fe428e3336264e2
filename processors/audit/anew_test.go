package audit

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestPausesBetweenClients: a reader whose topics never come right makes a new
// client every 3 s at most, after a long life soon again, and ends at once.
func TestPausesBetweenClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Sink{cfg: Config{Now: time.Now}}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		var at []time.Duration
		err := s.anew(ctx, func() error {
			at = append(at, time.Since(began))
			if len(at) == 10 {
				return wait(ctx, 2*readAgain)
			}
			return errRecreated
		})
		if err != nil || len(at) != 10 {
			t.Fatalf("%d clients, %v", len(at), err)
		}
		if at[1] != firstPause || at[9]-at[8] != lastPause || at[9] < 10*time.Second {
			t.Errorf("clients at %v", at)
		}

		var lives int
		began = time.Now()
		soon, stop := context.WithCancel(t.Context())
		err = s.anew(soon, func() error {
			switch lives++; lives {
			case 8:
				began = time.Now()
				return fmt.Errorf("after a long life: %w", func() error { _ = wait(t.Context(), 2*readAgain); return errRecreated }())
			case 9:
				if took := time.Since(began); took != 2*readAgain+firstPause {
					t.Errorf("after a long life the next one begins %v later", took-2*readAgain)
				}
				stop()
			}
			return errRecreated
		})
		if err != nil || lives != 9 {
			t.Errorf("%d lives, %v", lives, err)
		}
	})
}

// TestTopicMadeAnewBesideABusyOne: that another topic of the same reader is
// read all the while hides nothing.
func TestTopicMadeAnewBesideABusyOne(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.Logger = slog.New(slog.DiscardHandler)
	cfg.Kafka = append(cfg.Kafka[:len(cfg.Kafka):len(cfg.Kafka)], kgo.MetadataMinAge(100*time.Millisecond))
	s, stop := w.run(cfg)
	letter := func(n int) *kgo.Record {
		rec := w.event("acme", n)
		rec.Topic, rec.Partition = w.topics.Dead(), 0
		return rec
	}
	w.put(letter(0), letter(1))
	w.await("SELECT count() FROM v_dead_letters", 2)

	busy, quiet := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for wait(busy, 2*time.Millisecond) == nil {
			w.cl.Produce(busy, &kgo.Record{Topic: w.topics.Audit(), Partition: 0, Key: []byte("acme"), Value: []byte("odd")}, nil)
		}
	}()
	defer func() { quiet(); <-ended }()
	w.recreate(w.topics.Dead(), 1, 1500*time.Millisecond)
	for i := range 3 {
		w.put(letter(10 + i))
	}
	w.await("SELECT count() FROM v_dead_letters", 5)
	if s.failures(partKafka, topicRecreated) == 0 {
		t.Error("no metric")
	}
	quiet()
	<-ended
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestGoneIsKeptByTopic: records of one topic say nothing about another.
func TestGoneIsKeptByTopic(t *testing.T) {
	w := newWorld(t)
	s, err := New(w.config())
	if err != nil {
		t.Fatal(err)
	}
	r := newReader(s, reading{name: "audit", topics: []string{w.topics.Audit(), w.topics.Dead()}})
	s.health.good(tablesOf)
	if err := r.fetchError(w.topics.Dead(), 0, kerr.UnknownTopicID); err != nil {
		t.Fatal(err)
	}
	r.got(w.topics.Audit(), w.topic, 1)
	if len(r.gone) != 1 || s.Ready() == nil {
		t.Errorf("gone: %v, ready: %v", r.gone, s.Ready())
	}
	r.got(w.topics.Dead(), w.topic, 1)
	if len(r.gone) != 0 || s.Ready() != nil {
		t.Errorf("gone: %v, ready: %v", r.gone, s.Ready())
	}
}

// TestSeriesFromTheStart: each reason has its series before it is met, and
// keeps it, so that a rule sees the first time and the end.
func TestSeriesFromTheStart(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	reg := prometheus.NewRegistry()
	cfg.Registerer = reg
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, ill string) {
		t.Helper()
		found := faults(t, reg)
		for _, key := range []string{"clickhouse not_asked", "clickhouse disk_full", "clickhouse tls", "clickhouse other", "kafka topic_recreated", "kafka unreachable"} {
			is, ok := found[key]
			want := 0.0
			if key == ill {
				want = 1
			}
			if !ok || is != want {
				t.Errorf("%s: %s is %v, %v, want %v", when, key, is, ok, want)
			}
		}
	}
	check("before it runs", "clickhouse not_asked")
	s.health.bad(tablesOf, partClickHouse, "disk_full", kerr.UnknownTopicID)
	check("while it lasts", "clickhouse disk_full")
	s.health.good(tablesOf)
	check("when it is over", "")
}

func faults(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "spillway_audit_fault" {
			for _, m := range f.Metric {
				out[label(m, "part")+" "+label(m, "reason")] = m.Gauge.GetValue()
			}
		}
	}
	return out
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// TestFaultInReadingEnds: also when nobody asks whether the sink is ready, and
// not one of ClickHouse, which is tried again until it is over.
func TestFaultInReadingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		cfg := &Config{Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
		h := newHealth(cfg, newMetrics(reg))
		ctx, cancel := context.WithTimeout(t.Context(), readAgain+2*watchEvery)
		defer cancel()
		h.bad("events reads events", partKafka, kafkaAway, kerr.UnknownTopicID)
		h.bad("events", partClickHouse, "disk_full", kerr.UnknownTopicID)
		if err := h.watch(ctx); err != nil {
			t.Fatal(err)
		}
		if found := faults(t, reg); found["kafka unreachable"] != 0 || found["clickhouse disk_full"] != 1 {
			t.Errorf("%v", found)
		}
	})
}
