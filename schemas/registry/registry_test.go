package registry

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spillway/spillway/schemas/codec"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
)

const message = `{"type":"record","name":"demo.Message","fields":[{"name":"text","type":"string"}]}`
const message2 = `{"type":"record","name":"demo.Message","fields":[{"name":"text","type":"string"},{"name":"n","type":"int","default":0}]}`

// world is a registry that counts requests and can be made to misbehave.
type world struct {
	*srfake.Registry
	requests atomic.Int64
	answer   atomic.Pointer[func(http.ResponseWriter, *http.Request)] // instead of the registry, if set
	mu       sync.Mutex
	now      time.Time
}

func newWorld(t *testing.T) *world {
	w := &world{Registry: srfake.New(), now: time.Unix(1_800_000_000, 0)}
	t.Cleanup(w.Close)
	w.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		w.requests.Add(1)
		if answer := w.answer.Load(); answer != nil {
			(*answer)(rw, r)
			return true
		}
		return false
	})
	return w
}

func (w *world) misbehave(answer func(http.ResponseWriter, *http.Request)) { w.answer.Store(&answer) }
func (w *world) behave()                                                   { w.answer.Store(nil) }

func (w *world) time() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) client(t *testing.T, change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{URLs: []string{w.URL()}, Now: w.time, Topic: "spillway.events", Registerer: prometheus.NewRegistry()}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (w *world) register(t *testing.T, subject, text string) int {
	t.Helper()
	id, _, err := w.RegisterSchema(subject, sr.Schema{Schema: text})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (w *world) wantRequests(t *testing.T, want int64) {
	t.Helper()
	if got := w.requests.Swap(0); got != want {
		t.Errorf("%d requests, want %d", got, want)
	}
}

func wantIs(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("error is %v, want %v", err, target)
	}
}

func TestKnownIDsNeverCall(t *testing.T) {
	w := newWorld(t)
	id := w.register(t, "demo.Message", message)
	c := w.client(t)
	if s, state := c.ByID(id); s != nil || state.Answer != Unknown {
		t.Fatalf("got %v %v", s, state)
	}
	w.wantRequests(t, 0)
	if s, err := c.Resolve(t.Context(), id); err != nil || s.Name != "demo.Message" || s.Codec == nil {
		t.Fatalf("got %+v, %v", s, err)
	}
	w.wantRequests(t, 1)
	w.pass(1000 * time.Hour)
	for range 1000 {
		if s, state := c.ByID(id); s == nil || state.Answer != Known || s.ID != id || s.Text != message {
			t.Fatalf("got %v %v", s, state)
		}
		if _, err := c.Resolve(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if c.Ask(id) {
			t.Fatal("a known id is asked")
		}
	}
	w.wantRequests(t, 0)
}

func TestPreload(t *testing.T) {
	w := newWorld(t)
	id := w.register(t, "demo.Message", message)
	id2 := w.register(t, "demo.Message", message2)
	if err := w.SetCompat("demo.Message", sr.CompatNone); err != nil {
		t.Fatal(err)
	}
	c := w.client(t)
	if err := c.Preload(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.requests.Store(0)
	for want, id := range []int{id, id2} {
		if s, _ := c.ByID(id); s == nil || s.Subject != "demo.Message" || s.Version != want+1 {
			t.Errorf("got %+v", s)
		}
	}
	list, err := c.List(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != id2 || list[0].Version != 2 {
		t.Errorf("got %+v, %v", list, err)
	}
}

func TestAbsent(t *testing.T) {
	w := newWorld(t)
	c := w.client(t)
	began := w.time()
	_, err := c.Resolve(t.Context(), 77)
	wantIs(t, err, ErrAbsent)
	w.wantRequests(t, 1)
	if _, state := c.ByID(77); state.Answer != Absent || !state.Asked.Equal(began) {
		t.Errorf("got %v", state)
	}
	// The "no" is not asked again at once, then at growing intervals below 16 s.
	asked := 0
	for range 160 {
		w.pass(100 * time.Millisecond)
		if _, err := c.Resolve(t.Context(), 77); !errors.Is(err, ErrAbsent) {
			t.Fatal(err)
		}
		if w.requests.Swap(0) > 0 {
			asked++
			if _, state := c.ByID(77); !state.Asked.Equal(w.time()) {
				t.Errorf("asked at %v, state says %v", w.time(), state.Asked)
			}
		}
	}
	if asked != 4 { // after 1, 3, 7 and 15 s
		t.Errorf("asked again %d times in 16 s", asked)
	}
	w.SeedSchema("late", 1, 77, sr.Schema{Schema: message})
	w.pass(maxPause)
	if s, err := c.Resolve(t.Context(), 77); err != nil || s.ID != 77 {
		t.Errorf("got %v, %v", s, err)
	}
	for _, id := range []int{0, -1, 1 << 31} {
		if _, state := c.ByID(id); state.Answer != Absent || c.Ask(id) {
			t.Errorf("%d: got %v", id, state)
		}
		_, err := c.Resolve(t.Context(), id)
		wantIs(t, err, ErrAbsent)
	}
}

func TestSingleFlightAndAsk(t *testing.T) {
	w := newWorld(t)
	id := w.register(t, "demo.Message", message)
	release := make(chan struct{})
	var first sync.Once
	arrived := make(chan struct{})
	handler := w.Handler()
	w.misbehave(func(rw http.ResponseWriter, r *http.Request) {
		first.Do(func() { close(arrived) })
		<-release
		w.behave()
		handler.ServeHTTP(rw, r)
	})
	c := w.client(t)
	if !c.Ask(id) {
		t.Fatal("not asked")
	}
	<-arrived
	if c.Ask(id) {
		t.Error("asked twice")
	}
	if _, state := c.ByID(id); state.Answer != Unknown {
		t.Errorf("got %v", state)
	}
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Resolve(impatient, id)
	wantIs(t, err, context.Canceled)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if s, err := c.Resolve(t.Context(), id); err != nil || s.ID != id {
				t.Errorf("got %v, %v", s, err)
			}
		})
	}
	close(release)
	all.Wait()
	w.wantRequests(t, 2) // one, and its repetition by the test's own handler
}

// TestRandomIDs: ids that nobody registered cannot storm the registry, and
// what they leave behind is bounded.
func TestRandomIDs(t *testing.T) {
	w := newWorld(t)
	c := w.client(t, func(cfg *Config) {
		cfg.PerSecond, cfg.MaxAbsent, cfg.MaxPending, cfg.Timeout = 10, 5, 7, 50*time.Millisecond
	})
	for id := range 20 {
		_, err := c.Resolve(t.Context(), id+1)
		wantIs(t, err, ErrAbsent)
	}
	w.wantRequests(t, 20) // the burst
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for id := range 1000 {
		_, _ = c.Resolve(ctx, id+1000)
		c.Ask(id + 3000)
	}
	c.Close()
	if got := w.requests.Load(); got > 5 {
		t.Errorf("%d requests after the burst", got)
	}
	if len(c.absent) > 5 || len(c.pending) > 7 || len(c.asking) > 0 {
		t.Errorf("%d absent, %d pending, %d being asked", len(c.absent), len(c.pending), len(c.asking))
	}
	_, err := c.Resolve(t.Context(), 99)
	wantIs(t, err, ErrUnavailable)
	_, err = c.Latest(t.Context(), "x")
	wantIs(t, err, ErrUnavailable)
}

// TestRealIDAmongRandom: a queue full of ids that nobody registered does not
// keep a real one unknown.
func TestRealIDAmongRandom(t *testing.T) {
	w := newWorld(t)
	id := w.register(t, "demo.Message", message)
	c := w.client(t, func(cfg *Config) { cfg.PerSecond, cfg.MaxPending = 0.001, 3 })
	for i := range 100 {
		c.Ask(1000 + i)
	}
	c.Ask(id)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		if _, state := c.ByID(id); state.Answer == Known {
			return
		}
	}
	t.Error("the id stays unknown")
}

func TestKnownIsBounded(t *testing.T) {
	w := newWorld(t)
	c := w.client(t, func(cfg *Config) { cfg.MaxSchemas = 3; cfg.MaxText = 4 * len(message) })
	for i := range 10 {
		w.SeedSchema("s", i+1, i+1, sr.Schema{Schema: strings.Replace(message, "text", "text"+string(rune('a'+i)), 1)})
		if _, err := c.Resolve(t.Context(), i+1); err != nil {
			t.Fatal(err)
		}
	}
	size := 0
	for _, s := range c.known {
		size += len(s.Text)
	}
	if len(c.known) != 3 || size != c.textSize || size > 4*len(message) {
		t.Errorf("%d known of %d bytes, counted %d", len(c.known), size, c.textSize)
	}
	if _, state := c.ByID(10); state.Answer != Known {
		t.Errorf("the newest is %v", state)
	}
}

func TestUnsupported(t *testing.T) {
	w := newWorld(t)
	w.SeedSchema("ref", 1, 1, sr.Schema{Schema: message})
	w.SeedSchema("user", 1, 2, sr.Schema{Schema: `{"type":"record","name":"U","fields":[{"name":"m","type":"demo.Message"}]}`,
		References: []sr.SchemaReference{{Name: "demo.Message", Subject: "ref", Version: 1}}})
	w.SeedSchema("json", 1, 3, sr.Schema{Schema: `{"type":"object"}`, Type: sr.TypeJSON})
	w.SeedSchema("scalar", 1, 4, sr.Schema{Schema: `"string"`})
	c := w.client(t)
	for id, words := range map[int]string{2: "references", 3: "not Avro", 4: "not a record"} {
		s, err := c.Resolve(t.Context(), id)
		if err != nil || s.Codec != nil || s.Unsupported == nil || !strings.Contains(s.Unsupported.Error(), words) {
			t.Errorf("%d: got %+v, %v", id, s, err)
			continue
		}
		var e *codec.Error
		if !errors.As(s.Unsupported, &e) || e.Reason != "schema_unsupported" {
			t.Errorf("%d: %v", id, s.Unsupported)
		}
		if s.HasReferences != (id == 2) {
			t.Errorf("%d: HasReferences is %v", id, s.HasReferences)
		}
	}
}

func TestConfig(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no URL":   {},
		"empty":    {URLs: []string{""}},
		"negative": {URLs: []string{"x"}, Timeout: -1},
		"bound":    {URLs: []string{"x"}, MaxAbsent: -1},
		"password": {URLs: []string{"x"}, Password: func() string { return "p" }},
		"scheme":   {URLs: []string{"kafka://x"}},
		"no host":  {URLs: []string{"http://"}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	registerer := prometheus.NewRegistry()
	for range 2 { // two roles of one process share the metrics
		c, err := New(Config{URLs: []string{"x"}, Registerer: registerer})
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}
