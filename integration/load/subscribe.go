package load

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway/spillway/client"
)

// subscribeAhead is how long before its first token a channel's subscriber
// connects.
const subscribeAhead = 1500 * time.Millisecond

// subscribers are all clients of a run. Each request's channel has one of its
// own, which comes and goes like a browser; each tenant has one for "*".
type subscribers struct {
	plan   *Plan
	ledger *Ledger
	url    string
	token  func(tenant string) string
	now    clock
	http   *http.Client

	gaps, reconnects, strangers atomic.Int64

	mu    sync.Mutex
	noisy []time.Duration // when the noisy tenant's exact subscriber got each event
}

// star follows everything of a tenant until ctx ends.
func (s *subscribers) star(ctx context.Context, tenant string, ready func()) error {
	c, err := s.dial(ctx, tenant, client.Subscription{Channel: "*"})
	ready()
	if err != nil {
		return err
	}
	defer c.Close()
	return s.follow(ctx, c, Star, nil)
}

// exact follows the channel of one request until all of it has come.
func (s *subscribers) exact(ctx context.Context, r *Request, ready func()) error {
	if !s.sleepUntil(ctx, r.Start-subscribeAhead) {
		return ctx.Err()
	}
	c, err := s.dial(ctx, r.Tenant, client.Subscription{Channel: r.Channel})
	ready()
	if err != nil {
		return err
	}
	defer c.Close()
	return s.follow(ctx, c, Exact, r)
}

func (s *subscribers) sleepUntil(ctx context.Context, at time.Duration) bool {
	select {
	case <-time.After(at - s.now()):
		return true
	case <-ctx.Done():
		return false
	}
}

// dial connects as often as it takes. What is published while no node can be
// reached is not missed: the subscription begins when it was first wanted.
func (s *subscribers) dial(ctx context.Context, tenant string, sub client.Subscription) (*client.Conn, error) {
	wanted := time.Now()
	for {
		c, err := client.Dial(ctx, client.Config{
			URL: s.url, Token: client.Static(s.token(tenant)), KeepRepeats: true, HTTPClient: s.http,
		}, sub)
		if err == nil || ctx.Err() != nil {
			return c, err
		}
		if _, refused := err.(*client.Refused); refused {
			return nil, fmt.Errorf("subscribe %s to %s: %w", tenant, sub.Channel, err)
		}
		s.reconnects.Add(1)
		sub.From = client.Since(wanted)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// follow notes what arrives; with r it returns when all of r has.
func (s *subscribers) follow(ctx context.Context, c *client.Conn, kind int, r *Request) error {
	for {
		select {
		case m, ok := <-c.Messages():
			if !ok {
				return fmt.Errorf("subscriber: %w", c.Err())
			}
			s.message(m, kind, r)
			if r != nil && s.ledger.Done(kind, r.Index) {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *subscribers) message(m client.Message, kind int, r *Request) {
	switch m := m.(type) {
	case client.Event:
		at := s.now()
		if !s.ledger.Got(kind, m.ID, at) {
			s.strangers.Add(1) // events of earlier runs on "*"
		}
		if r != nil && r.Noisy {
			s.mu.Lock()
			s.noisy = append(s.noisy, at)
			s.mu.Unlock()
		}
	case client.Gap:
		s.gaps.Add(1)
	case client.Resumed:
		s.reconnects.Add(1)
	}
}
