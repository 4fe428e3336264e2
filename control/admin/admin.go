// Package admin is the port every role opens for its operator: is the process
// alive, can it do its work now, what does it measure, which build is it.
//
//	GET /healthz   200 as long as the process runs
//	GET /readyz    200, or 503 with one line for each part that cannot work now and why
//	GET /metrics   Prometheus text format
//	GET /version   the build, as JSON
//	GET /debug/pprof/…
//
// It shows what is inside, so it listens on loopback unless told otherwise.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Version says which build this is.
type Version struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
}

// Server is the admin port. Its methods may be called at any time from any
// goroutine.
type Server struct {
	version  Version
	gatherer prometheus.Gatherer

	mu      sync.Mutex
	started bool
	checks  map[string]func() error
}

// New returns an admin port that shows g's metrics.
func New(version Version, g prometheus.Gatherer) *Server {
	return &Server{version: version, gatherer: g, checks: map[string]func() error{}}
}

// Check adds a part to /readyz. ready must answer at once: nil, or an error
// whose text says why the part cannot work now.
func (s *Server) Check(part string, ready func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks[part] = ready
}

// Started says that every part has been added. Until then the process is not
// ready, whatever the parts say that are there.
func (s *Server) Started() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started = true
}

// Ready lists the parts that cannot work now, "part: reason" each, sorted.
func (s *Server) Ready() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	if !s.started {
		out = append(out, "process: is starting")
	}
	for part, ready := range s.checks {
		if err := ready(); err != nil {
			out = append(out, part+": "+err.Error())
		}
	}
	slices.Sort(out)
	return out
}

// Handler serves the admin paths.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.gatherer, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.version) // the client has gone: nobody to tell
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if not := s.Ready(); len(not) > 0 {
		http.Error(w, strings.Join(not, "\n"), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// Run serves l until ctx ends.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	srv := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("admin port: %w", err)
	case <-ctx.Done():
	}
	_ = srv.Close() // a scrape cut short at shutdown harms nobody
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin port: %w", err)
	}
	return nil
}
