package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
)

// latest is what is known about a record name.
type latest struct {
	schema  *Schema // nil if absent
	denial  denial  // if absent
	fresh   time.Time
	refresh *refresh // under way, or nil
	slow    bool     // the last refresh failed or took longer than LatestWait
}

type refresh struct {
	done   chan struct{} // closed when schema and err are set
	schema *Schema
	err    error
}

// Latest returns the newest version of a record's schema, by its full name:
// from subject <name>, else <topic>-<name>, else <topic>-value if that is this
// record. An answer is good for LatestTTL. After that Latest waits LatestWait
// at most for a new one and then gives the old one, which is also what it does
// at once while the registry is slow or down. The error wraps ErrAbsent or
// ErrUnavailable, or is ctx's; a known name has none.
func (c *Client) Latest(ctx context.Context, name string) (*Schema, error) {
	return c.newest(ctx, name, c.cfg.LatestTTL)
}

// LatestNow is Latest with an answer that is a second old at most, if the
// registry gives one: for when the latest known version does not fit.
func (c *Client) LatestNow(ctx context.Context, name string) (*Schema, error) {
	return c.newest(ctx, name, min(time.Second, c.cfg.LatestTTL))
}

func (c *Client) newest(ctx context.Context, name string, ttl time.Duration) (*Schema, error) {
	now := c.cfg.Now()
	c.mu.Lock()
	l := c.latest[name]
	switch {
	case l != nil && l.schema != nil && now.Sub(l.fresh) < ttl:
		c.mu.Unlock()
		return l.schema, nil
	case l != nil && l.schema == nil && now.Before(l.denial.again):
		c.mu.Unlock()
		return nil, fmt.Errorf("schema of %q: %w", name, ErrAbsent)
	case c.closed:
		c.mu.Unlock()
		return nil, fmt.Errorf("schema of %q: %w: closed", name, ErrUnavailable)
	}
	r, old, slow := c.refreshLocked(name)
	c.mu.Unlock()
	if r == nil {
		return nil, fmt.Errorf("schema of %q: %w: too many questions", name, ErrUnavailable)
	}
	return c.await(ctx, name, r, old, slow)
}

// refreshLocked joins the refresh of a name or begins one; old is what is
// known so far.
func (c *Client) refreshLocked(name string) (r *refresh, old *Schema, slow bool) {
	l := c.latest[name]
	if l == nil {
		if len(c.latest) >= c.cfg.MaxAbsent && !c.dropNameLocked() {
			return nil, nil, false
		}
		l = &latest{}
		c.latest[name] = l
	}
	if l.refresh == nil {
		l.refresh = &refresh{done: make(chan struct{})}
		c.done.Add(1)
		go c.refresh(name, l, l.refresh)
	}
	return l.refresh, l.schema, l.slow
}

// dropNameLocked forgets one name that nobody is asking about.
func (c *Client) dropNameLocked() bool {
	for name, l := range c.latest {
		if l.refresh == nil {
			delete(c.latest, name)
			return true
		}
	}
	return false
}

func (c *Client) refresh(name string, l *latest, r *refresh) {
	defer c.done.Done()
	began := c.cfg.Now()
	s, err := c.findLatest(c.base, name)
	now := c.cfg.Now()
	c.mu.Lock()
	l.refresh = nil
	l.slow = err != nil && !errors.Is(err, ErrAbsent) || now.Sub(began) > c.cfg.LatestWait
	switch {
	case err == nil:
		l.schema, l.fresh, l.denial = s, now, denial{}
	case errors.Is(err, ErrAbsent):
		l.schema, l.denial = nil, l.denial.next(began)
	case l.schema != nil:
		c.metrics.stale.Inc()
	default:
		delete(c.latest, name) // nothing is known: the next one asks anew
	}
	c.mu.Unlock()
	r.schema, r.err = s, err
	close(r.done)
}

func (c *Client) await(ctx context.Context, name string, r *refresh, old *Schema, slow bool) (*Schema, error) {
	if old != nil && slow {
		return old, nil
	}
	var patience <-chan time.Time
	if old != nil {
		timer := time.NewTimer(c.cfg.LatestWait)
		defer timer.Stop()
		patience = timer.C
	}
	select {
	case <-r.done:
		if r.err != nil && old != nil && !errors.Is(r.err, ErrAbsent) {
			return old, nil
		}
		return r.schema, r.err
	case <-patience:
		return old, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("schema of %q: %w", name, ctx.Err())
	}
}

// subjects where the schema of a record may be, best first (DESIGN 3.3).
func (c *Client) subjects(name string) []string {
	if c.cfg.Topic == "" {
		return []string{name}
	}
	return []string{name, c.cfg.Topic + "-" + name, c.cfg.Topic + "-value"}
}

func (c *Client) findLatest(ctx context.Context, name string) (*Schema, error) {
	for _, subject := range c.subjects(name) {
		s, err := c.latestOf(ctx, subject)
		switch {
		case errors.Is(err, ErrAbsent):
			continue
		case err != nil:
			return nil, fmt.Errorf("schema of %q: %w", name, err)
		case s.Name == name || s.Codec == nil && subject == name:
			return s, nil
		}
	}
	return nil, fmt.Errorf("schema of %q: %w", name, ErrAbsent)
}

func (c *Client) latestOf(ctx context.Context, subject string) (*Schema, error) {
	if _, err := c.permit(ctx); err != nil {
		return nil, err
	}
	ss, err := c.sr.SchemaByVersion(ctx, subject, -1)
	if err = c.outcome(c.aboutVersion(ss, err)); err != nil {
		return nil, err
	}
	return c.adopt(ss), nil
}

// adopt keeps a schema with the subject it was met in. The same id may be in
// several subjects, so the caller gets a copy that names this one.
func (c *Client) adopt(ss sr.SubjectSchema) *Schema {
	if have, state := c.ByID(ss.ID); state.Answer == Known && have.Text == ss.Schema.Schema {
		if have.Subject == ss.Subject && have.Version == ss.Version {
			return have
		}
		s := *have
		s.Subject, s.Version = ss.Subject, ss.Version
		c.keep(&s)
		return &s
	}
	return c.keep(compile(ss))
}
