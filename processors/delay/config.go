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

	MaxRecords   int           // records of a partition that wait in memory, 20 to 40 bytes each; 0 is 1 Mi. Beyond, or 8 times as many offsets after the oldest that waits, the partition is read no further until some are given back
	PayloadBytes int64         // payloads kept in memory for all partitions; 0 is 64 MiB. Beyond, they are read again when due
	DrainTimeout time.Duration // how long Run, and a partition that leaves, waits for what is in flight; 0 is 10 s

	Now        func() time.Time // wall clock; nil is time.Now. It must not be ahead of the brokers' by more than events may be early
	Logger     *slog.Logger     // nil discards
	Registerer prometheus.Registerer
}

// Bounds and times.
const (
	pollRecords   = 2000                      // of one poll
	maxBatchBytes = 2 * schemas.MaxRouteBatch // of a batch, decompressed: route writes none that has more than half of it
	maxPoll       = time.Second               // how long a poll waits when nothing is due earlier
	commitEvery   = time.Second               // of finished prefixes
	notReady      = time.Minute               // without progress while something is due: Ready says so
	giveUp        = 5 * time.Minute           // then Run ends, for a restart is the cure

	// maxRelease is how many records one cycle gives back at most, so that
	// reading ahead and committing get their turn.
	maxRelease = 5000

	// Returns that wait for their acknowledgement. Beyond, nothing is given
	// back until some came.
	maxInFlight      = 10_000
	maxInFlightBytes = 64 << 20

	// spanRecords times MaxRecords is the Span beyond which a partition is read
	// no further, however few of its records wait: so many may be given back
	// once more after a restart.
	spanRecords = 8

	// Payloads that were not kept. One cycle begins no reading after
	// readBudget, for rebalances wait until it is over.
	readBudget   = 2 * time.Second
	readTimeout  = 2 * time.Second // of one
	readAheadMax = 4 << 20         // bytes that one brings, a batch at least
	readSoon     = time.Minute     // a neighbour that is due by then is kept
	firstHold    = 100 * time.Millisecond
	lastHold     = 5 * time.Second // between attempts, doubling from firstHold

	// Errors of partitions.
	listTimeout = 5 * time.Second  // of asking where logs begin
	faultRetry  = time.Second      // a partition with an error is not read for so long
	faultGrace  = 10 * time.Second // Ready is silent about one that is younger
	faultStale  = 30 * time.Second // one that was not repeated for so long has passed
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
