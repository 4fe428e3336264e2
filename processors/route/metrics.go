package route

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/schemas"
)

// metrics are the router's; all sessions share them.
type metrics struct {
	decisions    *prometheus.CounterVec // by step, verdict, reason
	forged       prometheus.Counter
	repeated     prometheus.Counter
	transactions prometheus.Histogram
	batch        prometheus.Histogram
	aborts       *prometheus.CounterVec // by cause
	rebuilds     prometheus.Counter
	restores     prometheus.Histogram
	restored     prometheus.Counter
	registryWait prometheus.Histogram
	lag          *prometheus.GaugeVec // by session
	keys         *prometheus.GaugeVec
	keyBytes     *prometheus.GaugeVec
	behind       *prometheus.GaugeVec
	early        *prometheus.GaugeVec
	refused      *prometheus.GaugeVec // by session, reason
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: "spillway_route_" + name, Help: help}
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "spillway_route_" + name, Help: help}, []string{"session"})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "spillway_route_" + name, Help: help, Buckets: buckets})
	}
	m := &metrics{
		decisions: prometheus.NewCounterVec(counter("decisions_total", "Committed decisions, by the step that made them."), []string{"step", "verdict", "reason"}),
		forged:    prometheus.NewCounter(counter("forged_returns_total", "Records whose spillway-return had no valid hash; it was ignored.")),
		repeated:  prometheus.NewCounter(counter("repeated_records_total", "Records that Kafka gave again after they were committed; not decided again.")),
		transactions: histogram("transaction_seconds", "From the end of a poll to its committed transaction.",
			prometheus.ExponentialBuckets(0.001, 2, 14)),
		batch:        histogram("transaction_records", "Records decided in one committed transaction.", prometheus.ExponentialBuckets(1, 2, 12)),
		aborts:       prometheus.NewCounterVec(counter("aborts_total", "Transactions taken back, by cause."), []string{"cause"}),
		rebuilds:     prometheus.NewCounter(counter("session_rebuilds_total", "Sessions whose client had to be replaced.")),
		restores:     histogram("restore_seconds", "Reading the states of newly assigned partitions from route.state.", prometheus.ExponentialBuckets(0.001, 2, 15)),
		restored:     prometheus.NewCounter(counter("restored_keys_total", "Idempotency keys read back from route.state.")),
		registryWait: histogram("registry_wait_seconds", "Waiting for the schema registry about ids never met.", prometheus.ExponentialBuckets(0.001, 2, 7)),
		lag:          gauge("stream_lag_seconds", "Age of the newest record decided, when it was committed."),
		keys:         gauge("dedupe_keys", "Idempotency keys remembered."),
		keyBytes:     gauge("dedupe_bytes", "Memory of the remembered keys."),
		behind:       gauge("tenants_behind", "Tenants with events in overflow."),
		refused: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "spillway_route_refused_partitions",
			Help: "Partitions that are not read until a person has looked, by why: below_start, beyond_end (the committed offset is not in the log), recreated (the topic is another), no_commit, no_state, state_gone, state_differs (route.state does not fit the committed offset), unreadable (it is tried again)."},
			[]string{"session", "reason"}),
		early: gauge("dedupe_forgotten_early_keys", "Keys forgotten before 24 h because max_keys was reached."),
	}
	if reg != nil {
		reg.MustRegister(m.decisions, m.forged, m.repeated, m.transactions, m.batch, m.aborts, m.rebuilds, m.restores, m.restored, m.registryWait,
			m.lag, m.keys, m.keyBytes, m.behind, m.early, m.refused)
	}
	return m
}

// counts are the decisions of the transaction under way: they are told only
// when it has committed.
type counts struct {
	byOutcome map[outcome]int
	records   int
	forged    int
	newest    int64 // append time, Unix ms
}

// outcome has as many values as there are lines in the table of steps.
type outcome struct {
	step    string
	verdict processors.Verdict
	reason  schemas.Reason
}

func (c *counts) add(d processors.Decision) {
	if c.byOutcome == nil {
		c.byOutcome = make(map[outcome]int)
	}
	c.byOutcome[outcome{d.Step, d.Verdict, d.Reason}]++
	c.records++
}

func (c *counts) reset() {
	clear(c.byOutcome)
	c.records, c.forged, c.newest = 0, 0, 0
}

// committed tells what a transaction did, which began with the end of a poll.
func (m *metrics) committed(s *session, began time.Time) {
	now := s.cfg.Now()
	for o, n := range s.counts.byOutcome {
		m.decisions.WithLabelValues(o.step, o.verdict.String(), string(o.reason)).Add(float64(n))
	}
	m.forged.Add(float64(s.counts.forged))
	m.transactions.Observe(now.Sub(began).Seconds())
	m.batch.Observe(float64(s.counts.records))
	if s.counts.newest > 0 {
		m.lag.WithLabelValues(s.name).Set(float64(now.UnixMilli()-s.counts.newest) / 1000)
	}
}

// observe tells how much a session's states hold, at most once a second.
func (m *metrics) observe(s *session, now time.Time) {
	if now.Sub(s.observed) < idleTick {
		return
	}
	s.observed = now
	var sum processors.Stats
	for _, p := range s.parts {
		st := p.state.Stats()
		sum.Keys += st.Keys
		sum.Bytes += st.Bytes
		sum.Behind += st.Behind
		sum.ForgottenEarly += st.ForgottenEarly
	}
	m.keys.WithLabelValues(s.name).Set(float64(sum.Keys))
	m.keyBytes.WithLabelValues(s.name).Set(float64(sum.Bytes))
	m.behind.WithLabelValues(s.name).Set(float64(sum.Behind))
	m.early.WithLabelValues(s.name).Set(float64(sum.ForgottenEarly))
}
