package audit

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	rows        *prometheus.CounterVec // by table: acknowledged, repeats included
	undecodable *prometheus.CounterVec // by topic
	inserts     *prometheus.HistogramVec
	retries     *prometheus.CounterVec // by table
	commits     *prometheus.CounterVec // by result
	lag         *prometheus.GaugeVec   // by reader
	failures    *prometheus.CounterVec // by part and reason
	faults      *prometheus.GaugeVec   // the same, while they last
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	counter := func(name, help string, label string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "spillway_audit_" + name, Help: help}, []string{label})
	}
	return &metrics{
		rows:        counter("rows_total", "Rows that ClickHouse acknowledged, repeats included.", "table"),
		undecodable: counter("undecodable_total", "Records and batches that could not be read; they are rows of table undecodable.", "topic"),
		retries:     counter("insert_retries_total", "Inserts that failed and were tried again.", "table"),
		commits:     counter("commits_total", "Offset commits by result.", "result"),
		inserts: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "spillway_audit_insert_seconds", Help: "Time of one acknowledged insert.",
			Buckets: []float64{.0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 30},
		}, []string{"table"}),
		lag: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "spillway_audit_lag_seconds", Help: "Age of the oldest record in the newest acknowledged batch.",
		}, []string{"reader"}),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "spillway_audit_failures_total", Help: "Attempts to read or write that failed and are repeated, by part (clickhouse, kafka) and reason.",
		}, []string{"part", "reason"}),
		faults: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "spillway_audit_fault", Help: "1 while a part keeps the audit from its work, by part and reason.",
		}, []string{"part", "reason"}),
	}
}

func (m *metrics) inserted(table string, rows int, took time.Duration) {
	m.rows.WithLabelValues(table).Add(float64(rows))
	m.inserts.WithLabelValues(table).Observe(took.Seconds())
}
