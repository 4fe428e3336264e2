package ingest

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/spillway/spillway/ingest/binding"
)

// metrics is what ingest measures.
type metrics struct {
	requests *prometheus.CounterVec // by code (HTTP status) and reason ("" if accepted)
	ok       prometheus.Counter     // requests with 202
	events   prometheus.Counter
	bytes    prometheus.Counter
	ack      prometheus.Histogram

	topicChanges prometheus.Counter
}

func newMetrics(r prometheus.Registerer, events, bytes *budget) *metrics {
	m := &metrics{
		requests:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spillway_ingest_requests_total", Help: "Requests answered, by HTTP status and reason of refusal."}, []string{"code", "reason"}),
		events:       prometheus.NewCounter(prometheus.CounterOpts{Name: "spillway_ingest_events_total", Help: "Events that Kafka acknowledged."}),
		bytes:        prometheus.NewCounter(prometheus.CounterOpts{Name: "spillway_ingest_bytes_total", Help: "Bytes of acknowledged events as Avro, without headers."}),
		topicChanges: prometheus.NewCounter(prometheus.CounterOpts{Name: "spillway_ingest_topic_changes_total", Help: "Times that the topic events was found deleted and made anew."}),
		ack: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "spillway_ingest_ack_seconds", Help: "From handing a request's events to the producer to Kafka's last acknowledgement.",
			Buckets: []float64{.001, .002, .004, .008, .016, .032, .064, .128, .256, .512, 1, 2, 5},
		}),
	}
	m.ok = m.requests.WithLabelValues("202", "")
	if r != nil {
		r.MustRegister(m.requests, m.events, m.bytes, m.ack, m.topicChanges,
			inFlight("events", events), inFlight("bytes", bytes))
	}
	return m
}

func inFlight(what string, b *budget) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "spillway_ingest_in_flight_" + what, Help: "In requests that are not answered, or whose events Kafka has not answered for: " + what + ".",
	}, func() float64 { return float64(b.used.Load()) })
}

func (m *metrics) accepted(b *builder) {
	m.ok.Inc()
	m.events.Add(float64(len(b.records)))
	n := 0
	for i := range b.records {
		n += len(b.records[i].Value)
	}
	m.bytes.Add(float64(n))
}

func (m *metrics) refused(r *binding.Refusal) {
	m.requests.WithLabelValues(strconv.Itoa(status(r.Code)), string(r.Code)).Inc()
}
