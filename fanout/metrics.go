package fanout

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the package's, spillway_fanout_*.
type metrics struct {
	connections   *prometheus.GaugeVec   // by kind: ws, sse
	subscriptions prometheus.Gauge       //
	closes        *prometheus.CounterVec // by code: ours, the client's, or 1006 if the connection broke
	refused       *prometheus.CounterVec // requests and upgrades refused, by reason
	errors        *prometheus.CounterVec // err frames, by code
	gaps          *prometheus.CounterVec // by why
	events        prometheus.Counter     // read from Kafka
	skipped       *prometheus.CounterVec // records not delivered, by reason
	deliveries    prometheus.Counter     // events written to sockets
	frames        prometheus.Counter     // ev frames written
	writes        prometheus.Counter     // write calls
	bytes         prometheus.Counter     // written
	nodeSeconds   prometheus.Histogram   // event read from Kafka → written
	totalSeconds  prometheus.Histogram   // event appended to `events` → written
	publishes     *prometheus.CounterVec // by result: ack or the error's code
	replayReads   prometheus.Counter     // chunks read from Kafka for places older than the tail
	failures      *prometheus.CounterVec // reads of Kafka that failed, by reason
	auditDropped  *prometheus.CounterVec // receipts, ranges and heartbeats not written, by record
}

func newMetrics(reg prometheus.Registerer, tailBytes, tailEvents func() float64) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "spillway", Subsystem: "fanout", Name: name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "spillway", Subsystem: "fanout", Name: name, Help: help}, []string{label})
	}
	gauge := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Namespace: "spillway", Subsystem: "fanout", Name: name, Help: help}
	}
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "spillway", Subsystem: "fanout", Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.00025, 2, 18),
		})
	}
	m := &metrics{
		connections:   prometheus.NewGaugeVec(gauge("connections", "Open connections."), []string{"kind"}),
		subscriptions: prometheus.NewGauge(gauge("subscriptions", "Subscriptions of open connections.")),
		closes:        vec("closes_total", "Connections ended, by close code.", "code"),
		refused:       vec("refused_total", "Requests and upgrades refused, by reason.", "reason"),
		errors:        vec("errors_total", "err frames sent, by code.", "code"),
		gaps:          vec("gaps_total", "Gaps announced, by cause.", "why"),
		events:        counter("events_total", "Events read from Kafka into the tails."),
		skipped:       vec("skipped_total", "Records of the fanout topic that were not delivered, by reason.", "reason"),
		deliveries:    counter("deliveries_total", "Events written to sockets."),
		frames:        counter("frames_total", "Event frames written."),
		writes:        counter("writes_total", "Writes to sockets."),
		bytes:         counter("written_bytes_total", "Bytes written to sockets."),
		nodeSeconds:   histogram("node_seconds", "From an event's arrival at this node to its being written, by write."),
		totalSeconds:  histogram("delivery_seconds", "From an event's append to events to its being written, by write."),
		publishes:     vec("publishes_total", "pub frames, by result.", "result"),
		replayReads:   counter("replay_reads_total", "Reads of Kafka for places older than the tail."),
		failures:      vec("kafka_failures_total", "Reads of Kafka that failed and are repeated, by reason.", "reason"),
		auditDropped:  vec("audit_dropped_total", "Records for audit and nodes that were not written, by record.", "record"),
	}
	reg.MustRegister(m.connections, m.subscriptions, m.closes, m.refused, m.errors, m.gaps, m.events, m.skipped, m.deliveries, m.frames,
		m.writes, m.bytes, m.nodeSeconds, m.totalSeconds, m.publishes, m.replayReads, m.auditDropped, m.failures,
		prometheus.NewGaugeFunc(gauge("tail_bytes", "Memory of the tails."), tailBytes),
		prometheus.NewGaugeFunc(gauge("tail_events", "Events in the tails."), tailEvents))
	return m
}

func (m *metrics) closed(code int) { m.closes.WithLabelValues(strconv.Itoa(code)).Inc() }
