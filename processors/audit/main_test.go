package audit

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/spillway/spillway/deploy/dev/engine"
)

// childMark, as the first argument, makes the test binary serve as the engine's
// child process.
const childMark = "engine-child"

// shared is the engine that all tests of the package use, each with a database
// of its own: it costs a second to start.
var shared struct {
	once sync.Once
	addr string
	err  error
	stop func()
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childMark {
		os.Args = slices.Delete(os.Args, 1, 2)
		os.Exit(childMain())
	}
	shared.stop = func() {}
	code := m.Run()
	shared.stop()
	os.Exit(code)
}

func childMain() int {
	var cfg engine.ServeConfig
	flag.StringVar(&cfg.Lib, "lib", "", "")
	flag.StringVar(&cfg.Dir, "dir", "", "")
	flag.Int64Var(&cfg.MaxMemoryBytes, "max-memory-bytes", 0, "")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l, err := engine.Inherited()
	if err == nil {
		cfg.Listener, cfg.Ready, cfg.Parent, cfg.Logger = l, os.Stdout, os.Stdin, slog.New(slog.DiscardHandler)
		err = engine.Serve(ctx, cfg)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func startEngine() {
	ctx, cancel := context.WithCancel(context.Background())
	dir, err := os.MkdirTemp("", "audit")
	if err != nil {
		shared.err = err
		cancel()
		return
	}
	e, err := engine.New(engine.Config{
		Command: []string{os.Args[0], childMark}, Dir: dir, Listen: "127.0.0.1:0", MaxMemoryBytes: 2 << 30, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		shared.err = err
		cancel()
		return
	}
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	shared.stop = func() {
		cancel()
		<-ended
		_ = os.RemoveAll(dir)
	}
	shared.addr, shared.err = e.Addr(), e.WaitReady(ctx)
}

var databases atomic.Int32

// testServer is a database of the test's own on the real engine; the test is
// skipped on a machine that cannot run it.
func testServer(t testing.TB) Server {
	t.Helper()
	shared.once.Do(startEngine)
	if shared.err != nil {
		if strings.Contains(shared.err.Error(), "not ready") {
			t.Fatal(shared.err)
		}
		t.Skip("no ClickHouse engine here: ", shared.err)
	}
	return Server{URL: "http://" + shared.addr, Database: fmt.Sprintf("test_%d", databases.Add(1))}
}
