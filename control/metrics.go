package control

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what a process measures about control. Followers of one process
// share them.
type metrics struct {
	skipped prometheus.Counter
	age     prometheus.Gauge
	version prometheus.Gauge
	changes *prometheus.CounterVec // by kind and result
}

func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{
		skipped: register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "spillway_control_skipped_records_total", Help: "Records of control that this build cannot use.",
		})),
		age: register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "spillway_control_snapshot_age_seconds", Help: "Time since the end offset was fetched that the snapshot reaches to.",
		})),
		version: register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "spillway_control_snapshot_offset", Help: "Offset of the newest record in the snapshot.",
		})),
		changes: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "spillway_control_changes_total", Help: "Changes asked of the writer, by kind and result: written, unchanged, dry_run, or the reason of a refusal.",
		}, []string{"kind", "result"})),
	}
}

// register returns c, or what is registered in its place: a process may have
// several followers.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	var there prometheus.AlreadyRegisteredError
	if err := reg.Register(c); errors.As(err, &there) {
		if old, ok := there.ExistingCollector.(C); ok {
			return old
		}
	} else if err != nil {
		panic("control: metric cannot be registered: " + err.Error()) // a name clash within the binary
	}
	return c
}
