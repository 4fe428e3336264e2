package delay

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// Secrets is what delay asks of control: the secret that signs returns now.
type Secrets interface {
	SigningSecret() schemas.Secret
}

// Config says what to give back and how.
type Config struct {
	Kafka      []kgo.Opt      // brokers, TLS, SASL, client id
	Topics     schemas.Topics // names of the deployment
	Partitions int32          // P; a wrong one sends events where they must be forwarded from
	Secrets    Secrets        // required
	Node       string         // this process's name; two with one name fence each other

	MaxRecords   int           // records of a partition that are looked at ahead, 20 bytes each; 0 is 1 Mi. Beyond, the partition is read no further until some are given back
	PayloadBytes int64         // payloads kept in memory for all partitions; 0 is 64 MiB. Beyond, they are read again when due
	DrainTimeout time.Duration // how long Run waits for what is in flight when it ends; 0 is 10 s

	Now        func() time.Time // wall clock; nil is time.Now. It must not be ahead of the brokers' by more than events may be early
	Logger     *slog.Logger     // nil discards
	Registerer prometheus.Registerer
}

// Bounds and times.
const (
	pollRecords  = 2000             // of one poll
	maxPoll      = time.Second      // how long a poll waits when nothing is due earlier
	commitEvery  = time.Second      // of finished prefixes
	maxInFlight  = 10_000           // returns that wait for their acknowledgement
	notReady     = time.Minute      // without progress while something is due: Ready says so
	giveUp       = 5 * time.Minute  // then Run ends, for a restart is the cure
	readAgain    = 10 * time.Second // one reading of payloads that were not kept
	readAttempts = 6                // of one record; with readAgain each, while Kafka is away
	readAheadMax = 4 << 20          // bytes of payloads that one such reading brings
)

func (c *Config) setDefaults() error {
	switch {
	case c.Partitions <= 0:
		return fmt.Errorf("delay: Partitions is %d, want at least 1", c.Partitions)
	case c.Secrets == nil:
		return errors.New("delay: Secrets is required")
	case c.Node == "":
		return errors.New("delay: Node is required")
	case c.MaxRecords < 0 || c.PayloadBytes < 0 || c.DrainTimeout < 0:
		return errors.New("delay: MaxRecords, PayloadBytes and DrainTimeout cannot be negative")
	}
	if c.MaxRecords == 0 {
		c.MaxRecords = 1 << 20
	}
	if c.PayloadBytes == 0 {
		c.PayloadBytes = 64 << 20
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 10 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

type metrics struct {
	released *prometheus.CounterVec
	lateness prometheus.Histogram
	waiting  prometheus.Gauge
	payloads prometheus.Gauge
	reread   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		released: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "spillway_delay_released_total", Help: "Records given back, by where they went: events, work, retry (a hop), dead.",
		}, []string{"to"}),
		lateness: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "spillway_delay_lateness_seconds", Help: "From due to given back.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
		}),
		waiting:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "spillway_delay_waiting_records", Help: "Records looked at ahead that are not given back yet."}),
		payloads: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spillway_delay_payload_bytes", Help: "Payloads kept in memory."}),
		reread:   prometheus.NewCounter(prometheus.CounterOpts{Name: "spillway_delay_reread_records_total", Help: "Records whose payload was read a second time."}),
	}
	if reg != nil {
		reg.MustRegister(m.released, m.lateness, m.waiting, m.payloads, m.reread)
	}
	return m
}
