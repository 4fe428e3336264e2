package boot

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/spillway/spillway/control/connect"
	"github.com/spillway/spillway/control/keys"
	"github.com/spillway/spillway/control/process"
	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/registry"
)

// lines is a log that may be read while it is written.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func config(t *testing.T) Config {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "spillway.events"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return Config{
		Connect: connect.Config{Kafka: connect.Kafka{Brokers: cluster.ListenAddrs()}}, Topics: schemas.Topics{Prefix: schemas.DefaultPrefix},
		AdminListen: "127.0.0.1:0", Node: "node-1", Log: process.Logger(&lines{}, "info", "text"), Now: time.Now,
	}
}

func use(topic string) connect.Use {
	return connect.Use{Kafka: true, Needs: []connect.Need{connect.Topic(topic, connect.Read)}}
}

func TestCheckOnly(t *testing.T) {
	var out strings.Builder
	wire := func(*Host) error { return errors.New("is not wired when only checked") }
	if err := Alone(t.Context(), config(t), Plan{Use: use("spillway.events"), Wire: wire, Check: &out}); err != nil || !strings.Contains(out.String(), ": ok\n") {
		t.Errorf("got %v, %s", err, out.String())
	}
	err := Alone(t.Context(), config(t), Plan{Use: use("spillway.nowhere"), Wire: wire, Check: &out})
	if err == nil || !strings.Contains(err.Error(), "spillway.nowhere; run spillway setup") {
		t.Errorf("a missing topic: %v", err)
	}
}

func TestBeginsOnlyWhenItCan(t *testing.T) {
	wire := func(*Host) error { return errors.New("out of luck") }
	if err := Alone(t.Context(), config(t), Plan{Use: use("spillway.events"), Wire: wire}); err == nil || err.Error() != "out of luck" {
		t.Errorf("the wiring's error: %v", err)
	}
	cfg := config(t)
	cfg.Connect.Kafka.TLS = true
	cfg.Connect.Kafka.Files.CA = "/nowhere.pem"
	if err := Alone(t.Context(), cfg, Plan{Wire: wire}); err == nil || !strings.HasPrefix(err.Error(), "--kafka-ca: ") {
		t.Errorf("a file that is not there: %v", err)
	}
	cfg = config(t)
	cfg.AdminListen = "0.0.0.0:0"
	if err := Alone(t.Context(), cfg, Plan{Wire: wire}); err == nil || !strings.HasPrefix(err.Error(), "--admin-listen 0.0.0.0:0: ") {
		t.Errorf("an open admin port without keys: %v", err)
	}
}

// TestStopsWhileBeginning is SIGTERM while Kafka is waited for: a clean stop.
func TestStopsWhileBeginning(t *testing.T) {
	cfg := config(t)
	cfg.Connect.Kafka.Brokers = []string{"127.0.0.1:1"}
	var log lines
	cfg.Log = process.Logger(&log, "info", "text")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := Alone(ctx, cfg, Plan{Use: use("spillway.events"), Wire: func(*Host) error { return nil }}); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "trying again"); n != 1 {
		t.Errorf("said %d times that it tries again, want once:\n%s", n, log.String())
	}
}

// TestOperators opens the admin port to others: who has no operator's token is
// told how he is, and nothing else.
func TestOperators(t *testing.T) {
	cfg := config(t)
	cfg.AuthKeys = filepath.Join(t.TempDir(), "keys.json")
	k, err := keys.Generate(rand.Reader, "EdDSA")
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.WriteFile(cfg.AuthKeys, k); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	free.Close()
	cfg.AdminListen = "0.0.0.0:" + port
	ctx, cancel := context.WithCancel(t.Context())
	wired, ended := make(chan *Host, 1), make(chan error, 1)
	go func() {
		ended <- Alone(ctx, cfg, Plan{Use: use("spillway.events"), Wire: func(h *Host) error { wired <- h; return nil }})
	}()
	h := <-wired
	ring, err := h.Keys()
	if err != nil {
		t.Fatal(err)
	}
	token := func(tenant, role string) string {
		text, err := ring.Sign(schemas.Claims{Tenant: tenant, Role: role, Subject: "test", ExpiresAt: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for _, c := range []struct {
		path, token string
		code        int
	}{
		{"/healthz", "", 200}, {"/metrics", "", 401}, {"/metrics", token("acme", schemas.RoleProducer), 403}, {"/metrics", token(schemas.Everyone, schemas.RoleOperator), 200},
	} {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+port+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.token != "" {
			r.Header.Set("Authorization", "Bearer "+c.token)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.code {
			t.Errorf("%s: %d, want %d", c.path, resp.StatusCode, c.code)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	http.DefaultClient.CloseIdleConnections()
}

// running is a log that tells when the process says that it runs.
type running struct {
	once    sync.Once
	running chan struct{} // closed then
}

func (r *running) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "msg=running") {
		r.once.Do(func() { close(r.running) })
	}
	return len(p), nil
}

// TestRegistryGoesAway: who can do without it stays ready and says what is
// missed, or a load balancer would take all nodes out at once.
func TestRegistryGoesAway(t *testing.T) {
	for name, c := range map[string]struct {
		spare bool
		code  int
		want  string
	}{
		"can do without": {true, 200, "ok\ndegraded: registry: "},
		"needs it":       {false, 503, "registry: "},
	} {
		t.Run(name, func(t *testing.T) {
			var away atomic.Bool
			reg := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if away.Load() {
					w.WriteHeader(http.StatusInternalServerError)
				}
				_, _ = w.Write([]byte("[]"))
			}))
			defer reg.Close()
			cfg := config(t)
			cfg.Connect.Registry.URLs = []string{reg.URL}
			log := &running{running: make(chan struct{})}
			cfg.Log = process.Logger(log, "info", "text")
			plan := Plan{Use: use("spillway.events")}
			plan.Use.Registry, plan.Use.Spare = true, c.spare
			var h *Host
			var client *registry.Client
			plan.Wire = func(host *Host) (err error) {
				h = host
				client, err = h.Registry()
				return err
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- Alone(ctx, cfg, plan) }()
			<-log.running
			readyz := func() (int, string) {
				w := httptest.NewRecorder()
				h.Admin.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
				return w.Code, w.Body.String()
			}
			if code, text := readyz(); code != 200 || text != "ok\n" {
				t.Errorf("with a registry: %d %q", code, text)
			}
			away.Store(true)
			if _, err := client.Latest(t.Context(), "demo.Unknown"); err == nil {
				t.Fatal("a schema from a registry that is away")
			}
			if code, text := readyz(); code != c.code || !strings.HasPrefix(text, c.want) {
				t.Errorf("without: %d %q, want %d %q", code, text, c.code, c.want)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}
