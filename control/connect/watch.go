package connect

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const watchEvery = 15 * time.Second

// A Watcher tells while a process runs that its connections are no longer
// allowed: a password was changed, a certificate expired, an ACL was taken
// away. What is established goes on for as long as the other side lets it; the
// next connection would fail.
type Watcher struct {
	c      *Connections
	probes []probe
	spare  map[string]bool  // by part: it can be done without
	tick   <-chan time.Time // nil: every 15 s

	mu  sync.Mutex
	why map[string]error // by part
}

// Watch returns a watcher of what use says; Run makes it look.
func (c *Connections) Watch(use Use) *Watcher {
	w := &Watcher{c: c, probes: c.probes(use), spare: map[string]bool{}, why: map[string]error{}}
	for _, p := range w.probes {
		w.spare[p.part] = p.spare
	}
	return w
}

// Run looks again and again until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	tick := w.tick
	if tick == nil {
		t := time.NewTicker(watchEvery)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick:
		}
		for _, p := range w.probes {
			w.look(ctx, p)
		}
	}
}

// look logs once that a part refuses us, and once that it does not any more. A
// part that is merely away changes nothing: who needs it says so.
func (w *Watcher) look(ctx context.Context, p probe) {
	err := w.c.once(ctx, p)
	if ctx.Err() != nil || err != nil && !final(err) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.why[p.part]
	w.why[p.part] = err
	switch {
	case err != nil && (was == nil || was.Error() != err.Error()):
		w.c.cfg.Logger.Error("a part refuses us", "part", p.part, "err", err)
	case err == nil && was != nil:
		w.c.cfg.Logger.Info("a part admits us again", "part", p.part)
	}
}

// Ready says which part refuses us, or which files are not what is used.
func (w *Watcher) Ready() error { return w.refusals(false) }

// Lacking says the same of the parts that can be done without.
func (w *Watcher) Lacking() error { return w.refusals(true) }

func (w *Watcher) refusals(spare bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for part, m := range map[string]*material{kafkaPart: w.c.kafka, registryPart: w.c.registry, clickhousePart: w.c.clickhouse} {
		if w.spare[part] != spare {
			continue
		}
		if err := w.why[part]; err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", part, err))
		}
		m.mu.Lock()
		errs = append(errs, m.bad)
		m.mu.Unlock()
	}
	return errors.Join(errs...)
}
