package route

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/schemas"
)

// A Router decides about the records of `events` together with the other
// routers of its deployment.
type Router struct {
	cfg      Config
	metrics  *metrics
	starting atomic.Pointer[string] // why it is not running yet; nil once it does
	sessions []*session
	topic    schemas.TopicID // of events; set by Run before the sessions start
}

// New makes a router. It connects to nothing yet.
func New(cfg Config) (*Router, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	r := &Router{cfg: cfg, metrics: newMetrics(cfg.Registerer)}
	for i := range cfg.Sessions {
		r.sessions = append(r.sessions, newSession(r, i))
	}
	r.say("route has not been started")
	return r, nil
}

// Run routes until ctx ends: then each session finishes its transaction,
// leaves the group and closes. Before, it waits for control and for Kafka to
// describe `events`; a topic that is not as DESIGN section 3.1 wants it is an
// error. Run may be called once.
func (r *Router) Run(ctx context.Context) error {
	r.say("route waits for control")
	if err := r.cfg.Tenants.Wait(ctx); err != nil {
		return ended(ctx, fmt.Errorf("route: %w", err))
	}
	if err := r.inspect(ctx); err != nil {
		return ended(ctx, err)
	}
	forwards, err := newForwards(&r.cfg)
	if err != nil {
		return err
	}
	defer forwards.close()
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range r.sessions {
		line, err := processors.New(processors.Config{
			Partitions: r.cfg.Partitions, Key: r.cfg.Secrets.DedupeKey(), Tenants: &s.tenants, Schemas: &s.schemas,
		})
		if err != nil {
			return fmt.Errorf("route: %w", err)
		}
		s.line, s.forwards, s.topic = line, forwards, r.topic
		group.Go(func() error { return s.run(ctx) })
	}
	r.starting.Store(nil)
	return group.Wait()
}

// ended is nil if err only says that ctx has.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (r *Router) say(why string) { r.starting.Store(&why) }

// Ready reports why the router is not deciding now, nil if it is. It does not
// block.
func (r *Router) Ready() error {
	if why := r.starting.Load(); why != nil {
		return errors.New(*why)
	}
	for _, s := range r.sessions {
		if err := s.ready(); err != nil {
			return err
		}
	}
	return nil
}
