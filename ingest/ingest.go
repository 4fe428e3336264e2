package ingest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// Tokens verifies tokens; keys.Ring does. A refusal has the method
// Refused() (schemas.Reason, string): the reason and the claim.
type Tokens interface {
	Verify(token string) (schemas.Claims, error)
}

// Policies is the snapshot of `control`; control.Follower does. Neither
// blocks.
type Policies interface {
	// Policy is what holds for a tenant now.
	Policy(tenant string) (*schemas.Policy, bool)
	// FreshAt is until when the snapshot knows everything that was written.
	FreshAt() time.Time
}

// Config is what ingest needs.
type Config struct {
	Kafka      []kgo.Opt      // how to reach Kafka; ingest adds how to produce
	Topics     schemas.Topics // names of the topics
	Partitions int32          // P, from control; a wrong one puts events where they must be forwarded from
	Listener   net.Listener   // where Run serves; Run closes it
	Tokens     Tokens         // required
	Policies   Policies       // required
	Schemas    Schemas        // required

	MaxEvents    int64         // events in flight; more are refused with 503; 0 is 32,768
	MaxBytes     int64         // bytes in flight, each event counted as JSON and as Avro; 0 is 128 MiB
	AckTimeout   time.Duration // how long a request waits for Kafka before its 503; 0 is 5 s
	DrainTimeout time.Duration // how long Run waits for requests in flight when it ends; 0 is 10 s

	Now        func() time.Time      // the clock of quotas, record times and the histogram; required
	Random     io.Reader             // where trace ids come from, such as crypto/rand.Reader; required
	Logger     *slog.Logger          // required
	Registerer prometheus.Registerer // takes the metrics; nil is nowhere
}

func (c *Config) validate() error {
	switch {
	case c.Partitions <= 0:
		return fmt.Errorf("ingest: Partitions is %d, want 1 or more", c.Partitions)
	case c.Tokens == nil || c.Policies == nil || c.Schemas == nil:
		return errors.New("ingest: Tokens, Policies or Schemas is nil")
	case c.Listener == nil:
		return errors.New("ingest: Listener is nil")
	case c.Now == nil || c.Random == nil || c.Logger == nil:
		return errors.New("ingest: Now, Random or Logger is nil")
	case c.MaxEvents < 0 || c.MaxBytes < 0:
		return fmt.Errorf("ingest: negative bound: MaxEvents %d, MaxBytes %d", c.MaxEvents, c.MaxBytes)
	case c.AckTimeout < 0 || c.DrainTimeout < 0:
		return fmt.Errorf("ingest: negative time: AckTimeout %s, DrainTimeout %s", c.AckTimeout, c.DrainTimeout)
	}
	return nil
}

func (c *Config) setDefaults() {
	c.MaxEvents = or(c.MaxEvents, 32<<10)
	c.MaxBytes = or(c.MaxBytes, 128<<20)
	c.AckTimeout = or(c.AckTimeout, 5*time.Second)
	c.DrainTimeout = or(c.DrainTimeout, 10*time.Second)
}

func or[T int64 | time.Duration](given, otherwise T) T {
	if given == 0 {
		return otherwise
	}
	return given
}

// Ingest is the role. Its methods may be called from any goroutine.
type Ingest struct {
	cfg     Config
	topic   string
	client  *kgo.Client
	metrics *metrics
	random  io.Reader // cfg.Random, buffered and locked

	events, bytes budget
	quotas        quotas
	stuck         []atomic.Int32            // per partition: requests answered although Kafka still owes an answer
	log           atomic.Pointer[eventsLog] // nil until Kafka was asked
	trouble       atomic.Pointer[error]     // what the last look at the topic said, nil if it is well
	look          chan struct{}             // capacity 1, never closed: look at the topic now
	lastError     atomic.Pointer[error]     // of the last look at the topic or the last refusal of Kafka's
	draining      atomic.Bool
	closed        bool           // guarded by serving: the producer is about to end
	serving       sync.RWMutex   // each handler holds it for reading; drain writes, and so waits for them
	flying        sync.WaitGroup // produces without an answer; only handlers begin one
}

// New makes the role. It asks Kafka nothing yet; call Run.
func New(cfg Config) (*Ingest, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	client, err := kgo.NewClient(producerOpts(&cfg)...)
	if err != nil {
		return nil, fmt.Errorf("ingest: Kafka client: %w", err)
	}
	in := &Ingest{
		cfg: cfg, topic: cfg.Topics.Events(), client: client,
		random: &lockedReader{r: bufio.NewReaderSize(cfg.Random, 4096)},
		events: budget{most: cfg.MaxEvents}, bytes: budget{most: cfg.MaxBytes},
		stuck: make([]atomic.Int32, cfg.Partitions), look: make(chan struct{}, 1),
	}
	in.metrics = newMetrics(cfg.Registerer, &in.events, &in.bytes)
	return in, nil
}

// Run serves on the listener until ctx ends. Then it takes no more requests,
// answers those in flight, within DrainTimeout, and returns when everything it
// started has ended. Call it once.
func (in *Ingest) Run(ctx context.Context) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { in.watchTopic(background) })
	defer func() {
		stop()
		wg.Wait()
	}()
	server := &http.Server{
		Handler:           in.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute, // of a whole body; who sends slower holds the budget too long
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    2 * schemas.MaxHeaders, // admit refuses from MaxHeaders on, in our form
		ErrorLog:          slog.NewLogLogger(in.cfg.Logger.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	wg.Go(func() { failed <- server.Serve(in.cfg.Listener) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("ingest: serve: %w", err)
	}
	in.draining.Store(true)
	in.drain(ctx, server)
	return err
}

// drain ends the server and then the producer, in DrainTimeout together.
func (in *Ingest) drain(ctx context.Context, server *http.Server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), in.cfg.DrainTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		in.cfg.Logger.Warn("requests cut off", "err", err)
		_ = server.Close()
	}
	in.serving.Lock() // every handler ends: its connection is closed, and AckTimeout bounds the rest
	in.closed = true
	in.serving.Unlock()
	if err := in.client.Flush(ctx); err != nil {
		in.cfg.Logger.Warn("events left unacknowledged; their senders were not told 202", "err", err)
	}
	in.client.Close() // answers what is left with an error
	in.flying.Wait()
}

// Ready is nil when an event would be taken now.
func (in *Ingest) Ready() error {
	if in.draining.Load() {
		return errors.New("draining")
	}
	if _, refused := in.topicID(); refused != nil {
		return errors.New(refused.Message)
	}
	if trouble := in.trouble.Load(); trouble != nil {
		return *trouble
	}
	n := 0
	for i := range in.stuck {
		if in.stuck[i].Load() > 0 {
			n++
		}
	}
	if n > 0 {
		return fmt.Errorf("Kafka does not acknowledge events of %d of %d partitions", n, len(in.stuck))
	}
	return nil
}

// lockedReader lets handlers share one source of randomness.
type lockedReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (l *lockedReader) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(p)
}
