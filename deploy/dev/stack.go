// Package dev is the embedded stack of `spillway dev`: what production gets
// from servers, on loopback, kept in one directory.
//
//	Stack ─┬─ broker/    Kafka protocol   :9092   data/kafka
//	       ├─ registry/  schema registry  :8081   data/registry
//	       └─ engine/    ClickHouse HTTP  :8123   data/clickhouse   (a child process)
//
// The roles are not in it: they get addresses, as in production.
package dev

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/spillway/spillway/deploy/dev/broker"
	"github.com/spillway/spillway/deploy/dev/engine"
	"github.com/spillway/spillway/deploy/dev/registry"
)

// Config says where the stack lives.
type Config struct {
	// Dir keeps everything; it is made if missing. One stack at a time.
	Dir string
	// Ports of the parts.
	Ports Ports
	// Engine is the command that runs engine.Serve in a child. Empty: there is
	// no embedded ClickHouse, a server elsewhere is used.
	Engine []string
	// EngineMemory bounds the engine, in bytes.
	EngineMemory int64
	// Now is the broker's clock.
	Now func() time.Time
	// Logger and Registerer get the parts' lines and metrics.
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// A Stack is the running parts.
type Stack struct {
	Engine *engine.Engine // nil without an embedded ClickHouse

	broker   *broker.Broker
	registry *registry.Registry
	cancel   context.CancelFunc
	served   sync.WaitGroup
	failed   chan error // of registry and engine, one each at most
}

// Start opens the parts. Broker and registry serve when it returns; the engine
// comes in the background.
func Start(ctx context.Context, cfg Config) (*Stack, error) {
	s := &Stack{failed: make(chan error, 2)}
	ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx)) // Close ends it, after the roles have ended
	if err := s.start(ctx, cfg); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Stack) start(ctx context.Context, cfg Config) (err error) {
	s.broker, err = broker.Start(broker.Config{
		Dir: filepath.Join(cfg.Dir, "kafka"), Listen: Address(cfg.Ports.Kafka), Now: cfg.Now, Logger: cfg.Logger, Registerer: cfg.Registerer,
	})
	if err != nil {
		return err // it names itself
	}
	if err := s.startRegistry(ctx, cfg); err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	if len(cfg.Engine) == 0 {
		return nil
	}
	s.Engine, err = engine.New(engine.Config{
		Command: cfg.Engine, Dir: filepath.Join(cfg.Dir, "clickhouse"), Listen: Address(cfg.Ports.ClickHouse),
		MaxMemoryBytes: cfg.EngineMemory, Logger: cfg.Logger,
	})
	if err != nil {
		return fmt.Errorf("clickhouse: %w", err)
	}
	s.served.Go(func() { s.ended(ctx, "clickhouse", s.Engine.Run(ctx)) })
	return nil
}

func (s *Stack) startRegistry(ctx context.Context, cfg Config) (err error) {
	s.registry, err = registry.Open(registry.Config{Dir: filepath.Join(cfg.Dir, "registry"), Logger: cfg.Logger, Registerer: cfg.Registerer})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", Address(cfg.Ports.Registry))
	if err != nil {
		return err
	}
	s.served.Go(func() { s.ended(ctx, "registry", s.registry.Serve(ctx, l)) })
	return nil
}

// ended notes the end of a part that was not asked to end.
func (s *Stack) ended(ctx context.Context, part string, err error) {
	if ctx.Err() == nil {
		s.failed <- fmt.Errorf("%s ended: %w", part, cmp.Or(err, errors.New("by itself")))
	}
}

// Watch returns the error of a part that ends by itself, or nil when ctx ends.
func (s *Stack) Watch(ctx context.Context) error {
	select {
	case err := <-s.failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// Close stops the parts in order: ClickHouse and registry, then the broker,
// which writes its state. Stop the roles first.
func (s *Stack) Close() error {
	s.cancel()
	s.served.Wait()
	var errs []error
	if s.registry != nil {
		errs = append(errs, s.registry.Close())
	}
	if s.broker != nil {
		errs = append(errs, s.broker.Close())
	}
	return errors.Join(errs...)
}
