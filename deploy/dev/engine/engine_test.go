//go:build unix

package engine

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/spillway/spillway/deploy/dev/engine/server"
)

func TestRestartKeepsData(t *testing.T) {
	dir := t.TempDir()
	e, stop := start(t, dir)
	c := open(t, e, clickhouse.CompressionNone)
	mustExec(t, c, "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
	mustExec(t, c, "INSERT INTO t VALUES (1), (2)")
	stop()
	if s, _ := e.State(); s.Phase != Stopped {
		t.Errorf("phase %s after Run", s.Phase)
	}
	e, _ = start(t, dir)
	if n := scan[uint64](t, open(t, e, clickhouse.CompressionNone), "SELECT count() FROM t"); n != 2 {
		t.Errorf("%d rows after the restart", n)
	}
}

// TestKill: the child dies under load, is started again on the same port, and
// no acknowledged row is missing.
func TestKill(t *testing.T) {
	e, _ := start(t, t.TempDir())
	c := open(t, e, clickhouse.CompressionNone)
	mustExec(t, c, "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
	acked := uint64(0)
	for range 3 {
		before, _ := e.State()
		kill := acked + 20
		for {
			err := c.Exec(t.Context(), fmt.Sprintf("INSERT INTO t VALUES (%d)", acked))
			if err != nil {
				break // it is dead
			}
			if acked++; acked == kill {
				if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		}
		for s, changed := e.State(); s.PID == before.PID || s.Phase != Ready; s, changed = e.State() {
			select {
			case <-changed:
			case <-time.After(time.Minute):
				t.Fatalf("not back: %s", s)
			}
		}
		// The row of the failed insert may be there: it was not refused, only not acknowledged.
		if n := scan[uint64](t, c, fmt.Sprintf("SELECT uniqExact(a) FROM t WHERE a < %d", acked)); n != acked {
			t.Fatalf("%d rows of %d acknowledged", n, acked)
		}
	}
}

// TestParentDies: a child does not outlive its parent, nor keep the port.
func TestParentDies(t *testing.T) {
	testLibrary(t)
	cache, _ := DefaultCache()
	lib, err := Fetch(t.Context(), cache, func(Progress) {})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := share(l.(*net.TCPListener))
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	cmd := exec.Command(os.Args[0], childWord, "--lib", lib, "--dir", t.TempDir())
	cmd.ExtraFiles = []*os.File{f}
	life, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = f.Close(), l.Close() // the child has it
	if line, err := bufio.NewReader(out).ReadString('\n'); line != server.ReadyLine+"\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	if code, _, _ := do(t, "GET", "http://"+addr+"/ping", nil); code != 200 {
		t.Errorf("ping: %d", code)
	}
	_ = life.Close()
	limit := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the child ended with %v", err)
	}
	if l, err = net.Listen("tcp", addr); err != nil {
		t.Errorf("the port is still taken: %v", err)
	} else {
		_ = l.Close()
	}
}

// TestStopKillsStatements: a statement without end does not keep the engine up.
func TestStopKillsStatements(t *testing.T) {
	e, stop := start(t, t.TempDir())
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		res, err := http.Post("http://"+e.Addr(), "", strings.NewReader("SELECT sum(sipHash64(number)) AS endless FROM numbers(1000000000000)"))
		if err == nil {
			_ = res.Body.Close()
		}
	}()
	for range 20000 {
		_, _, n := do(t, "POST", "http://"+e.Addr(), strings.NewReader("SELECT count() FROM system.processes WHERE query LIKE '%endless%' AND query NOT LIKE '%processes%'"))
		if n == "1\n" {
			break
		}
	}
	stop() // fails the test if the child had to be waited for in vain
	<-answered
}

// unready is an engine whose child does what the command does.
func unready(t *testing.T, dir string, command ...string) *Engine {
	t.Helper()
	testLibrary(t)
	e, err := New(Config{Command: command, Dir: dir, Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return e
}

// TestNotReady: somebody answers on the port all the time, with the reason.
func TestNotReady(t *testing.T) {
	e := unready(t, t.TempDir(), "/bin/sh", "-c", "echo out of luck >&2; exit 3")
	err := e.WaitReady(t.Context())
	if err == nil || !strings.Contains(err.Error(), "out of luck") || !strings.Contains(err.Error(), "--clickhouse URL") || strings.Contains(err.Error(), "\n") {
		t.Errorf("WaitReady: %v", err)
	}
	code, h, body := do(t, "POST", "http://"+e.Addr(), strings.NewReader("SELECT 1"))
	if code != 503 || h.Get("Retry-After") == "" || !strings.Contains(body, "not ready: unavailable: ") || !strings.Contains(body, "out of luck") {
		t.Errorf("got %d %q", code, body)
	}
}

// TestFailedReason: what the child says of its failure arrives, here that
// another engine has the folder.
func TestFailedReason(t *testing.T) {
	first, _ := start(t, t.TempDir())
	e := unready(t, first.cfg.Dir, os.Args[0], childWord)
	if err := e.WaitReady(t.Context()); err == nil || !strings.Contains(err.Error(), "is another engine using the folder?") {
		t.Errorf("WaitReady: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	good := Config{Command: []string{"x"}, Dir: "d", Listen: "127.0.0.1:0", Cache: "c", Logger: log}
	for want, change := range map[string]func(*Config){
		"Command":        func(c *Config) { c.Command = nil },
		"Dir":            func(c *Config) { c.Dir = "" },
		"Logger":         func(c *Config) { c.Logger = nil },
		"MaxMemoryBytes": func(c *Config) { c.MaxMemoryBytes = -1 },
		"loopback":       func(c *Config) { c.Listen = "0.0.0.0:0" },
		"in use":         func(c *Config) { c.Listen = taken.Addr().String() },
	} {
		c := good
		change(&c)
		if e, err := New(c); err == nil {
			t.Errorf("%s: accepted", want)
			_ = e.gate.close()
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestGate: the gate answers, steps back, and answers again.
func TestGate(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{state: State{Phase: Fetching, Progress: Progress{StageDownload, 50 << 20, 100 << 20}}, changed: make(chan struct{})}
	g := newGate(l.(*net.TCPListener), e)
	served := make(chan error, 1)
	go func() { served <- g.serve() }()
	refused := func() {
		t.Helper()
		if code, _, body := do(t, "GET", "http://"+l.Addr().String()+"/ping", nil); code != 503 || !strings.Contains(body, "downloading (50 % of 100 MB)") {
			t.Errorf("got %d %q", code, body)
		}
	}
	for range 20 {
		refused()
		g.pause()
		f, err := share(g.l) // what a child would accept on
		if err != nil {
			t.Fatal(err)
		}
		other, err := net.FileListener(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := other.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = server.Write([]byte("child"))
		_ = server.Close()
		if got, _ := io.ReadAll(client); string(got) != "child" {
			t.Fatalf("the gate took the child's connection: %q", got)
		}
		_, _ = client.Close(), other.Close()
		g.resume()
	}
	refused()
	if err := g.close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
