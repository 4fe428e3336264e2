package engine

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

// childWord as the first argument makes the test binary serve as the engine's
// child process.
const childWord = "engine-child"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childWord {
		os.Exit(childMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// childMain is what the hidden subcommand of the real binary does.
func childMain(args []string) int {
	var cfg ServeConfig
	flags := flag.NewFlagSet(childWord, flag.ExitOnError)
	flags.StringVar(&cfg.Lib, "lib", "", "")
	flags.StringVar(&cfg.Dir, "dir", "", "")
	flags.Int64Var(&cfg.MaxMemoryBytes, "max-memory-bytes", 0, "")
	_ = flags.Parse(args) // exits
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l, err := Inherited()
	if err == nil {
		cfg.Listener, cfg.Ready, cfg.Parent = l, os.Stdout, os.Stdin
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
		err = Serve(ctx, cfg)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// library fetches the engine into the user's cache, where later runs and
// spillway dev find it, or skips the test if this machine cannot.
func testLibrary(t testing.TB) {
	t.Helper()
	cache, err := DefaultCache()
	if err == nil {
		_, err = Fetch(t.Context(), cache, func(Progress) {})
	}
	if err != nil {
		t.Skip(err)
	}
}

// start runs an engine on dir until the test or stop ends it.
func start(t testing.TB, dir string) (e *Engine, stop func()) {
	t.Helper()
	testLibrary(t)
	e, err := New(Config{
		Command: []string{os.Args[0], childWord}, Dir: dir, Listen: "127.0.0.1:0",
		MaxMemoryBytes: 2 << 30, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	waitReady(t, e)
	return e, stop
}

func waitReady(t testing.TB, e *Engine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := e.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}
