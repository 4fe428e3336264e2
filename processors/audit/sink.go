package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/spillway/spillway/processors/audit/table"
)

// Pauses between attempts while ClickHouse does not answer: doubled from the
// first to the last, which bounds how late the sink notices that it is back.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 3 * time.Second
)

// A Sink writes the topics of one deployment to ClickHouse. Several may share
// the work: the consumer groups divide the partitions.
type Sink struct {
	cfg     Config
	conn    driver.Conn // of the inserts
	asks    driver.Conn // of questions, so that many of them do not hold up inserts
	metrics *metrics
	kinds   map[int32]string // name of a system record by schema id

	health *health
	hooks  hooks
}

// hooks are places where tests make it fail.
type hooks struct {
	beforeCommit func() error // an error ends the reader as a crash would
}

// New makes a sink. It connects when it runs.
func New(cfg Config) (*Sink, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	conn, err := cfg.Server.Open()
	if err != nil {
		return nil, err
	}
	asks, err := cfg.Server.Open()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	s := &Sink{cfg: cfg, conn: conn, asks: asks, metrics: newMetrics(cfg.Registerer), kinds: map[int32]string{}}
	s.health = newHealth(&s.cfg, s.metrics)
	for name, id := range cfg.SchemaIDs {
		s.kinds[id] = name
	}
	return s, nil
}

// Ready is nil while the sink does its work, or says why it cannot. The topics
// hold what it has not written.
func (s *Sink) Ready() error { return s.health.ready() }

// Run waits for ClickHouse and its tables, then reads and writes until ctx
// ends; then it writes what it holds and commits. Questions are answered all
// the while. An error means that Kafka cannot be used as configured.
func (s *Sink) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.conn.Close(), s.asks.Close()) }()
	g, ctx := errgroup.WithContext(ctx)
	if s.cfg.Listener != nil {
		g.Go(func() error { return s.serve(ctx) })
	}
	g.Go(func() error { return s.sink(ctx) })
	g.Go(func() error { return s.health.watch(ctx) })
	return g.Wait()
}

// sink reads when the tables are there.
func (s *Sink) sink(ctx context.Context) error {
	if s.awaitTables(ctx) != nil {
		return nil // ctx ended before anything was read
	}
	g, ctx := errgroup.WithContext(ctx)
	prefix := s.cfg.Topics.Prefix
	g.Go(func() error {
		return s.read(ctx, reading{
			name: "events", group: prefix + "audit.events", topics: []string{s.cfg.Topics.Events()}, isolation: kgo.ReadUncommitted(),
		})
	})
	g.Go(func() error {
		return s.read(ctx, reading{
			name: "audit", group: prefix + "audit", topics: []string{s.cfg.Topics.Audit(), s.cfg.Topics.Dead()}, isolation: kgo.ReadCommitted(),
		})
	})
	return g.Wait()
}

// awaitTables returns when the tables are there; it makes them if it may.
func (s *Sink) awaitTables(ctx context.Context) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := s.prepareTables(ctx)
		if err == nil {
			s.health.good(tablesOf)
			return nil
		}
		if ctx.Err() == nil {
			s.clickHouseFailed(tablesOf, err)
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

// clickHouseFailed says that ClickHouse does not do what who wants of it.
func (s *Sink) clickHouseFailed(who string, err error) {
	f := table.Diagnose(err)
	s.health.bad(who, partClickHouse, string(f.Reason), fmt.Errorf("ClickHouse does not take rows: %w; the topics hold them", f))
}

func (s *Sink) prepareTables(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.InsertTimeout)
	defer cancel()
	cfg := MigrateConfig{Server: s.cfg.Server, Retention: s.cfg.Retention}
	if !s.cfg.Migrate {
		return table.Require(ctx, cfg)
	}
	applied, err := Migrate(ctx, cfg)
	if len(applied) > 0 {
		s.cfg.Logger.Info("ClickHouse tables made", "migrations", strings.Join(applied, " "))
	}
	return err
}

// wait returns nil after d, or ctx's error at once when it ends.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
