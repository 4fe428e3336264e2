package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/spillway/spillway/processors/audit/explain"
)

// serve answers GET /v1/events until ctx ends. What is being answered then gets
// DrainTimeout to finish.
func (s *Sink) serve(ctx context.Context) error {
	h, err := explain.NewHandler(explain.Config{
		Conn: s.asks, Tokens: s.cfg.Tokens, Schemas: s.cfg.Schemas, Resolve: s.cfg.Resolve, Now: s.cfg.Now, Logger: s.cfg.Logger,
	})
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: explain.WriteTimeout, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(s.cfg.Listener) }()
	select {
	case err = <-ended:
		return fmt.Errorf("audit: serve %s: %w", s.cfg.Listener.Addr(), err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.DrainTimeout)
	defer cancel()
	if err = srv.Shutdown(drain); errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close() // an export that does not end by itself is cut; its reader sees it
	}
	<-ended
	return err
}
