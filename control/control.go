package control

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/spillway/spillway/schemas"
)

// Verifier reads tokens. It may be called from any goroutine and does not
// block for long.
type Verifier interface {
	// Verify returns what a token says, or why it is refused.
	Verify(token string) (schemas.Claims, error)
}

// Config says how the control role runs.
type Config struct {
	Kafka      []kgo.Opt        // brokers, TLS, SASL, client id
	Topics     schemas.Topics   // names of the deployment
	SchemaIDs  map[string]int32 // ids of schemas.ControlSchemas by full name; absent: 0
	Partitions int32            // P; 0: what is there, else schemas.DefaultPartitions
	Regions    []string         // that exist: policies may name no other. One at least
	Open       bool             // at the first start, the default policy admits tenants that have none
	Listener   net.Listener     // the API's; Run closes it
	Keys       Verifier         // nil: no token is asked for, and the listener must be on loopback
	Logger     *slog.Logger     // nil: slog.Default()
	Registerer prometheus.Registerer
	Node       string           // this process's name, in the log
	Now        func() time.Time // nil: time.Now
	NewID      func() string    // correlation ids; nil: random
}

func (c *Config) validate() error {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.NewID == nil {
		c.NewID = randomID
	}
	if c.Listener == nil {
		return errors.New("listener: is missing")
	}
	address, ok := c.Listener.Addr().(*net.TCPAddr)
	if c.Keys == nil && (!ok || !address.IP.IsLoopback()) {
		return fmt.Errorf("listen on %s: without keys only a loopback address is allowed", c.Listener.Addr())
	}
	b := c.bootstrap()
	return b.validate()
}

func (c *Config) bootstrap() BootstrapConfig {
	return BootstrapConfig{
		Kafka: c.Kafka, Topics: c.Topics, SchemaIDs: c.SchemaIDs, Partitions: c.Partitions,
		Regions: c.Regions, Open: c.Open, Logger: c.Logger, Now: c.Now,
	}
}

func randomID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// Control is the control role: the API and the one writer.
type Control struct {
	cfg      Config
	metrics  *metrics
	follower *Follower

	mu     sync.Mutex
	writer *writer // nil while there is none
	err    error   // why there is none
}

// New checks cfg and returns the role. Run makes it work.
func New(cfg Config) (*Control, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	follower, err := NewFollower(FollowerConfig{Kafka: cfg.Kafka, Topics: cfg.Topics, Logger: cfg.Logger, Registerer: cfg.Registerer, Now: cfg.Now})
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	return &Control{cfg: cfg, metrics: newMetrics(cfg.Registerer), follower: follower, err: errOpening}, nil
}

var errOpening = errors.New("control is not open for writing yet")

// Times of the role.
const (
	openTimeout  = 30 * time.Second // of one attempt to become the writer
	openAgain    = time.Second      // after one that failed
	askEvery     = 5 * time.Second  // whether we are still the writer
	drainTimeout = 5 * time.Second  // what requests under way get at the end
)

// Run serves until ctx ends. It ends early if the deployment has another
// number of partitions than Config says; while Kafka is away, or another
// process has taken over, it keeps serving and refuses what it cannot do.
func (c *Control) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.follower.Run(ctx) })
	group.Go(func() error { return c.keepWriter(ctx) })
	group.Go(func() error { return c.serve(ctx) })
	return group.Wait()
}

// Ready reports why changes cannot be made now.
func (c *Control) Ready() error {
	if _, err := c.current(); err != nil {
		return err
	}
	return c.follower.Ready()
}

func (c *Control) current() (*writer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writer, c.err
}

func (c *Control) setWriter(w *writer, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writer, c.err = w, err
}

// keepWriter becomes the writer, and again whenever a write broke; but not
// after another process took over: two would fence each other for ever.
func (c *Control) keepWriter(ctx context.Context) error {
	for ctx.Err() == nil {
		w, err := c.open(ctx)
		if errors.Is(err, errPartitions) {
			return err
		}
		if err == nil {
			c.cfg.Logger.Info("control is open for writing", "node", c.cfg.Node, "topic", c.cfg.Topics.Control())
			c.setWriter(w, nil)
			err = c.watch(ctx, w)
			w.close()
		}
		if ctx.Err() != nil {
			break
		}
		c.setWriter(nil, err)
		if errors.Is(err, errFenced) {
			c.cfg.Logger.Error("control is closed for writing", "node", c.cfg.Node, "err", err)
			<-ctx.Done()
			break
		}
		c.cfg.Logger.Warn("control is not open for writing", "node", c.cfg.Node, "err", err)
		wait(ctx, openAgain)
	}
	c.setWriter(nil, errors.New("control is stopping"))
	return nil
}

func (c *Control) open(ctx context.Context) (*writer, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	b := c.cfg.bootstrap()
	w, err := openWriter(ctx, b.writer())
	if err != nil {
		return nil, err
	}
	if _, err := w.bootstrap(ctx, b); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// watch returns why w writes no more.
func (c *Control) watch(ctx context.Context, w *writer) error {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.broken:
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.err
		case <-tick.C:
			if err := w.fenced(ctx); err != nil && ctx.Err() == nil {
				c.cfg.Logger.Debug("who writes control", "err", err) // the next write tells for sure
			}
		}
	}
}

func (c *Control) serve(ctx context.Context) error {
	srv := &http.Server{
		Handler: c.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute,
		IdleTimeout: time.Minute, MaxHeaderBytes: 32 << 10, ErrorLog: slog.NewLogLogger(c.cfg.Logger.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(c.cfg.Listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("control port: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := srv.Shutdown(drain); err != nil {
		_ = srv.Close() // cuts what did not end in time
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control port: %w", err)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
