package keys

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Bounds.
const (
	MaxSet       = 4 << 20 // bytes of a JWKS
	maxKeys      = 10_000  // keys of a set
	fetchTimeout = 10 * time.Second
	minRefresh   = 10 * time.Second // between two fetches of the URL, whatever asks for them
)

// Config says where the keys are. At least one of File and URL is needed.
type Config struct {
	// File is the path of a JWKS. It may hold private keys; then Sign works.
	// "" is none.
	File string
	// URL is the address of a JWKS, fetched by Run. Symmetric keys and private
	// parts in it are passed over: who can read the address could forge. "" is
	// none.
	URL string
	// Refresh is the time between two fetches of URL; 0 is 5 minutes. A token
	// whose key id is unknown brings the next fetch forward, to 10 s after the
	// last.
	Refresh time.Duration
	// Client fetches URL; nil is a client with a 10 s timeout.
	Client *http.Client
	// Now is the clock that exp and nbf are compared with; required.
	Now func() time.Time
	// Logger is required.
	Logger *slog.Logger
	// Registerer takes the metrics; nil is nowhere.
	Registerer prometheus.Registerer
}

func (c *Config) validate() error {
	switch {
	case c.File == "" && c.URL == "":
		return errors.New("keys: neither File nor URL is set")
	case c.Refresh < 0:
		return fmt.Errorf("keys: Refresh is %s, want 0 or more", c.Refresh)
	case c.Now == nil:
		return errors.New("keys: Now is nil")
	case c.Logger == nil:
		return errors.New("keys: Logger is nil")
	}
	return nil
}

// A Ring holds the keys. Its methods may be called from any goroutine.
type Ring struct {
	cfg     Config
	metrics *metrics
	nudge   chan struct{} // asks Run for a fetch; never closed

	set atomic.Pointer[set] // what Verify reads

	mu     sync.Mutex // guards the parts the set is made of
	file   []Key
	remote []Key
	known  bool // remote was fetched once
}

// New reads the file, if there is one; it is an error if it cannot be read or
// holds no key that can be used. The URL is left to Run.
func New(cfg Config) (*Ring, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Refresh == 0 {
		cfg.Refresh = 5 * time.Minute
	}
	if cfg.Client == nil {
		cfg.Client = &http.Client{Timeout: fetchTimeout}
	}
	r := &Ring{cfg: cfg, metrics: newMetrics(cfg.Registerer), nudge: make(chan struct{}, 1)}
	r.set.Store(newSet(nil))
	return r, r.Reload()
}

// Reload reads the file again, as SIGHUP asks, and lets Run fetch the URL
// again. If the file cannot be read, the last good keys stay and the error says
// why. Verified tokens are forgotten, so a key that was taken out counts no
// longer.
func (r *Ring) Reload() error {
	r.askFetch()
	if r.cfg.File == "" {
		return nil
	}
	keys, err := ReadFile(r.cfg.File)
	if err != nil {
		r.metrics.failures.WithLabelValues("file").Inc()
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.file = keys
	r.rebuild()
	return nil
}

// Run fetches the URL now and then until ctx ends. When a fetch fails the last
// good keys stay. Without a URL it only waits.
func (r *Ring) Run(ctx context.Context) error {
	if r.cfg.URL == "" {
		<-ctx.Done()
		return nil
	}
	for {
		r.refresh(ctx)
		if !r.pause(ctx) {
			return nil
		}
	}
}

// pause waits for the next fetch: Refresh, or minRefresh if one is asked for or
// there are no keys yet. It reports false when ctx has ended.
func (r *Ring) pause(ctx context.Context) bool {
	short, long := time.NewTimer(min(minRefresh, r.cfg.Refresh)), time.NewTimer(r.cfg.Refresh)
	defer short.Stop()
	defer long.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-short.C:
	}
	if r.Ready() != nil {
		return true
	}
	select {
	case <-ctx.Done():
		return false
	case <-r.nudge:
	case <-long.C:
	}
	return true
}

func (r *Ring) refresh(ctx context.Context) {
	keys, err := fetch(ctx, r.cfg.Client, r.cfg.URL)
	if err != nil {
		if ctx.Err() == nil {
			r.metrics.failures.WithLabelValues("url").Inc()
			r.cfg.Logger.Warn("keys not fetched, the last ones stay", "err", err)
		}
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remote, r.known = keys, true
	r.rebuild()
}

// rebuild makes the set of both parts; mu is held.
func (r *Ring) rebuild() {
	all := append(append([]Key(nil), r.file...), r.remote...)
	r.set.Store(newSet(all))
	r.metrics.keys.Set(float64(len(all)))
}

// askFetch lets Run fetch the URL soon.
func (r *Ring) askFetch() {
	select {
	case r.nudge <- struct{}{}:
	default: // one is asked for already
	}
}

// Ready is nil as soon as there are keys to verify with.
func (r *Ring) Ready() error {
	if len(r.set.Load().all) == 0 {
		return errors.New("no keys to verify tokens with: the JWKS address has not answered yet")
	}
	return nil
}

func fetch(ctx context.Context, client *http.Client, url string) ([]Key, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch keys: %w", err)
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch keys: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch keys: %s", resp.Status)
	}
	keys, err := parse(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("fetch keys: %w", err)
	}
	public := keys[:0]
	for _, k := range keys {
		if k.Algorithm != "HS256" {
			k.private = nil
			public = append(public, k)
		}
	}
	if len(public) == 0 {
		return nil, errors.New("fetch keys: the set holds no public key for RS256, ES256 or EdDSA")
	}
	return public, nil
}

// ReadFile reads a JWKS file. It is an error if no key in it can be used.
func ReadFile(path string) ([]Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	defer f.Close()
	keys, err := parse(f)
	if err != nil {
		return nil, fmt.Errorf("read keys %s: %w", path, err)
	}
	return keys, nil
}

type metrics struct {
	verified *prometheus.CounterVec // by result: ok, cached, or a reason
	cached   prometheus.Counter     // verified with result cached
	failures *prometheus.CounterVec // by source: file, url
	keys     prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		verified: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spillway_keys_verified_total", Help: "Tokens looked at, by result: ok, cached, or the reason of refusal."}, []string{"result"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spillway_keys_load_failures_total", Help: "Key sets that could not be read, by source."}, []string{"source"}),
		keys:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "spillway_keys_loaded", Help: "Keys that tokens are verified with."}),
	}
	m.cached = m.verified.WithLabelValues("cached")
	if r != nil {
		r.MustRegister(m.verified, m.failures, m.keys)
	}
	return m
}
