// Package admin is the port every role opens for its operator: is the process
// alive, can it do its work now, what does it measure, which build is it.
//
//	GET /healthz   200 as long as the process runs
//	GET /readyz    200, with one line for each part that is missed but can be done without;
//	               or 503 with one line for each part that cannot work now and why
//	GET /metrics   Prometheus text format
//	GET /version   the build, as JSON
//	GET /debug/pprof/…
//
// It shows what is inside, so it listens on loopback unless told otherwise. On
// any other address everything but /healthz and /readyz, which load balancers
// and container engines ask, wants an operator's token: see Operators.
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
	verify func(token string) error // nil: nobody is asked for a token
	mux    *http.ServeMux

	mu      sync.Mutex
	started bool
	checks  map[string]func() error
	lacks   map[string]func() error
}

// New returns an admin port that shows g's metrics.
func New(version Version, g prometheus.Gatherer) *Server {
	s := &Server{mux: http.NewServeMux(), checks: map[string]func() error{}, lacks: map[string]func() error{}}
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	s.mux.HandleFunc("GET /readyz", s.readyz)
	s.Handle("GET /metrics", promhttp.HandlerFor(g, promhttp.HandlerOpts{}))
	s.Handle("GET /version", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(version) // the client has gone: nobody to tell
	}))
	s.Handle("GET /debug/pprof/", http.HandlerFunc(pprof.Index)) // knows no cmdline: a flag may hold a secret
	s.Handle("GET /debug/pprof/profile", http.HandlerFunc(pprof.Profile))
	s.Handle("GET /debug/pprof/trace", http.HandlerFunc(pprof.Trace))
	return s
}

// Handle adds a path for operators: it wants the token that Operators checks.
func (s *Server) Handle(pattern string, h http.Handler) {
	s.mux.Handle(pattern, s.operator(h.ServeHTTP))
}

// Operators has those who ask for more than health show a token that verify
// takes, as Authorization: Bearer. Call it before Handler and Run.
func (s *Server) Operators(verify func(token string) error) { s.verify = verify }

// Check adds a part to /readyz. ready must answer at once: nil, or an error
// whose text says why the part cannot work now.
func (s *Server) Check(part string, ready func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks[part] = ready
}

// Lacks adds a part to /readyz that the process goes on without: lacking must
// answer at once, nil or an error whose text says what is missed, and the
// process stays ready. A load balancer that took every node out because of a
// part that all of them share would make an outage of a nuisance.
func (s *Server) Lacks(part string, lacking func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lacks[part] = lacking
}

// Spare makes a part that was added with Check one of those that Lacks adds.
func (s *Server) Spare(part string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if check, ok := s.checks[part]; ok {
		delete(s.checks, part)
		s.lacks[part] = check
	}
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
	out := ask(s.checks)
	if !s.started {
		out = append(out, "process: is starting")
	}
	slices.Sort(out)
	return out
}

// Degraded lists the parts that are missed, "part: reason" each, sorted.
func (s *Server) Degraded() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := ask(s.lacks)
	slices.Sort(out)
	return out
}

// ask returns a line for each part that has something to say.
func ask(parts map[string]func() error) (out []string) {
	for part, ask := range parts {
		if err := ask(); err != nil {
			out = append(out, part+": "+strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	return out
}

// Handler serves the admin paths.
func (s *Server) Handler() http.Handler { return s.mux }

// operator lets only those through who show a good token, if one is asked for.
func (s *Server) operator(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.verify != nil {
			token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if !ok {
				w.Header().Set("WWW-Authenticate", "Bearer")
				http.Error(w, "an operator's token is needed: Authorization: Bearer …", http.StatusUnauthorized)
				return
			}
			if err := s.verify(token); err != nil {
				http.Error(w, err.Error(), http.StatusForbidden)
				return
			}
		}
		next(w, r)
	})
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if not := s.Ready(); len(not) > 0 {
		http.Error(w, strings.Join(not, "\n"), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
	for _, line := range s.Degraded() {
		fmt.Fprintln(w, "degraded: "+line)
	}
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
