package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests  *prometheus.CounterVec // by result: ok, absent, failed
	known     prometheus.Gauge
	forgotten prometheus.Counter
	unasked   prometheus.Counter
	stale     prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "spillway_registry_requests_total", Help: "Requests to the schema registry by result: ok, absent, failed.",
		}, []string{"result"}),
		known: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "spillway_registry_schemas", Help: "Schemas known by id.",
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
	m.known, err = register(r, m.known, err)
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

// bounded is a transport whose answers end in an error after max bytes.
type bounded struct {
	http.RoundTripper
	max int64
}

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &boundedBody{resp.Body, b.max, b.max}
	return resp, nil
}

type boundedBody struct {
	io.ReadCloser
	left, max int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("answer exceeds %d bytes", b.max)
	}
	return n, err
}
