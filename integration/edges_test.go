//go:build integration

package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestEdges enters Kafka, the registry and ClickHouse in every way they can
// ask for, with every role and command; and fails to, in every way people
// manage to.
func TestEdges(t *testing.T) {
	t.Parallel() // it has parts of its own, and waits more than it works
	on(t, "containers")
	e := newEdges(t)
	t.Run("through", func(t *testing.T) {
		for _, mechanism := range []string{"plain", "scram-sha-256", "scram-sha-512", "mutual TLS"} {
			t.Run(mechanism, func(t *testing.T) { e.goesThrough(t, mechanism) })
		}
	})
	t.Run("refused", e.testRefused)
	t.Run("taken away", e.testTakenAway)
}

// env is how a mechanism is set, in the variables of a person's shell. The
// password is in a file.
func (e *edges) env(t *testing.T, mechanism string) []string {
	t.Helper()
	secret := func(name, text string) string {
		file := filepath.Join(e.data, name)
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	env := []string{
		"SPILLWAY_DATA=" + e.data, "SPILLWAY_KAFKA_BROKERS=" + e.kafka["EDGE"], "SPILLWAY_KAFKA_TLS=true", "SPILLWAY_KAFKA_CA=" + e.ca.file("ca.pem"),
		"SPILLWAY_REGISTRY_URL=" + e.where.Registry, "SPILLWAY_REGISTRY_CA=" + e.ca.file("ca.pem"), "SPILLWAY_REGISTRY_USER=registry",
		"SPILLWAY_REGISTRY_PASSWORD_FILE=" + secret("registry-password", registrySecret),
		"SPILLWAY_CLICKHOUSE_URL=" + e.where.ClickHouse, "SPILLWAY_CLICKHOUSE_CA=" + e.ca.file("ca.pem"),
		"SPILLWAY_CLICKHOUSE_USER=" + clickhouseUser, "SPILLWAY_CLICKHOUSE_PASSWORD_FILE=" + secret("clickhouse-password", clickhousePassword),
		"SPILLWAY_REPLICATION=1", "SPILLWAY_MIN_ISR=1", "SPILLWAY_OPEN=true",
		"SPILLWAY_AUTH_KEYS=" + filepath.Join(e.data, "keys.json"), "SPILLWAY_NODE=node-1",
	}
	if mechanism == "mutual TLS" {
		ours := e.ca.client(t, "ours.pem", "spillway", time.Now().Add(24*time.Hour))
		return append(env, "SPILLWAY_KAFKA_BROKERS="+e.kafka["MUTUAL"], "SPILLWAY_KAFKA_CERT="+ours, "SPILLWAY_KAFKA_KEY="+ours)
	}
	return append(env, "SPILLWAY_KAFKA_SASL="+mechanism, "SPILLWAY_KAFKA_USER=spillway", "SPILLWAY_KAFKA_PASSWORD_FILE="+secret("kafka-password", kafkaSecret))
}

// call runs the binary and returns all it printed and its exit status.
func (e *edges) call(t *testing.T, env []string, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, e.bin, args...)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Error(err)
	}
	e.secretsIn(t, strings.Join(args, " "), out.String())
	return out.String(), cmd.ProcessState.ExitCode()
}

func (e *edges) must(t *testing.T, env []string, args ...string) string {
	t.Helper()
	out, code := e.call(t, env, args...)
	if code != 0 {
		t.Fatalf("spillway %s: exit status %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// secretsIn fails if a secret is in a text.
func (e *edges) secretsIn(t *testing.T, what, text string) {
	t.Helper()
	for _, secret := range []string{kafkaSecret, registrySecret, clickhousePassword} {
		if regexp.MustCompile(`\b` + secret).MatchString(text) { // --kafka-password has "a-password" in it
			t.Errorf("%s shows %s", what, secret)
		}
	}
}

// goesThrough sets the deployment up, starts every role and follows one event
// from HTTP to a socket and to ClickHouse, all of them by one mechanism.
func (e *edges) goesThrough(t *testing.T, mechanism string) {
	env := e.env(t, mechanism)
	e.must(t, env, "setup")
	where := e.where
	procs, err := usualRoles(&where)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		out := e.must(t, env, append(append([]string{}, p.args...), "--check")...)
		if !strings.Contains(out, "kafka: ") || !strings.Contains(out, ": ok") {
			t.Errorf("%s --check: %s", p.name, out)
		}
	}
	roles := newRoleSet(e.data, where, procs)
	roles.env = append(roles.env, env...)
	if err := errors.Join(writePlaces(e.data, where), roles.run()); err != nil {
		t.Fatal(errors.Join(err, roles.stop()))
	}
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			if err := roles.stop(); err != nil {
				t.Error(err)
			}
		}
	}
	defer stop()
	e.must(t, env, "schemas", "register", "../schemas/demo.message.avsc")
	channel := "edge." + strings.ReplaceAll(mechanism, " ", "-")
	e.must(t, env, "pub", "acme", channel, `{"text":"let in"}`, "--id", channel)
	if out := e.must(t, env, "sub", "acme", channel, "--from", "begin", "--count", "1", "--timeout", "30s"); !strings.Contains(out, "let in") {
		t.Errorf("sub: %s", out)
	}
	var story string
	eventually(t, "the story is in ClickHouse", func() bool {
		var code int
		story, code = e.call(t, env, "explain", channel, "--source", "clickhouse")
		return code == 0
	}, func() string { return story })
	e.must(t, env, "explain", channel, "--source", "kafka")
	for _, p := range procs {
		e.looksAround(t, p)
	}
	stop()
	for _, p := range procs {
		e.secretsIn(t, "log of "+p.name, p.out.String())
	}
}

// looksAround asks a role for all that it shows.
func (e *edges) looksAround(t *testing.T, p *proc) {
	t.Helper()
	for _, path := range []string{"/readyz", "/metrics", "/version", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2"} {
		resp, err := http.Get(web(p.admin) + path)
		if err != nil {
			t.Error(err)
			continue
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Error(err)
		}
		e.secretsIn(t, p.name+path, string(text))
	}
	out, _ := e.call(t, []string{"SPILLWAY_KAFKA_PASSWORD=" + kafkaSecret, "SPILLWAY_REGISTRY_PASSWORD=" + registrySecret, "SPILLWAY_CLICKHOUSE_PASSWORD=" + clickhousePassword}, p.args[0], "--help")
	if !strings.Contains(out, "--kafka-password") {
		t.Errorf("%s --help: %s", p.name, out)
	}
}

// testRefused starts every role in ways that cannot work. Each must end within
// 20 s with exit status 1 and one line that names the setting.
func (e *edges) testRefused(t *testing.T) {
	good, mutual := e.env(t, "scram-sha-512"), e.env(t, "mutual TLS")
	if out, code := e.call(t, good, "setup", "--check"); code != 0 {
		e.must(t, good, "setup")
		t.Log(out)
	}
	other := newSigner(t, "another CA")
	late := e.ca.client(t, "late.pem", "spillway", time.Now().Add(-time.Hour))
	foreign := other.client(t, "foreign.pem", "spillway", time.Now().Add(time.Hour))
	roles := []string{"control", "audit", "fanout", "delay", "route", "ingest"}
	all := append(roles[:6:6], "setup")
	registry := []string{"control", "audit", "fanout", "route", "ingest", "setup"}
	for _, c := range []struct {
		name  string
		env   []string
		more  []string
		roles []string
		want  []string
	}{
		{"wrong password", good, []string{"SPILLWAY_KAFKA_PASSWORD_FILE=", "SPILLWAY_KAFKA_PASSWORD=guess"}, all, []string{"--kafka-user/--kafka-password: ", `"spillway"`}},
		{"wrong password, plain", e.env(t, "plain"), []string{"SPILLWAY_KAFKA_PASSWORD_FILE=", "SPILLWAY_KAFKA_PASSWORD=guess"}, all, []string{"--kafka-user/--kafka-password: "}},
		{"no SASL", good, []string{"SPILLWAY_KAFKA_SASL=none", "SPILLWAY_KAFKA_USER=", "SPILLWAY_KAFKA_PASSWORD_FILE="}, all, []string{"--kafka-sasl: "}},
		{"SASL where there is none", mutual, []string{"SPILLWAY_KAFKA_SASL=plain", "SPILLWAY_KAFKA_USER=spillway", "SPILLWAY_KAFKA_PASSWORD=x"}, all, []string{"--kafka-sasl: "}},
		{"plaintext client on a TLS port", good, []string{"SPILLWAY_KAFKA_TLS=false", "SPILLWAY_KAFKA_CA="}, all, []string{"--kafka-tls: "}},
		{"unknown CA", good, []string{"SPILLWAY_KAFKA_CA=" + other.file("ca.pem")}, all, []string{"--kafka-ca: ", other.file("ca.pem")}},
		{"system's CAs", good, []string{"SPILLWAY_KAFKA_CA="}, all, []string{"--kafka-ca: ", "signed by none whom this system trusts"}},
		{"expired certificate of Kafka", mutual, []string{"SPILLWAY_KAFKA_BROKERS=" + e.kafka["EXPIRED"]}, all, []string{"--kafka-brokers: ", `"kafka.test"`, "expired at 20"}},
		{"expired certificate of ours", mutual, []string{"SPILLWAY_KAFKA_CERT=" + late, "SPILLWAY_KAFKA_KEY=" + late}, all, []string{"--kafka-cert: ", `"spillway"`, "expired at 20"}},
		{"certificate of another CA", mutual, []string{"SPILLWAY_KAFKA_CERT=" + foreign, "SPILLWAY_KAFKA_KEY=" + foreign}, all, []string{"--kafka-cert: "}},
		{"no certificate", mutual, []string{"SPILLWAY_KAFKA_CERT=", "SPILLWAY_KAFKA_KEY="}, all, []string{"--kafka-cert: "}},
		{"missing ACL", e.env(t, "plain"), []string{"SPILLWAY_KAFKA_USER=" + limited}, roles, []string{"--kafka-user: ", "User:" + limited, "READ", "on topic spillway.control"}},
		{"missing ACL to create topics", e.env(t, "plain"), []string{"SPILLWAY_KAFKA_USER=" + limited, "SPILLWAY_TOPIC_PREFIX=fresh."}, []string{"setup"}, []string{"--kafka-user: ", "User:" + limited, "CREATE", "on topic fresh.events"}},
		{"missing ACL of a group", e.env(t, "plain"), []string{"SPILLWAY_KAFKA_USER=" + limited}, []string{"delay", "route", "audit"}, []string{"on group spillway."}},
		{"missing ACL of a transactional id", e.env(t, "plain"), []string{"SPILLWAY_KAFKA_USER=" + limited}, []string{"control", "route"}, []string{"on transactional id spillway."}},
		{"wrong password of the registry", good, []string{"SPILLWAY_REGISTRY_PASSWORD_FILE=", "SPILLWAY_REGISTRY_PASSWORD=guess"}, registry, []string{"--registry-user/--registry-password: ", "401"}},
		{"unknown CA of the registry", good, []string{"SPILLWAY_REGISTRY_CA="}, registry, []string{"--registry-ca: ", "signed by none whom this system trusts"}},
		{"wrong password of ClickHouse", good, []string{"SPILLWAY_CLICKHOUSE_PASSWORD_FILE=", "SPILLWAY_CLICKHOUSE_PASSWORD=guess"}, []string{"audit", "setup"}, []string{"--clickhouse-user/--clickhouse-password: "}},
		{"unknown CA of ClickHouse", good, []string{"SPILLWAY_CLICKHOUSE_CA="}, []string{"audit", "setup"}, []string{"--clickhouse-ca: ", "signed by none whom this system trusts"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var done sync.WaitGroup
			for _, role := range c.roles {
				done.Go(func() { e.refused(t, slices.Concat(c.env, c.more), role, c.want) })
			}
			done.Wait()
		})
	}
}

func (e *edges) refused(t *testing.T, env []string, role string, want []string) {
	args := []string{role}
	if role != "setup" {
		args = append(args, "--admin-listen", "127.0.0.1:0")
	}
	began := time.Now()
	out, code := e.call(t, env, args...)
	took := time.Since(began)
	var last []string
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "spillway: ") {
			last = append(last, strings.TrimSpace(line))
		}
	}
	if code != 1 || len(last) != 1 || took > 20*time.Second {
		t.Errorf("%s: exit status %d after %s, want 1 within 20 s and one line:\n%s", role, code, took, out)
		return
	}
	for _, w := range want {
		if !strings.Contains(last[0], w) {
			t.Errorf("%s: want %q in: %s", role, w, last[0])
		}
	}
	if !strings.HasSuffix(strings.TrimSpace(out), last[0]) {
		t.Errorf("%s: the reason is not the last line:\n%s", role, out)
	}
	t.Logf("%s, %s: %s", role, took.Round(10*time.Millisecond), last[0])
}

// testTakenAway takes a permission from a role that runs: /readyz says so, the
// log says so once, and all is well again when it is given back.
func (e *edges) testTakenAway(t *testing.T) {
	env := e.env(t, "scram-sha-256")
	ports, err := freePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	p := &proc{name: "ingest", admin: ports[0], args: []string{"ingest", "--listen", local(ports[1])}}
	roles := newRoleSet(e.data, e.where, []*proc{p})
	roles.env = append(roles.env, env...)
	if err := roles.run(); err != nil {
		t.Fatal(errors.Join(err, roles.stop()))
	}
	defer func() {
		if err := roles.stop(); err != nil {
			t.Error(err)
		}
	}()
	ctx := t.Context()
	deny := kadm.NewACLs().Deny("User:spillway").DenyHosts("*").ResourcePatternType(kmsg.ACLResourcePatternTypeLiteral).Topics("spillway.events").Operations(kmsg.ACLOperationWrite)
	e.allow(ctx, t, deny)
	reason := func() string {
		out, _ := e.call(t, nil, "ready", fmt.Sprintf("%s/readyz", web(p.admin)))
		return out
	}
	within(t, 45*time.Second, "/readyz names what is missing", func() bool {
		return strings.Contains(reason(), "WRITE on topic spillway.events")
	}, reason)
	if _, err := e.admin.DeleteACLs(ctx, deny); err != nil {
		t.Fatal(err)
	}
	within(t, 45*time.Second, "it is ready again", func() bool { return reason() == "ok\n" }, reason)
	if n := strings.Count(p.out.String(), "a part refuses us"); n != 1 {
		t.Errorf("the log says it %d times, want once:\n%s", n, p.out.String())
	}
}
