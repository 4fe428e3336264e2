package registry

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests  *prometheus.CounterVec // by result: ok, absent, refused, failed
	failures  *prometheus.CounterVec // by reason, see Fault
	known     prometheus.Gauge
	loaded    prometheus.Gauge
	forgotten prometheus.Counter
	unasked   prometheus.Counter
	stale     prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "spillway_registry_requests_total", Help: "Requests to the schema registry by result: ok, absent, refused, failed.",
		}, []string{"result"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "spillway_registry_failures_total",
			Help: "Requests to the schema registry that got no answer of one, by reason: timeout, refused, tls, redirect, unauthorized, busy, server_error, not_json, too_large, cut_off, wrong_answer.",
		}, []string{"reason"}),
		known: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "spillway_registry_schemas", Help: "Schemas known by id.",
		}),
		loaded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "spillway_registry_loaded", Help: "1 once every schema that the registry has was loaded after the start, 0 while some are still being asked for.",
		}),
		forgotten: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "spillway_registry_forgotten_total", Help: "Schemas dropped because the cache was full.",
		}),
		unasked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "spillway_registry_unasked_total", Help: "Unknown ids not asked because too many were waiting.",
		}),
		stale: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "spillway_registry_stale_total", Help: "Refreshes of a latest version that failed; the old one was used.",
		}),
	}
	if r == nil {
		return m, nil
	}
	var err error
	m.requests, err = register(r, m.requests, err)
	m.failures, err = register(r, m.failures, err)
	m.known, err = register(r, m.known, err)
	m.loaded, err = register(r, m.loaded, err)
	m.forgotten, err = register(r, m.forgotten, err)
	m.unasked, err = register(r, m.unasked, err)
	m.stale, err = register(r, m.stale, err)
	return m, err
}

// register registers a collector, or takes the one that another client of
// the same process registered.
func register[C prometheus.Collector](r prometheus.Registerer, c C, before error) (C, error) {
	err := r.Register(c)
	var twice prometheus.AlreadyRegisteredError
	if errors.As(err, &twice) {
		if have, ok := twice.ExistingCollector.(C); ok {
			return have, before
		}
	}
	return c, errors.Join(before, err)
}
