// Package registry is the client of a Confluent-compatible schema registry:
// it turns schema ids into compiled codecs and record names into their latest
// schema, and keeps both.
//
//	route  ──ByID──▶ known ids        (never a call)
//	       ──Ask───▶ bounded queue ─▶ ≤ 4 askers ─▶ registry   (never waits)
//	ingest ──Latest▶ names, with a TTL; the last answer while the registry is down
//	people ──Register, Check, List, Encode▶ registry
//
// A "no" must be fresh (DESIGN 3.3): an absent id carries the time at which
// the registry was asked, so that the caller can compare it with an event's
// append time. What cannot be asked is unknown, never absent: only the
// registry's own 404 is a "no" (40403 about an id, 40401 and 40402 about a
// subject); a 500, a proxy's page or its JSON, a redirect, a timeout, half an
// answer and a body over the bound are not: answer.go makes each a Fault with
// its reason. A registry that fails is looked for until it answers again;
// Ready tells since when and why.
//
// Bounds, and what happens at them: known schemas (MaxSchemas, MaxTextBytes):
// arbitrary ones are forgotten and asked again when they are met again,
// counted. Absent ids and names (MaxAbsent): arbitrary ones are forgotten.
// Waiting questions (MaxPending): more are not queued, counted; the id stays
// unknown and is asked when it is met again, and all schemas are loaded at most
// every 10 s, so that random ids cannot crowd out real ones. Requests: PerSecond, so that
// random ids cannot storm the registry; after a failure none for a moment that
// doubles from 100 ms to 5 s. At most 8 requests are under way, each with at
// most MaxResponse bytes of answer.
package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spillway/spillway/schemas/codec"
	"github.com/twmb/franz-go/pkg/sr"
	"golang.org/x/time/rate"
)

// Config is what a Client needs to know. Zero values give the defaults named.
type Config struct {
	URLs     []string      // base addresses of the registry, http or https, user:password@ allowed; one at least; the next is tried when one does not answer
	Username func() string // basic authentication, asked for each request; nil or "" sends none, or what the URL says
	Password func() string // same; may come from a file that changes
	Topic    string        // events topic, for subjects <topic>-value and <topic>-<record>; "" knows only <record>

	Timeout     time.Duration // for one request with its whole answer; 0 is HTTP's, else 5 s
	LatestTTL   time.Duration // how long a name's latest version is taken as such; 0 is 5 s
	LatestWait  time.Duration // how long Latest waits for a refresh before it gives the old answer; 0 is 200 ms
	MaxSchemas  int           // known ids kept; 0 is 10,000
	MaxText     int           // bytes of schema text kept in all; 0 is 64 MiB
	MaxAbsent   int           // absent ids kept, and names of each kind; 0 is 10,000
	MaxPending  int           // ids waiting to be asked; 0 is 1,000
	MaxResponse int64         // bytes of a list; more is an error; 0 is 32 MiB; one schema may take 4 MiB of them
	PerSecond   float64       // questions about ids and names per second, with a burst of twice that; 0 is 50

	HTTP       *http.Client          // for its transport (TLS, proxy) and timeout; nil is a clone of http.DefaultTransport; redirects are never followed
	Now        func() time.Time      // nil is time.Now
	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil registers nowhere
}

// Errors of Resolve, Latest and the functions for people.
var (
	// ErrAbsent: the registry answered that there is no such id or subject.
	ErrAbsent = errors.New("the schema registry has no such schema")
	// ErrUnavailable: the registry could not be asked, or its answer not read.
	// Nothing follows for the id. It wraps a *Fault that says why, if a request
	// was sent.
	ErrUnavailable = errors.New("the schema registry does not answer")
)

// A Schema is one schema of the registry. It does not change.
type Schema struct {
	ID            int
	Name          string       // full name of the record; "" if it is none or cannot be compiled
	Text          string       // as registered
	Codec         *codec.Codec // nil if Unsupported says why
	Unsupported   error        // *codec.Error of reason schema_unsupported, or nil
	HasReferences bool         // refers to other subjects; then it is Unsupported
	Subject       string       // where it was met, "" if it was asked by id
	Version       int          // in Subject; 0 if Subject is ""
}

// Client asks one registry. It is safe for concurrent use; Close it.
type Client struct {
	cfg     Config
	sr      *sr.Client
	log     *slog.Logger
	metrics *metrics
	limiter *rate.Limiter

	base   context.Context // ends with Close
	cancel context.CancelFunc
	done   sync.WaitGroup // requests and askers under way

	mu       sync.RWMutex
	closed   bool
	known    map[int]*Schema
	textSize int // bytes of text in known
	absent   map[int]denial
	asking   map[int]*question // one per id under way
	pending  []int             // ids for the askers; each is in queued
	queued   map[int]struct{}
	askers   int
	latest   map[string]*latest // by record name
	backoff  backoff
	looking  bool // look runs

	nextSweep time.Time // no sweep before
}

// New makes a client. It asks nothing yet.
func New(cfg Config) (*Client, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	asker, err := sr.NewClient(
		sr.URLs(slices.Clone(cfg.URLs)...),
		sr.UserAgent("spillway"),
		sr.HTTPClient(&http.Client{Transport: &answers{
			base: cfg.HTTP.Transport, timeout: cfg.Timeout, max: cfg.MaxResponse, slots: make(chan struct{}, maxAtOnce),
		}}),
		sr.PreReq(cfg.authenticate),
	)
	if err != nil {
		return nil, fmt.Errorf("schema registry client: %w", err)
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("schema registry metrics: %w", err)
	}
	base, cancel := context.WithCancel(context.Background())
	return &Client{
		cfg: cfg, sr: asker, log: cfg.Logger, metrics: m,
		limiter: rate.NewLimiter(rate.Limit(cfg.PerSecond), max(1, int(2*cfg.PerSecond))),
		base:    base, cancel: cancel,
		known: map[int]*Schema{}, absent: map[int]denial{}, asking: map[int]*question{},
		queued: map[int]struct{}{}, latest: map[string]*latest{},
	}, nil
}

// authenticate says who asks.
func (cfg *Config) authenticate(req *http.Request) error {
	if cfg.Username == nil {
		return nil
	}
	user, password := cfg.Username(), ""
	if cfg.Password != nil {
		password = cfg.Password()
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	return nil
}

func (cfg *Config) setDefaults() {
	if cfg.HTTP == nil {
		cfg.HTTP = &http.Client{}
	}
	if cfg.HTTP.Transport == nil {
		own := http.DefaultTransport.(*http.Transport).Clone()
		own.MaxIdleConnsPerHost = maxAtOnce
		cfg.HTTP = &http.Client{Timeout: cfg.HTTP.Timeout, Transport: own}
	}
	cfg.Timeout = or(cfg.Timeout, or(cfg.HTTP.Timeout, 5*time.Second))
	cfg.LatestTTL = or(cfg.LatestTTL, 5*time.Second)
	cfg.LatestWait = or(cfg.LatestWait, 200*time.Millisecond)
	cfg.MaxSchemas = or(cfg.MaxSchemas, 10_000)
	cfg.MaxText = or(cfg.MaxText, 64<<20)
	cfg.MaxAbsent = or(cfg.MaxAbsent, 10_000)
	cfg.MaxPending = or(cfg.MaxPending, 1_000)
	cfg.MaxResponse = or(cfg.MaxResponse, 32<<20)
	cfg.PerSecond = or(cfg.PerSecond, 50)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
}

func or[T comparable](given, otherwise T) T {
	var zero T
	if given == zero {
		return otherwise
	}
	return given
}

func (cfg *Config) validate() error {
	if len(cfg.URLs) == 0 {
		return errors.New("schema registry: no URL")
	}
	if err := cfg.readURLs(); err != nil {
		return err
	}
	switch {
	case cfg.Timeout < 0 || cfg.LatestTTL < 0 || cfg.LatestWait < 0:
		return fmt.Errorf("schema registry: negative duration: timeout %s, latest TTL %s, latest wait %s", cfg.Timeout, cfg.LatestTTL, cfg.LatestWait)
	case cfg.MaxSchemas < 0 || cfg.MaxText < 0 || cfg.MaxAbsent < 0 || cfg.MaxPending < 0 || cfg.MaxResponse < 0 || cfg.PerSecond < 0:
		return errors.New("schema registry: negative bound")
	case cfg.Password != nil && cfg.Username == nil:
		return errors.New("schema registry: a password without a user")
	}
	return nil
}

// readURLs takes user and password out of the URLs, for those are printed.
func (cfg *Config) readURLs() error {
	cfg.URLs = slices.Clone(cfg.URLs)
	for i, text := range cfg.URLs {
		if text != "" && !strings.Contains(text, "://") {
			text = "http://" + text
		}
		u, err := url.Parse(text)
		if err != nil {
			return errors.New("schema registry: a URL cannot be read") // the error would quote a password
		}
		if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("schema registry: URL %q: want http://host:port or https://host:port", u.Redacted())
		}
		if user := u.User; user != nil && cfg.Username == nil {
			cfg.Username = user.Username
			cfg.Password = func() string { p, _ := user.Password(); return p }
		}
		u.User = nil
		cfg.URLs[i] = u.String()
	}
	return nil
}

// Close ends all requests under way and returns when they have ended. Known
// schemas can still be looked up afterwards; everything else is ErrUnavailable.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.done.Wait()
	c.cfg.HTTP.CloseIdleConnections()
}
