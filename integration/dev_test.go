//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A stack is one `spillway dev`.
type stack struct {
	bin, data string
	base      int // --ports; 0: the usual ones
	cmd       *exec.Cmd
	exited    chan error
	ready     time.Duration // from start to "ready"

	mu  sync.Mutex
	out bytes.Buffer
}

func builtBinary(t testing.TB) string {
	t.Helper()
	bin, err := filepath.Abs("../spillway")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("%v: run make build", err)
	}
	return bin
}

// startDev starts a stack in its own folder and waits until it is ready. It is
// stopped, politely, when the test ends.
func startDev(t testing.TB, data string, base int, args ...string) *stack {
	t.Helper()
	s := &stack{bin: builtBinary(t), data: data, base: base, exited: make(chan error, 1)}
	args = append([]string{"dev", "--data", data, "--ports", fmt.Sprint(base)}, args...)
	s.cmd = exec.Command(s.bin, args...)
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stderr = &lockedWriter{s: s}
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	go s.read(out, ready, began)
	select {
	case <-ready:
	case err := <-s.exited:
		t.Fatalf("dev ended: %v\n%s", err, s.output())
	case <-time.After(60 * time.Second):
		_ = s.cmd.Process.Kill()
		t.Fatalf("dev is not ready after 60 s\n%s", s.output())
	}
	t.Cleanup(func() { s.stop(t) })
	return s
}

func (s *stack) read(out io.Reader, ready chan<- struct{}, began time.Time) {
	lines := bufio.NewScanner(out)
	seen := false
	for lines.Scan() {
		s.mu.Lock()
		fmt.Fprintln(&s.out, lines.Text())
		s.mu.Unlock()
		if !seen && strings.Contains(lines.Text(), "ready in") {
			seen, s.ready = true, time.Since(began)
			close(ready)
		}
	}
	s.exited <- s.cmd.Wait()
	close(s.exited)
}

type lockedWriter struct{ s *stack }

func (w *lockedWriter) Write(b []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.s.out.Write(b)
}

func (s *stack) output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// stop sends SIGTERM and waits for an exit status of 0.
func (s *stack) stop(t testing.TB) {
	t.Helper()
	if s.cmd.ProcessState != nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.exited:
		if err != nil {
			t.Errorf("dev ended with %v\n%s", err, tail(s.output()))
		}
	case <-time.After(60 * time.Second):
		_ = s.cmd.Process.Kill()
		t.Errorf("dev did not stop within 60 s of SIGTERM\n%s", tail(s.output()))
	}
}

func tail(s string) string { return s[max(0, len(s)-4000):] }

// port is where a part listens: its usual port, or the one --ports moves it to.
func (s *stack) port(usual int) int {
	if s.base == 0 {
		return usual
	}
	if usual == 8123 {
		return s.base + 123
	}
	return s.base + usual%100
}

func (s *stack) url(usual int, path string) string {
	return fmt.Sprintf("http://127.0.0.1:%d%s", s.port(usual), path)
}

// run runs the binary as a person would and returns what it printed.
func (s *stack) run(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	out, err := s.try(t.Context(), stdin, args...)
	if err != nil {
		t.Fatalf("spillway %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (s *stack) try(ctx context.Context, stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.bin, args...)
	cmd.Env = append(os.Environ(), "SPILLWAY_DATA="+s.data)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// query asks ClickHouse and returns the answer without the last newline.
func (s *stack) query(t testing.TB, sql string) string {
	t.Helper()
	resp, err := http.Post(s.url(8123, "/"), "text/plain", strings.NewReader(sql))
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(string(body), "\n")
}

// eventually waits until ok says so, 60 s at most; then why says more.
func eventually(t testing.TB, what string, ok func() bool, why ...func() string) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			more := ""
			for _, w := range why {
				more += "\n" + w()
			}
			t.Fatalf("%s: not within 60 s%s", what, more)
		case <-t.Context().Done():
			t.Fatalf("%s: %v", what, t.Context().Err())
		}
	}
}

// engineReady waits for the embedded ClickHouse and its tables.
func (s *stack) engineReady(t testing.TB) {
	t.Helper()
	for range 10 { // the first run fetches 180 MB
		if s.query(t, "SELECT count() >= 0 FROM spillway.events") == "1" {
			return
		}
		deadline := time.Now().Add(30 * time.Second)
		for time.Now().Before(deadline) && s.query(t, "SELECT count() >= 0 FROM spillway.events") != "1" {
			<-time.After(200 * time.Millisecond)
		}
	}
	t.Fatalf("no ClickHouse: %s", s.query(t, "SELECT count() FROM spillway.events"))
}
