package delay

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	released *prometheus.CounterVec
	dead     *prometheus.CounterVec
	lost     *prometheus.CounterVec
	gaps     prometheus.Counter
	lateness prometheus.Histogram
	waiting  prometheus.Gauge
	payloads prometheus.Gauge
	paused   *prometheus.GaugeVec
	reread   prometheus.Counter

	commitFailures prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: "spillway_delay_" + name, Help: help}
	}
	gauge := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Name: "spillway_delay_" + name, Help: help}
	}
	m := &metrics{
		released: prometheus.NewCounterVec(counter("released_total", "Records given back, by where they went: events, work, retry (a hop), dead."), []string{"to"}),
		dead:     prometheus.NewCounterVec(counter("dead_total", "Records that became dead letters, by reason."), []string{"reason"}),
		lost: prometheus.NewCounterVec(counter("lost_records_total",
			"Records that Kafka no longer had when they were due, by why: retention, missing."), []string{"reason"}),
		gaps: prometheus.NewCounter(counter("gap_offsets_total", "Offsets that retention deleted before they were read; transaction markers count too.")),
		lateness: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "spillway_delay_lateness_seconds", Help: "From due to held by Kafka, of what went to events or work.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
		}),
		waiting:  prometheus.NewGauge(gauge("waiting_records", "Records looked at ahead that are not given back yet.")),
		payloads: prometheus.NewGauge(gauge("payload_bytes", "Payloads kept in memory.")),
		paused: prometheus.NewGaugeVec(gauge("paused_partitions",
			"Partitions that are read no further now, by why: waiting (MaxRecords wait), pinned (one record holds back what is committed), error."), []string{"reason"}),
		commitFailures: prometheus.NewCounter(counter("commit_failures_total", "Commits of offsets that Kafka did not take; they are tried again.")),
		reread:         prometheus.NewCounter(counter("reread_records_total", "Records whose payload was read a second time.")),
	}
	if reg != nil {
		reg.MustRegister(m.released, m.dead, m.lost, m.gaps, m.lateness, m.waiting, m.payloads, m.paused, m.reread, m.commitFailures)
	}
	return m
}
