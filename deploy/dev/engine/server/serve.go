//go:build (linux || darwin) && (amd64 || arm64) && !noengine

package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"
)

// Serve opens the engine on its data and answers the ClickHouse HTTP interface
// until ctx ends or the parent's pipe closes; then it lets running statements
// end, kills those that do not, closes the data and returns. One call a
// process: the engine cannot be opened on two folders.
func Serve(ctx context.Context, cfg Config) error {
	err := serve(ctx, cfg)
	if err != nil && cfg.Ready != nil {
		_, _ = fmt.Fprintf(cfg.Ready, "%s%v\n", FailedPrefix, err)
	}
	return err
}

func serve(ctx context.Context, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	lib, err := openLibrary(cfg.Lib)
	if err != nil {
		return err
	}
	s := &server{lib: lib, dir: cfg.Dir, log: cfg.Logger, slots: make(chan struct{}, maxStatements), places: make(chan struct{}, maxWaiting)}
	root, err := boot(lib, cfg)
	if err != nil {
		return err
	}
	// The last connection to close closes the engine: flushes it, unlocks the folder.
	defer root.close()
	if err := s.probe(); err != nil {
		return err
	}
	cfg.Logger.Info("engine open", "dir", cfg.Dir, "version", s.version, "lib", goString(call(lib.version)))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if cfg.Parent != nil {
		// Not waited for: it ends with the pipe, at the latest with the process.
		go func() {
			_, _ = io.Copy(io.Discard, cfg.Parent)
			cancel()
		}()
	}
	return s.listen(ctx, cfg)
}

// boot opens the connection that keeps the engine up, with the settings that
// only the first one can give.
func boot(lib *library, cfg Config) (*conn, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the engine's folder: %w", err)
	}
	args := []string{
		// Its default, 5 GiB, is made for servers.
		fmt.Sprintf("--mark_cache_size=%d", 128<<20),
	}
	if cfg.MaxMemoryBytes > 0 {
		args = append(args, fmt.Sprintf("--max_server_memory_usage=%d", cfg.MaxMemoryBytes))
	}
	root, err := lib.open(cfg.Dir, args...)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w (is another engine using the folder?)", cfg.Dir, err)
	}
	return root, nil
}

// listen serves until ctx ends and leaves no statement behind.
func (s *server) listen(ctx context.Context, cfg Config) error {
	// Statements run under base, which outlives ctx by the drain.
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	srv := &http.Server{
		Handler:           guard(s),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		late, done := context.WithTimeout(base, DrainTimeout)
		defer done()
		if srv.Shutdown(late) != nil {
			cut() // killOnLeave ends what still runs
			last, done := context.WithTimeout(context.WithoutCancel(base), DrainTimeout)
			defer done()
			_ = srv.Shutdown(last) // what ignores a kill ends with the process
		}
	}()
	if cfg.Ready != nil {
		if _, err := fmt.Fprintln(cfg.Ready, ReadyLine); err != nil {
			return fmt.Errorf("report to the parent: %w", err)
		}
	}
	if err := srv.Serve(cfg.Listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	<-stopped
	cut()
	s.watchers.Wait()
	return nil
}

// Inherited is the listener a parent Engine hands to its child, as file
// descriptor 3.
func Inherited() (net.Listener, error) {
	f := os.NewFile(3, "listener")
	if f == nil {
		return nil, errors.New("no inherited listener: this command is started by spillway dev, not by hand")
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("no inherited listener (this command is started by spillway dev, not by hand): %w", err)
	}
	return l, nil
}

// Built tells whether this binary has the engine's bindings.
const Built = true
