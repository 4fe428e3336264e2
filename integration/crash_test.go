//go:build integration

package integration

import (
	"path/filepath"
	"testing"
	"time"
)

// TestRestartUnderLoad stops all of dev politely in the middle of a run and
// starts it again: producers try again, subscribers resume by cursor, nothing
// is lost.
func TestRestartUnderLoad(t *testing.T) {
	t.Parallel() // it has parts of its own, and waits more than it works
	on(t, "dev")
	s := own(t, "dev", func(data string) (stack, error) { return newDev(data, devConfig{base: 19000}) })
	run := s.play(t, "--speed", "2", "--duration", "25s", "--no-noisy")
	after(t, 12*time.Second)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.stack.(*devStack).start(); err != nil {
		t.Fatal(err)
	}
	run.wait(t)
}

// TestKillEachRole kills the roles with SIGKILL, one after the other, under
// load: nothing is lost.
func TestKillEachRole(t *testing.T) {
	t.Run("dev", func(t *testing.T) {
		on(t, "dev")
		testKillEachRole(t, own(t, "dev", func(data string) (stack, error) { return newDev(data, devConfig{base: 20000, roles: true}) }))
	})
	for _, kind := range []string{"containers", "compose"} {
		t.Run(kind, func(t *testing.T) {
			on(t, kind)
			testKillEachRole(t, shared(t, kind))
		})
	}
}

func testKillEachRole(t *testing.T, s *site) {
	s.clickhouseReady(t)
	kill := func(part string) {
		after(t, 2500*time.Millisecond)
		if err := s.Kill(part); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := s.Start(part); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s killed, ready again after %s", part, time.Since(began))
	}
	run := s.play(t, "--speed", "1", "--duration", "28s", "--no-noisy")
	for _, part := range []string{"control", "route", "delay", "fanout", "audit", "ingest"} {
		kill(part)
	}
	run.wait(t)
	// Those that read what route has decided are killed with a tenant in overflow
	// too, and ClickHouse must have it all.
	s.run(t, "", "apply", "-f", "testdata/tenants.yaml")
	file := filepath.Join(t.TempDir(), "report.json")
	run = s.play(t, "--speed", "1", "--duration", "14s", "--report", file)
	for _, part := range []string{"delay", "audit", "fanout", "audit", "delay"} {
		kill(part)
	}
	run.wait(t)
	s.agree(t, file, "--lost-receipts", "1500")
}
