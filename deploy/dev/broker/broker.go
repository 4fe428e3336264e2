// Package broker is the Kafka-protocol broker of `spillway dev`: one node on a
// loopback port, kept in one directory, so that a restart goes on where the
// last run stopped. It wraps franz-go's kfake and adds what kfake lacks.
//
//	any Kafka client
//	     │ TCP
//	     ▼
//	listen.go      frames: size and request key are checked before kfake sees them
//	     │
//	     ▼
//	versions.go    ApiVersions: Produce from v0 on, as Kafka 4 claims
//	appendtime.go  Produce: LogAppendTime topics get the broker's clock (batch.go)
//	     │
//	     ▼
//	kfake          topics, groups, transactions, segments under Config.Dir
//
// It is not a durable broker: writes rest in the page cache until Close, and a
// killed process may lose the end of a log or half of a transaction. It has no
// authentication, hence the loopback address. Production uses Apache Kafka.
package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
)

// The broker's settings, where they differ from kfake's own. The others are Kafka's
// defaults: sessions of 6 s to 5 min, transactions up to 15 min, offsets kept 7
// days, no topic made by asking for it.
const (
	clusterID       = "spillway-dev"
	maxMessageBytes = 16 << 20  // as large as a batch that Spillway's clients read; topics may set their own max.message.bytes
	maxRequestBytes = 100 << 20 // Kafka's socket.request.max.bytes
	segmentBytes    = 32 << 20  // space is given back by whole segments; each costs a file handle
	defaultRetain   = 256 << 20
	defaultSweep    = 30 * time.Second
	defaultConns    = 2000
	closeWait       = 5 * time.Second
)

// Config says where the broker lives.
type Config struct {
	// Dir holds all topics, offsets and producer states; it is created if
	// absent. One broker at a time may use it. Required.
	Dir string
	// Listen is the loopback host:port to serve and to advertise; empty or
	// port 0 takes a free port. Another host is refused: anyone who can
	// connect may do everything.
	Listen string
	// Logger gets the broker's own lines; nil discards them.
	Logger *slog.Logger
	// Registerer gets the metrics spillway_broker_*; nil keeps them unseen.
	Registerer prometheus.Registerer
	// Now is the clock of LogAppendTime; nil is time.Now. It is called from
	// one goroutine at a time.
	Now func() time.Time
	// RetentionBytes bounds each partition whose topic sets no
	// retention.bytes itself, oldest first; 0 is 256 MiB, negative no bound.
	RetentionBytes int64
	// RetentionEvery is the time between two retention sweeps; 0 is 30 s.
	RetentionEvery time.Duration
	// MaxConns bounds open connections, the next one is closed at once;
	// 0 is 2000.
	MaxConns int
}

func (c Config) withDefaults() Config {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.RetentionBytes == 0 {
		c.RetentionBytes = defaultRetain
	}
	if c.RetentionEvery == 0 {
		c.RetentionEvery = defaultSweep
	}
	if c.MaxConns == 0 {
		c.MaxConns = defaultConns
	}
	return c
}

func (c Config) validate() error {
	if c.Dir == "" {
		return errors.New("broker: Dir is empty")
	}
	if c.RetentionEvery < 0 {
		return fmt.Errorf("broker: RetentionEvery is %s, want more than 0", c.RetentionEvery)
	}
	if c.MaxConns < 0 {
		return fmt.Errorf("broker: MaxConns is %d, want more than 0", c.MaxConns)
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("broker: Listen %q: %w", c.Listen, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("broker: Listen %q: only a loopback address is served, the broker has no authentication", c.Listen)
	}
	return nil
}

// A Broker serves the Kafka protocol until it is closed.
type Broker struct {
	addr    string
	cluster *kfake.Cluster
	ln      *listener
	log     *logAdapter
	unlock  func() error

	stop  chan struct{} // closed by Close, once
	swept chan struct{} // closed when the retention sweep has ended
	once  sync.Once
	err   error // what Close returned
}

// Start opens the directory and listens. A port that is taken gives an error
// that names the address and matches syscall.EADDRINUSE; a directory that
// another broker holds gives one that names the directory.
func Start(cfg Config) (*Broker, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("broker: create directory: %w", err)
	}
	unlock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	b, err := open(cfg, unlock)
	if err != nil {
		return nil, errors.Join(err, unlock())
	}
	return b, nil
}

func open(cfg Config, unlock func() error) (*Broker, error) {
	m := newMetrics(cfg.Registerer)
	tcp, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("broker: listen on %s: %w", cfg.Listen, err)
	}
	b := &Broker{
		addr:   tcp.Addr().String(),
		ln:     newListener(tcp, cfg.MaxConns, cfg.Logger, m),
		log:    &logAdapter{log: cfg.Logger},
		unlock: unlock,
		stop:   make(chan struct{}),
		swept:  make(chan struct{}),
	}
	b.cluster, err = kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return b.ln, nil }),
		kfake.ClusterID(clusterID),
		kfake.DataDir(cfg.Dir),
		kfake.DefaultNumPartitions(1), // as Kafka's num.partitions
		kfake.WithLogger(b.log),
		kfake.BrokerConfigs(settings(cfg)),
	)
	if err != nil {
		_ = tcp.Close() // kfake may have closed it already
		return nil, fmt.Errorf("broker: open %s: %w", cfg.Dir, err)
	}
	v, err := newVersions(b.cluster, b.addr)
	if err != nil {
		b.cluster.Close()
		return nil, fmt.Errorf("broker: %w", err)
	}
	v.install()
	newAppendTime(b.cluster, cfg.Now, m).install()
	go b.sweep(cfg.RetentionEvery)
	return b, nil
}

// settings are broker-level: what a topic says about itself goes first.
func settings(cfg Config) map[string]string {
	return map[string]string{
		"message.max.bytes":   strconv.Itoa(maxMessageBytes),
		"log.segment.bytes":   strconv.Itoa(segmentBytes),
		"log.retention.bytes": strconv.FormatInt(cfg.RetentionBytes, 10),
	}
}

// sweep applies retention. kfake's own timer runs hourly, and only if some
// topic asks for it.
func (b *Broker) sweep(every time.Duration) {
	defer close(b.swept)
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-t.C:
			b.cluster.ApplyRetention()
		}
	}
}

// Addr is the host:port that the broker serves and advertises.
func (b *Broker) Addr() string { return b.addr }

// Close stops taking requests, writes topics, offsets and producer states to
// the directory, closes every connection and releases the directory. An open
// transaction is aborted by the next Start. Close the clients first: what they
// have in flight is answered by a closed connection. It may be called again
// and from any goroutine; every call returns the first one's error.
func (b *Broker) Close() error {
	b.once.Do(func() {
		close(b.stop)
		<-b.swept
		b.cluster.Close()
		b.err = errors.Join(b.log.failure(), b.ln.wait(closeWait), b.unlock())
	})
	return b.err
}
