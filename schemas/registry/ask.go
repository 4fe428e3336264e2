package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/codec"
	"github.com/twmb/franz-go/pkg/sr"
)

const maxAskers = 4

// A question is one request about an id; whoever wants the answer waits for
// the same one.
type question struct {
	answered chan struct{} // closed when schema and err are set
	schema   *Schema
	err      error
}

// Resolve returns the schema of an id and asks the registry if need be, with
// one request for all who ask at the same time. The error wraps ErrAbsent, or
// ErrUnavailable or ErrRefused, from which nothing follows, or is ctx's. An id that the registry denied a moment ago (1 s,
// doubling to 8 s) is absent without a request.
func (c *Client) Resolve(ctx context.Context, id int) (*Schema, error) {
	s, q, err := c.start(id)
	if s != nil || err != nil {
		return s, err
	}
	select {
	case <-q.answered:
		return q.schema, q.err
	case <-ctx.Done():
		return nil, fmt.Errorf("schema id %d: %w", id, ctx.Err())
	}
}

// start returns what is known, or the question that is under way, and begins
// one if there is none.
func (c *Client) start(id int) (*Schema, *question, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.known[id]; s != nil {
		return s, nil, nil
	}
	d, denied := c.absent[id]
	if id <= 0 || id > maxID || denied && c.cfg.Now().Before(d.again) {
		return nil, nil, fmt.Errorf("schema id %d: %w", id, ErrAbsent)
	}
	if q := c.asking[id]; q != nil {
		return nil, q, nil
	}
	if c.closed || len(c.asking) >= c.cfg.MaxPending {
		return nil, nil, fmt.Errorf("schema id %d: %w: closed or too many questions", id, ErrUnavailable)
	}
	q := &question{answered: make(chan struct{})}
	c.asking[id] = q
	c.done.Add(1)
	go func() {
		defer c.done.Done()
		q.schema, q.err = c.fetch(c.base, id)
		c.mu.Lock()
		delete(c.asking, id)
		c.mu.Unlock()
		close(q.answered)
	}()
	return nil, q, nil
}

// Ask has an unknown id asked in the background, soon, and returns at once;
// ByID will have the answer. It reports false if the id needs no question (it
// is known, being asked, or was denied a moment ago) or cannot be queued.
func (c *Client) Ask(id int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, queued := c.queued[id]
	d, denied := c.absent[id]
	if c.closed || queued || c.known[id] != nil || c.asking[id] != nil || id <= 0 || id > maxID ||
		denied && c.cfg.Now().Before(d.again) {
		return false
	}
	if len(c.pending) >= c.cfg.MaxPending {
		c.metrics.unasked.Inc()
		c.sweepLocked()
		return false
	}
	c.pending = append(c.pending, id)
	c.queued[id] = struct{}{}
	if c.askers < maxAskers {
		c.askers++
		c.done.Add(1)
		go c.ask()
	}
	return true
}

// sweepEvery is how often a full queue makes the client load all schemas.
const sweepEvery = 10 * time.Second

// sweepLocked loads all schemas in the background: while random ids crowd out
// the questions, one request learns every id that is real.
func (c *Client) sweepLocked() {
	now := c.cfg.Now()
	if now.Before(c.nextSweep) {
		return
	}
	c.nextSweep = now.Add(sweepEvery)
	c.done.Add(1)
	go func() {
		defer c.done.Done()
		ctx, cancel := context.WithTimeout(c.base, c.cfg.Timeout)
		defer cancel()
		if err := c.Preload(ctx); err != nil {
			c.log.Debug("schemas not swept", "err", err)
		}
	}()
}

// ask takes ids from the queue until it is empty. An id whose question fails
// is dropped: whoever meets it again asks again.
func (c *Client) ask() {
	defer c.done.Done()
	for {
		c.mu.Lock()
		if len(c.pending) == 0 || c.closed {
			c.askers--
			c.mu.Unlock()
			return
		}
		id := c.pending[0]
		c.pending = c.pending[1:]
		c.mu.Unlock()
		if _, err := c.Resolve(c.base, id); err != nil && !errors.Is(err, ErrAbsent) {
			c.log.Debug("schema id stays unknown", "id", id, "err", err)
		}
		c.mu.Lock()
		delete(c.queued, id)
		c.mu.Unlock()
	}
}

// fetch asks the registry about one id and keeps the answer.
func (c *Client) fetch(ctx context.Context, id int) (*Schema, error) {
	asked, err := c.permit(ctx)
	if err != nil {
		return nil, fmt.Errorf("schema id %d: %w", id, err)
	}
	got, err := c.byID(ctx, id)
	err = c.outcome(err)
	switch {
	case errors.Is(err, ErrAbsent):
		c.deny(id, asked)
	case err == nil:
		return c.keep(compile(sr.SubjectSchema{ID: id, Schema: got})), nil
	}
	return nil, fmt.Errorf("schema id %d: %w", id, err)
}

// permit waits for the right to send one request and returns the time at
// which it is sent. While the registry is known to be down it refuses at once.
func (c *Client) permit(ctx context.Context) (time.Time, error) {
	now := c.cfg.Now()
	c.mu.RLock()
	until, why := c.backoff.until, c.backoff.why
	c.mu.RUnlock()
	if now.Before(until) {
		return now, fmt.Errorf("%w: next try in %s: %w", ErrUnavailable, until.Sub(now).Round(time.Millisecond), why)
	}
	if !c.limiter.AllowN(now, 1) {
		ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
		defer cancel()
		if err := c.limiter.Wait(ctx); err != nil {
			return now, fmt.Errorf("%w: too many questions: %w", ErrUnavailable, err)
		}
	}
	return c.cfg.Now(), nil
}

func unsupported(message string) error {
	return &codec.Error{Reason: schemas.SchemaUnsupported, Message: message}
}
