package broker

import "github.com/prometheus/client_golang/prometheus"

// metrics are the broker's counters.
type metrics struct {
	stamped   prometheus.Counter // batches that got an append time
	rewritten prometheus.Counter // … and whose records had times of their own
	refused   *prometheus.CounterVec
}

// Reasons of spillway_broker_refused_total.
const (
	refusedConns = "connections" // too many of them
	refusedFrame = "frame"       // not a Kafka request, or a larger one than 100 MiB
)

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		stamped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "spillway_broker_stamped_batches_total",
			Help: "Record batches that were given the broker's append time.",
		}),
		rewritten: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "spillway_broker_rewritten_batches_total",
			Help: "Stamped batches whose records carried differing times.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "spillway_broker_refused_total",
			Help: "Connections closed by the broker, by reason.",
		}, []string{"reason"}),
	}
	if r != nil {
		r.MustRegister(m.stamped, m.rewritten, m.refused)
	}
	return m
}
