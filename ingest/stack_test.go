package ingest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	cryptorand "crypto/rand"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/control/keys"
	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/codec"
	"github.com/spillway/spillway/schemas/registry"
)

// fakeSchemas is a registry in memory.
type fakeSchemas struct {
	mu     sync.Mutex
	byID   map[int]*registry.Schema
	latest map[string]*registry.Schema // what Latest knows; LatestNow looks into now
	now    map[string]*registry.Schema
	down   bool
}

func (f *fakeSchemas) add(t testing.TB, text string) *registry.Schema {
	t.Helper()
	c, err := codec.Compile(text)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &registry.Schema{ID: len(f.byID) + 1, Name: c.Name(), Text: text, Codec: c}
	f.byID[s.ID] = s
	f.now[s.Name] = s
	if f.latest[s.Name] == nil {
		f.latest[s.Name] = s
	}
	return s
}

func (f *fakeSchemas) find(m map[string]*registry.Schema, name string) (*registry.Schema, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch s := m[name]; {
	case f.down:
		return nil, registry.ErrUnavailable
	case s == nil:
		return nil, registry.ErrAbsent
	default:
		return s, nil
	}
}

func (f *fakeSchemas) Latest(_ context.Context, name string) (*registry.Schema, error) {
	return f.find(f.latest, name)
}

func (f *fakeSchemas) LatestNow(_ context.Context, name string) (*registry.Schema, error) {
	return f.find(f.now, name)
}

func (f *fakeSchemas) Resolve(_ context.Context, id int) (*registry.Schema, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch s := f.byID[id]; {
	case f.down:
		return nil, registry.ErrUnavailable
	case s == nil:
		return nil, registry.ErrAbsent
	default:
		return s, nil
	}
}

// fakePolicies is a snapshot of control.
type fakePolicies struct {
	tenants map[string]*schemas.Policy
	fresh   time.Time
}

func (f *fakePolicies) Policy(tenant string) (*schemas.Policy, bool) {
	p, ok := f.tenants[tenant]
	return p, ok
}

func (f *fakePolicies) FreshAt() time.Time { return f.fresh }

// line is the network between the producer and Kafka.
type line struct {
	net      kfake.VirtualNetwork
	mute     atomic.Bool // answers of Kafka's are lost
	cut      atomic.Bool // nothing can connect, and what is sent is lost
	requests atomic.Int64
}

type lineConn struct {
	net.Conn
	line *line
}

func (l *line) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if l.cut.Load() {
		return nil, errors.New("connection refused")
	}
	c, err := l.net.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &lineConn{c, l}, nil
}

func (c *lineConn) Write(b []byte) (int, error) {
	if c.line.cut.Load() {
		return len(b), nil
	}
	c.line.requests.Add(1)
	return c.Conn.Write(b)
}

func (c *lineConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.line.mute.Load() {
			return n, err
		}
	}
}

const partitions = 12

// stack is an ingest with everything it needs, in one synctest bubble.
type stack struct {
	t        testing.TB
	in       *Ingest
	cluster  *kfake.Cluster
	line     *line
	http     kfake.VirtualNetwork // where Run listens
	schemas  *fakeSchemas
	policies *fakePolicies
	ring     *keys.Ring
	stop     func() // ends Run and checks that it ended well
}

// start runs an ingest; change may change its configuration first. In a
// bubble the network is virtual.
func start(t testing.TB, change func(*Config)) *stack {
	t.Helper()
	s := &stack{t: t, line: &line{}}
	s.cluster = kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, "spillway.events"), kfake.ListenFn(s.line.net.Listen),
		kfake.BrokerConfigs(map[string]string{"message.max.bytes": "16777216"}))
	s.schemas = &fakeSchemas{byID: map[int]*registry.Schema{}, latest: map[string]*registry.Schema{}, now: map[string]*registry.Schema{}}
	for _, name := range []string{"demo.message", "ai.inference.token_delta"} {
		text, err := os.ReadFile(filepath.Join("..", "schemas", name+".avsc"))
		if err != nil {
			t.Fatal(err)
		}
		s.schemas.add(t, string(text))
	}
	s.policies = &fakePolicies{fresh: time.Now(), tenants: map[string]*schemas.Policy{
		"acme": {}, "globex": {}, "closed": {State: "suspended"}, "small": {Quota: 3},
		"filled": {Types: map[string]schemas.Type{"demo.Message": {ID: "{text}"}}},
	}}
	s.ring = newRing(t)
	listener, err := s.http.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Kafka:  []kgo.Opt{kgo.SeedBrokers(s.cluster.ListenAddrs()...), kgo.Dialer(s.line.dial)},
		Topics: schemas.Topics{Prefix: schemas.DefaultPrefix}, Partitions: partitions, Listener: listener,
		Tokens: s.ring, Policies: s.policies, Schemas: s.schemas,
		Now: time.Now, Random: rand.NewChaCha8([32]byte{1}), Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	if s.in, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.in.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		s.cluster.Close()
	})
	return s
}

func newRing(t testing.TB) *keys.Ring {
	t.Helper()
	key, err := keys.Generate(cryptorand.Reader, "HS256")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := keys.WriteFile(path, key); err != nil {
		t.Fatal(err)
	}
	ring, err := keys.New(keys.Config{File: path, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func (s *stack) token(c schemas.Claims) string {
	s.t.Helper()
	if c.ExpiresAt.IsZero() {
		c.ExpiresAt = time.Now().Add(24 * time.Hour)
	}
	token, err := s.ring.Sign(c)
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

func (s *stack) producer(tenant string) string {
	return s.token(schemas.Claims{Tenant: tenant, Role: schemas.RoleProducer})
}

// a request for the tests: path and query, headers, body.
type call struct {
	method, target, token, body string
	header                      map[string]string
}

// result is an answer, read.
type result struct {
	status int
	header http.Header
	body   string
	Events []struct {
		ID        string
		Partition int32
		Offset    int64
	}
	Error struct {
		Code, Message, Path, Fix, Claim string
		Event                           *int
	}
}

func (s *stack) do(c call) result {
	s.t.Helper()
	if c.method == "" {
		c.method = http.MethodPost
	}
	if c.target == "" {
		c.target = Path
	}
	r := httptest.NewRequest(c.method, c.target, strings.NewReader(c.body))
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	for key, value := range c.header {
		r.Header.Set(key, value)
	}
	return s.serve(r)
}

func (s *stack) serve(r *http.Request) result {
	s.t.Helper()
	w := httptest.NewRecorder()
	s.in.Handler().ServeHTTP(w, r)
	out := result{status: w.Code, header: w.Header(), body: w.Body.String()}
	if r.Method != http.MethodHead {
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
			s.t.Fatalf("%d: the answer is not JSON: %v: %q", w.Code, err, w.Body)
		}
	}
	return out
}

// log reads all of `events`, by partition in order.
func (s *stack) log() map[int32][]*kgo.Record {
	s.t.Helper()
	want := 0
	for _, p := range s.cluster.PartitionInfos("spillway.events") {
		want += int(p.HighWatermark)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.cluster.ListenAddrs()...), kgo.Dialer(s.line.net.DialContext),
		kgo.ConsumeTopics("spillway.events"), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		s.t.Fatal(err)
	}
	defer cl.Close()
	out := map[int32][]*kgo.Record{}
	for n := 0; n < want; {
		fetches := cl.PollFetches(context.Background())
		if err := fetches.Err(); err != nil {
			s.t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			out[r.Partition] = append(out[r.Partition], r)
			n++
		})
	}
	return out
}

// all is the log of `events` in one slice.
func (s *stack) all() (out []*kgo.Record) {
	for _, records := range s.log() {
		out = append(out, records...)
	}
	return out
}

// describe is a record as a line: key, headers but those of every record, and
// its value as JSON.
func (s *stack) describe(r *kgo.Record) string {
	s.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%s", r.Key)
	for _, h := range r.Headers {
		switch h.Key {
		case schemas.HeaderSpecVersion, schemas.HeaderContentType, schemas.HeaderTraceparent:
		default:
			fmt.Fprintf(&b, " %s=%s", h.Key, h.Value)
		}
	}
	id, body, err := codec.ParseHeader(r.Value)
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := s.schemas.byID[id].Codec.AppendJSON(nil, body, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	fmt.Fprintf(&b, " #%d %s", id, text)
	return b.String()
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

func gzipped(t testing.TB, plain string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(plain)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
