//go:build integration

package integration

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// playing is a load run in the background.
type playing struct {
	out  bytes.Buffer
	done chan error
}

// play starts a load that tolerates what a restart without durable memory of
// route may double, and nothing else.
func (s *stack) play(t *testing.T, args ...string) *playing {
	t.Helper()
	p := &playing{done: make(chan error, 1)}
	cmd := exec.CommandContext(t.Context(), s.bin, append([]string{
		"load", "--trace", "load/testdata/azure_llm_inference_conv_2023.csv", "--restarts", "--tenants", "5",
	}, args...)...)
	cmd.Env = append(os.Environ(), "SPILLWAY_DATA="+s.data)
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- cmd.Wait() }()
	return p
}

func (p *playing) wait(t *testing.T) {
	t.Helper()
	if err := <-p.done; err != nil {
		t.Errorf("load: %v\n%s", err, p.out.String())
		return
	}
	t.Log(tail(p.out.String()))
}

// after waits for a moment of a run.
func after(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// TestRestartUnderLoad stops all of dev politely in the middle of a run and
// starts it again: producers try again, subscribers resume by cursor, nothing
// is lost.
func TestRestartUnderLoad(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	s := startDev(t, data, 19000)
	run := s.play(t, "--speed", "2", "--duration", "25s", "--no-noisy")
	after(t, 12*time.Second)
	s.stop(t)
	startDev(t, data, 19000)
	run.wait(t)
}

// A proc is a role as a process of its own.
type proc struct {
	name string
	args []string
	cmd  *exec.Cmd
	out  bytes.Buffer
}

func (s *stack) startRole(t *testing.T, p *proc, admin int) {
	t.Helper()
	p.cmd = exec.Command(s.bin, append([]string{p.name, "--admin-listen", fmt.Sprintf("127.0.0.1:%d", admin)}, p.args...)...)
	p.cmd.Env = append(os.Environ(),
		fmt.Sprintf("SPILLWAY_KAFKA_BROKERS=127.0.0.1:%d", s.port(9092)), "SPILLWAY_REGISTRY_URL="+s.url(8081, ""),
		"SPILLWAY_AUTH_KEYS="+filepath.Join(s.data, "keys.json"), "SPILLWAY_NODE=node-1")
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, p.name+" is ready", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/readyz", admin), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// TestKillEachRole runs the roles as processes against the embedded broker and
// kills them with SIGKILL, one after the other, under load: nothing is lost.
func TestKillEachRole(t *testing.T) {
	s := startDev(t, filepath.Join(t.TempDir(), "data"), 20000, "--no-roles")
	s.engineUp(t)
	local := func(usual int) string { return fmt.Sprintf("127.0.0.1:%d", s.port(usual)) }
	roles := []*proc{
		{name: "control", args: []string{"--listen", local(8070), "--open"}},
		{name: "route"},
		{name: "delay"},
		{name: "fanout", args: []string{"--listen", local(8090), "--ingest-url", s.url(8080, ""), "--drain-timeout", "1s"}},
		{name: "audit", args: []string{"--listen", local(8060), "--clickhouse-url", s.url(8123, ""), "--migrate"}},
		{name: "ingest", args: []string{"--listen", local(8080)}},
	}
	for i, p := range roles {
		s.startRole(t, p, 20200+i)
	}
	t.Cleanup(func() {
		for _, p := range roles {
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
		}
		for _, p := range roles {
			if err := p.cmd.Wait(); err != nil {
				t.Errorf("%s ended with %v\n%s", p.name, err, tail(p.out.String()))
			}
		}
	})
	kill := func(i int) {
		after(t, 4*time.Second)
		p := roles[i]
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		began := time.Now()
		s.startRole(t, p, 20200+i)
		t.Logf("%s killed, ready again after %s", p.name, time.Since(began))
	}
	run := s.play(t, "--speed", "1", "--duration", "35s", "--no-noisy")
	for i := range roles {
		kill(i)
	}
	run.wait(t)
	// What route remembers of a tenant that waits is not durable yet; the others
	// are killed with a tenant in overflow too, and ClickHouse must have it all.
	s.run(t, "", "apply", "-f", noisyTenant(t))
	file := filepath.Join(t.TempDir(), "report.json")
	run = s.play(t, "--speed", "1", "--duration", "18s", "--report", file)
	for _, i := range []int{2, 4, 3, 4, 2} {
		kill(i)
	}
	run.wait(t)
	s.agree(t, file, "--lost-receipts", "1500")
}

// noisyTenant is the demo tenant that dev makes when it runs the roles itself.
func noisyTenant(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "noisy.yaml")
	if err := os.WriteFile(file, []byte("kind: tenant\nname: noisy\nspec:\n  fast: {rate: 100}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// engineUp waits until the embedded ClickHouse answers.
func (s *stack) engineUp(t *testing.T) {
	t.Helper()
	for range 300 {
		if s.query(t, "SELECT 1") == "1" {
			return
		}
		after(t, time.Second)
	}
	t.Fatalf("no ClickHouse\n%s", strings.TrimSpace(tail(s.output())))
}
