package boot

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/spillway/spillway/control/process"
	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/registry"
)

// An ill registry has the sample schemas, and as long as it is ill answers as
// its illness does.
type ill struct {
	*srfake.Registry
	ids     []int
	illness atomic.Pointer[http.HandlerFunc]
	asked   atomic.Int64
}

func newIll(t *testing.T) *ill {
	r := &ill{Registry: srfake.New()}
	t.Cleanup(r.Close)
	for name, text := range schemas.SampleSchemas() {
		id, _, err := r.RegisterSchema(name, sr.Schema{Schema: text})
		if err != nil {
			t.Fatal(err)
		}
		r.ids = append(r.ids, id)
	}
	r.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
		r.asked.Add(1)
		illness := r.illness.Load()
		if illness != nil {
			(*illness)(w, req)
		}
		return illness != nil
	})
	return r
}

func (r *ill) fall(illness http.HandlerFunc) { r.illness.Store(&illness) }
func (r *ill) heal()                         { r.illness.Store(nil) }

func (r *ill) host(t *testing.T, log *lines, firstLoad time.Duration) *Host {
	cfg := config(t)
	cfg.Connect.Registry.URLs = []string{r.URL()}
	cfg.FirstLoad = firstLoad
	cfg.Log = process.Logger(log, "info", "text")
	h, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.End(nil)
		if err := h.Wait(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// known is how many of its schemas a client knows.
func (r *ill) known(c *registry.Client) (n int) {
	for _, id := range r.ids {
		switch _, state := c.ByID(id); state.Answer {
		case registry.Known:
			n++
		case registry.Absent:
			return -1 // a "no" that nobody has said
		}
	}
	return n
}

func loadedIs(t *testing.T, h *Host, want float64) bool {
	t.Helper()
	families, err := h.Metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "spillway_registry_loaded" {
			return f.GetMetric()[0].GetGauge().GetValue() == want
		}
	}
	return false
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// refuses answers 500, silent nothing.
func refuses(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
func silent(_ http.ResponseWriter, r *http.Request)  { <-r.Context().Done() }

// TestWaitsForTheSchemas: a role whose registry is ill when it starts waits, says
// so, and begins with every schema known.
func TestWaitsForTheSchemas(t *testing.T) {
	r := newIll(t)
	r.fall(refuses)
	h := r.host(t, &lines{}, 20*time.Second)
	got := make(chan *registry.Client, 1)
	go func() {
		c, err := h.Registry()
		if err != nil {
			t.Error(err)
		}
		got <- c
	}()
	within(t, "it asks three times", func() bool { return r.asked.Load() >= 3 })
	if ready := h.Admin.Ready(); !slices.ContainsFunc(ready, func(line string) bool {
		return strings.HasPrefix(line, "registry: loads the schemas: ") && strings.Contains(line, "answered 500")
	}) {
		t.Errorf("ready says %q", ready)
	}
	select {
	case <-got:
		t.Fatal("it begins without any schema")
	default:
	}
	r.heal()
	c := <-got
	if n := r.known(c); n != len(r.ids) || !loadedIs(t, h, 1) {
		t.Errorf("%d of %d schemas known", n, len(r.ids))
	}
	if ready := strings.Join(h.Admin.Ready(), "\n"); strings.Contains(ready, "registry:") {
		t.Errorf("ready says %q", ready)
	}
}

// TestBeginsWithoutSchemas: after its time a role begins without what it could
// not load, says so, and has it later without being asked.
func TestBeginsWithoutSchemas(t *testing.T) {
	for name, illness := range map[string]http.HandlerFunc{"500": refuses, "silent": silent} {
		t.Run(name, func(t *testing.T) {
			r := newIll(t)
			r.fall(illness)
			var log lines
			h := r.host(t, &log, 200*time.Millisecond)
			c, err := h.Registry()
			if err != nil {
				t.Fatal(err)
			}
			if n := r.known(c); n != 0 || !loadedIs(t, h, 0) || !strings.Contains(log.String(), "begins without all schemas") {
				t.Errorf("%d schemas known; the log:\n%s", n, log.String())
			}
			if ready := strings.Join(h.Admin.Ready(), "\n"); strings.Contains(ready, "loads the schemas") {
				t.Errorf("ready says %q", ready)
			}
			r.heal()
			within(t, "all schemas are known", func() bool { return r.known(c) == len(r.ids) && loadedIs(t, h, 1) })
			again, err := h.Registry()
			if err != nil || again != c {
				t.Errorf("another client, %v", err)
			}
		})
	}
}

// TestSystemIDsWait: our own ids are asked for until the registry answers.
func TestSystemIDsWait(t *testing.T) {
	r := newIll(t)
	r.fall(refuses)
	var log lines
	h := r.host(t, &log, time.Millisecond)
	ended := make(chan error, 1)
	go func() {
		ids, err := h.SystemIDs()
		if err == nil && ids[schemas.TransitionName] <= 0 {
			t.Errorf("got %v", ids)
		}
		ended <- err
	}()
	within(t, "it begins to ask", func() bool { return strings.Contains(log.String(), "begins without") && r.asked.Load() > 5 })
	r.heal()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestStopsWhileLoading: SIGTERM ends the wait at once.
func TestStopsWhileLoading(t *testing.T) {
	r := newIll(t)
	r.fall(silent)
	cfg := config(t)
	cfg.Connect.Registry.URLs = []string{r.URL()}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Alone(ctx, cfg, Plan{Use: use("spillway.events"), Wire: func(h *Host) error { _, err := h.Registry(); return err }})
	}()
	within(t, "the registry is asked", func() bool { return r.asked.Load() > 0 })
	began := time.Now()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
}
