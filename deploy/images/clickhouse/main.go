// Command clickhouse is the server in the image spillway/clickhouse:local, which stands in for clickhouse/clickhouse-server
// where that cannot be pulled: the embedded engine, with users and a port that other machines reach.
//
//	:8123, :8443 ─▶ front: user and password ─▶ 127.0.0.1, deploy/dev/engine/server ─▶ libchdb
//
// Not there: the native protocol on 9000, the configuration files of ClickHouse, more than one user.
//
//	CLICKHOUSE_USER, CLICKHOUSE_PASSWORD  the one user, as in the public image; both are required
//	CLICKHOUSE_PASSWORD_FILE              a file that holds the password instead, as in the public image
//	CLICKHOUSE_DB                         a database to make at the start, as in the public image
//	CLICKHOUSE_TLS_CERT, CLICKHOUSE_TLS_KEY  files, PEM: serve HTTPS on 8443 too (the public image takes config.d files)
//	CLICKHOUSE_TLS_CLIENT_CA              file, PEM: ask every client on 8443 for a certificate of these authorities
//
// `clickhouse fetch` puts the engine's library into the user's cache and prints its path: deploy/images/build.sh calls it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spillway/spillway/deploy/dev/engine"
	"github.com/spillway/spillway/deploy/dev/engine/server"
)

const (
	library = "/usr/lib/clickhouse/libchdb.so"
	data    = "/var/lib/clickhouse"
	// maxMemory is where a statement is refused rather than the machine's memory taken: the stack shares it.
	maxMemory = 2 << 30
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "clickhouse:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if len(os.Args) == 2 && os.Args[1] == "fetch" {
		return fetch(ctx)
	}
	if len(os.Args) > 1 {
		return fmt.Errorf("unknown arguments %q", os.Args[1:])
	}
	f := front{user: os.Getenv("CLICKHOUSE_USER"), password: os.Getenv("CLICKHOUSE_PASSWORD")}
	if file := os.Getenv("CLICKHOUSE_PASSWORD_FILE"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("CLICKHOUSE_PASSWORD_FILE: %w", err)
		}
		f.password = strings.TrimRight(string(text), "\r\n")
	}
	if f.user == "" || f.password == "" {
		return errors.New("CLICKHOUSE_USER and CLICKHOUSE_PASSWORD must be set: the port is open to other machines")
	}
	return serve(ctx, &f)
}

func fetch(ctx context.Context) error {
	cache, err := engine.DefaultCache()
	if err != nil {
		return err
	}
	last := ""
	path, err := engine.Fetch(ctx, cache, func(p engine.Progress) {
		if p.Stage != last {
			fmt.Fprintln(os.Stderr, "engine:", p)
			last = p.Stage
		}
	})
	if err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}

// serve runs the engine and, once it is ready, the ports in front of it. The first part to end ends all.
func serve(ctx context.Context, f *front) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	f.to = inner.Addr().String()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	said, ready := io.Pipe()
	errs := make(chan error, 3) // engine and two ports
	var parts sync.WaitGroup
	start := func(run func() error) {
		parts.Go(func() {
			defer cancel()
			errs <- run()
		})
	}
	// The engine outlives the ports: what runs may end.
	engineCtx, stopEngine := context.WithCancel(context.WithoutCancel(ctx))
	defer stopEngine()
	start(func() error {
		defer ready.Close()
		return server.Serve(engineCtx, server.Config{
			Lib: library, Dir: data, Listener: inner, MaxMemoryBytes: maxMemory, Ready: ready, Logger: log,
		})
	})
	line := make([]byte, 256)
	n, _ := said.Read(line) // EOF: the engine has ended, errs says why
	go func() { _, _ = io.Copy(io.Discard, said) }()
	if strings.TrimSpace(string(line[:n])) == server.ReadyLine {
		if err := f.start(ctx, start); err != nil {
			errs <- err
			cancel()
		} else {
			log.Info("ClickHouse serves", "ports", f.ports())
		}
	}
	<-ctx.Done()
	f.stop()
	stopEngine()
	parts.Wait()
	close(errs)
	var all []error
	for err := range errs {
		if !errors.Is(err, http.ErrServerClosed) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

// stopTimeout is how long requests may take to end; the engine's own drain comes after it.
const stopTimeout = 3 * time.Second
