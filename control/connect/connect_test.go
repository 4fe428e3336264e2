package connect

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func broker(t *testing.T, opts ...kfake.Opt) []string {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(1, "events", "audit")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()
}

func config(k Kafka) Config {
	return Config{Kafka: k, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
}

// check is Check against Kafka, with the text of its error.
func check(t *testing.T, k Kafka, needs ...Need) string {
	t.Helper()
	c, err := New(config(k))
	if err != nil {
		return err.Error()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := c.Check(ctx, Use{Kafka: true, Needs: needs}); err != nil {
		if _, ok := err.(*Refused); !ok {
			t.Errorf("%v is no *Refused", err)
		}
		return err.Error()
	}
	return ""
}

func expect(t *testing.T, got string, parts ...string) {
	t.Helper()
	if strings.Contains(got, "\n") {
		t.Errorf("more than one line: %s", got)
	}
	if len(parts) == 0 && got != "" {
		t.Errorf("got %s, want no error", got)
	}
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Errorf("got %q, want %q in it", got, part)
		}
	}
}

func TestKafkaLetsUsIn(t *testing.T) {
	ca := newAuthority(t, "test CA")
	cert, key := ca.sign(t, "127.0.0.1", time.Now().Add(time.Hour))
	ours, ourKey := ca.sign(t, "ours", time.Now().Add(time.Hour))
	mechanisms := []string{"none", "plain", "scram-sha-256", "scram-sha-512"}
	for _, sasl := range mechanisms {
		for _, security := range []string{"clear", "tls", "mutual"} {
			t.Run(sasl+" "+security, func(t *testing.T) {
				k := Kafka{SASL: sasl}
				var opts []kfake.Opt
				if sasl != "none" {
					k.User, k.Password.Text = "alice", "wonder"
					opts = append(opts, kfake.EnableSASL(), kfake.Superuser(strings.ToUpper(sasl), "alice", "wonder"))
				}
				switch security {
				case "tls":
					k.TLS, k.Files.CA = true, ca.ca
					opts = append(opts, kfake.TLS(serverTLS(t, cert, key, "")))
				case "mutual":
					k.TLS, k.Files = true, Files{ca.ca, ours, ourKey}
					opts = append(opts, kfake.TLS(serverTLS(t, cert, key, ca.ca)))
				}
				k.Brokers = broker(t, opts...)
				expect(t, check(t, k, Topic("events", Read, Write), Group("g"), Transaction("t")))
			})
		}
	}
}

func TestKafkaRefuses(t *testing.T) {
	ca, other := newAuthority(t, "test CA"), newAuthority(t, "another CA")
	cert, key := ca.sign(t, "127.0.0.1", time.Now().Add(time.Hour))
	foreign, foreignKey := ca.sign(t, "kafka.example", time.Now().Add(time.Hour))
	ours, ourKey := other.sign(t, "ours", time.Now().Add(time.Hour))
	expired, expiredKey := newAuthority(t, "old").sign(t, "ours", time.Now().Add(-time.Hour))
	overTLS := kfake.TLS(serverTLS(t, cert, key, ""))
	old, oldKey := other.sign(t, "127.0.0.1", time.Now().Add(-time.Hour))
	for name, c := range map[string]struct {
		broker []kfake.Opt
		k      Kafka
		want   []string
	}{
		"wrong password": {
			[]kfake.Opt{kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "alice", "wonder")},
			Kafka{SASL: "scram-sha-256", User: "alice", Password: Secret{Text: "secret-guess"}},
			[]string{"--kafka-user/--kafka-password", `"alice"`},
		},
		"wrong password, plain": {
			[]kfake.Opt{kfake.EnableSASL(), kfake.Superuser("PLAIN", "alice", "wonder")},
			Kafka{SASL: "plain", User: "alice", Password: Secret{Text: "secret-guess"}},
			[]string{"--kafka-user/--kafka-password", `"alice"`},
		},
		"no such mechanism": {
			[]kfake.Opt{kfake.EnableSASL(), kfake.Superuser("PLAIN", "alice", "wonder")},
			Kafka{SASL: "gssapi", User: "alice", Password: Secret{Text: "wonder"}},
			[]string{"--kafka-sasl", "gssapi", "scram-sha-512"},
		},
		"unknown CA":  {[]kfake.Opt{overTLS}, Kafka{TLS: true}, []string{"--kafka-ca", "127.0.0.1", "unknown authority"}},
		"another CA":  {[]kfake.Opt{overTLS}, Kafka{TLS: true, Files: Files{CA: other.ca}}, []string{"--kafka-ca", other.ca}},
		"TLS missing": {[]kfake.Opt{overTLS}, Kafka{}, []string{"--kafka-tls", "off"}},
		"wrong name": {
			[]kfake.Opt{kfake.TLS(serverTLS(t, foreign, foreignKey, ""))}, Kafka{TLS: true, Files: Files{CA: ca.ca}},
			[]string{"--kafka-brokers", "127.0.0.1", "not for that name"},
		},
		"expired at the broker": {
			[]kfake.Opt{kfake.TLS(serverTLS(t, old, oldKey, ""))}, Kafka{TLS: true, Files: Files{CA: other.ca}},
			[]string{"--kafka-brokers", `"127.0.0.1"`, "expired at 20"},
		},
		"our expired one": {nil, Kafka{TLS: true, Files: Files{Cert: expired, Key: expiredKey}}, []string{"--kafka-cert", "expired at 20"}},
		"our certificate": {
			[]kfake.Opt{kfake.TLS(serverTLS(t, cert, key, ca.ca))}, Kafka{TLS: true, Files: Files{ca.ca, ours, ourKey}},
			[]string{"--kafka-cert", "refused our certificate"},
		},
		"a certificate is wanted": {
			[]kfake.Opt{kfake.TLS(serverTLS(t, cert, key, ca.ca))}, Kafka{TLS: true, Files: Files{CA: ca.ca}},
			[]string{"--kafka-cert", "wants a certificate"},
		},
		"key of another":      {nil, Kafka{TLS: true, Files: Files{Cert: ours, Key: foreignKey}}, []string{"--kafka-key", "does not go with"}},
		"no such file":        {nil, Kafka{TLS: true, Files: Files{CA: "/nowhere.pem"}}, []string{"--kafka-ca", "/nowhere.pem"}},
		"files, but no TLS":   {nil, Kafka{Files: Files{CA: ca.ca}}, []string{"--kafka-tls"}},
		"password, no SASL":   {nil, Kafka{Password: Secret{Text: "x"}}, []string{"--kafka-sasl"}},
		"user is missing":     {nil, Kafka{SASL: "plain", Password: Secret{Text: "x"}}, []string{"--kafka-user"}},
		"password is missing": {nil, Kafka{SASL: "plain", User: "alice"}, []string{"--kafka-password"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.k.Brokers = []string{"127.0.0.1:1"}
			if c.broker != nil {
				c.k.Brokers = broker(t, c.broker...)
			}
			got := check(t, c.k)
			expect(t, got, c.want...)
			if strings.Contains(got, "secret-guess") {
				t.Errorf("the password is shown: %s", got)
			}
		})
	}
}

func TestKafkaACLs(t *testing.T) {
	addrs := broker(t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.User("PLAIN", "alice", "wonder",
		kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: "events", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationRead, Allow: true}))
	k := Kafka{Brokers: addrs, SASL: "plain", User: "alice", Password: Secret{Text: "wonder"}}
	expect(t, check(t, k, Topic("events", Read)))
	expect(t, check(t, k, Topic("events", Read, Write), Topic("audit", Read), Group("g")),
		"--kafka-user: ", "User:alice", "READ and WRITE on topic events", "READ on topic audit", "READ on group g")
}

// TestRotation replaces the password and the CA under a running process.
func TestRotation(t *testing.T) {
	ca := newAuthority(t, "test CA")
	cert, key := ca.sign(t, "127.0.0.1", time.Now().Add(time.Hour))
	addrs := broker(t, kfake.TLS(serverTLS(t, cert, key, "")), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "alice", "new"))
	dir := t.TempDir()
	password, roots := filepath.Join(dir, "password"), filepath.Join(dir, "ca.pem")
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(file string) string {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	write(password, "old\n")
	write(roots, read(newAuthority(t, "another").ca)+"\n# the old one\n")
	c, err := New(config(Kafka{Brokers: addrs, TLS: true, Files: Files{CA: roots}, SASL: "scram-sha-512", User: "alice", Password: Secret{File: password}}))
	if err != nil {
		t.Fatal(err)
	}
	tick := make(chan time.Time)
	w := c.Watch(Use{Kafka: true})
	w.tick = tick
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()
	look := func() string { // the second tick is taken when the first one's look is over
		tick <- time.Now()
		tick <- time.Now()
		if err := w.Ready(); err != nil {
			return err.Error()
		}
		return ""
	}
	expect(t, look(), "Kafka: --kafka-ca")
	write(roots, read(ca.ca))
	expect(t, look(), "Kafka: --kafka-user/--kafka-password")
	write(password, "new\n")
	expect(t, look())
	write(roots, "garbage")
	expect(t, look(), "--kafka-ca", "holds no certificate")
	if err := c.Reload(); err == nil {
		t.Error("Reload of garbage is no error")
	}
	expect(t, check(t, Kafka{Brokers: addrs, TLS: true, Files: Files{CA: ca.ca}, SASL: "scram-sha-512", User: "alice", Password: Secret{File: password}}))
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWeb(t *testing.T) {
	ca := newAuthority(t, "test CA")
	cert, key := ca.sign(t, "127.0.0.1", time.Now().Add(time.Hour))
	ours, ourKey := ca.sign(t, "ours", time.Now().Add(time.Hour))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if r.Header.Get("X-ClickHouse-User") != "" {
			user, password = r.Header.Get("X-ClickHouse-User"), r.Header.Get("X-ClickHouse-Key")
		}
		switch {
		case user != "alice" || password != "wonder":
			http.Error(w, "Code: 516. Authentication failed", http.StatusUnauthorized)
		case r.URL.Path == "/subjects":
			_, _ = w.Write([]byte("[]"))
		case r.Method == http.MethodPost:
			_, _ = w.Write([]byte("1\n"))
		default:
			http.NotFound(w, r)
		}
	}))
	server.TLS = serverTLS(t, cert, key, ca.ca)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	server.StartTLS()
	defer server.Close()
	ok := Files{ca.ca, ours, ourKey}
	for name, c := range map[string]struct {
		web  Web
		want []string
	}{
		"all is well":         {Web{Files: ok, User: "alice", Password: Secret{Text: "wonder"}}, nil},
		"user in the address": {Web{URLs: []string{strings.Replace(server.URL, "//", "//alice:wonder@", 1)}, Files: ok}, nil},
		"wrong password":      {Web{Files: ok, User: "alice", Password: Secret{Text: "guess"}}, []string{"-user/--", `"alice"`, "401"}},
		"unknown CA":          {Web{Files: Files{Cert: ours, Key: ourKey}, User: "alice"}, []string{"-ca"}},
		"no certificate":      {Web{Files: Files{CA: ca.ca}, User: "alice"}, []string{"-cert", "wants a certificate"}},
	} {
		for _, part := range []string{"registry", "clickhouse"} {
			t.Run(name+" "+part, func(t *testing.T) {
				if c.web.URLs == nil {
					c.web.URLs = []string{server.URL}
				}
				cfg := config(Kafka{})
				use := Use{Registry: part == "registry", ClickHouse: part == "clickhouse", Later: true}
				if cfg.Registry = c.web; part == "clickhouse" {
					cfg.Registry, cfg.ClickHouse = Web{}, c.web
				}
				connections, err := New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				got := ""
				if err := connections.Check(t.Context(), use); err != nil {
					got = err.Error()
				}
				want := c.want
				if want != nil {
					want = append([]string{"--" + part}, want...)
				}
				expect(t, got, want...)
			})
		}
	}
}

// TestAway gives up on what does not answer when its time is over, and names
// the address.
func TestAway(t *testing.T) {
	c, err := New(config(Kafka{Brokers: []string{"127.0.0.1:1"}}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err = c.Check(ctx, Use{Kafka: true})
	if err == nil {
		t.Fatal("no error")
	}
	expect(t, err.Error(), "--kafka-brokers", "127.0.0.1:1", "refused")
}

// TestOneBrokerIsSilent checks against three brokers of which one takes
// connections and never says a word, as a machine does that is stuck.
func TestOneBrokerIsSilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addrs := append([]string{l.Addr().String()}, broker(t)...)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := New(config(Kafka{Brokers: addrs}))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(ctx, Use{Kafka: true, Needs: []Need{Topic("events", Read), Group("g"), Transaction("t")}}); err != nil {
		t.Error(err)
	}
}

func TestSecretIsNotPrinted(t *testing.T) {
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "secret", Secret{Text: "wonder"})
	if strings.Contains(b.String(), "wonder") {
		t.Error(b.String())
	}
}
