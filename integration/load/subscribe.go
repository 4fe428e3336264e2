package load

import (
	"context"
	"errors"
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

// lingerFor is how long a subscriber stays after the last event: longer than
// any second copy is sent later than the first.
const lingerFor = maxRepeat + 500*time.Millisecond

// subscribers are all clients of a run. Each request's channel has one of its
// own, which comes and goes like a browser; each tenant has one for "*".
type subscribers struct {
	plan   *Plan
	ledger *Ledger
	url    string
	token  func(tenant string) string
	now    clock
	http   *http.Client

	gaps, reconnects, foreign atomic.Int64
	unreachable               atomic.Int64 // Unix ms since which a node was out of reach at some time; 0: never

	mu    sync.Mutex
	noisy []time.Duration // when the noisy tenant's exact subscriber got each event
}

// star follows everything of a tenant until ctx ends.
func (s *subscribers) star(ctx context.Context, tenant string, ready func()) error {
	return s.follow(ctx, tenant, "*", func(id string, at time.Duration) bool {
		s.saw(s.ledger.Got(tenant, "*", id, at), false)
		return false
	}, ready)
}

// exact follows the channel of one request until all of it has come.
func (s *subscribers) exact(ctx context.Context, r *Request) error {
	select {
	case <-time.After(r.Start - subscribeAhead - s.now()):
	case <-ctx.Done():
		return nil
	}
	return s.follow(ctx, r.Tenant, r.Channel, func(id string, at time.Duration) bool {
		sight := s.ledger.Got(r.Tenant, r.Channel, id, at)
		s.saw(sight, true)
		if r.Noisy && sight == First {
			s.mu.Lock()
			s.noisy = append(s.noisy, at)
			s.mu.Unlock()
		}
		return s.ledger.Done(Exact, r.Index)
	}, func() {})
}

// saw counts what must not be seen. On "*" strangers are events of earlier
// runs; on a channel that only this run uses they are not.
func (s *subscribers) saw(sight Sight, exact bool) {
	if sight == Foreign || sight == Stranger && exact {
		s.foreign.Add(1)
	}
}

// follow subscribes and hands every event's id to got until that says that it
// was the last, or ctx ends. ready is called once it is subscribed, or cannot
// be. A node that cannot serve it for the moment is asked again.
func (s *subscribers) follow(ctx context.Context, tenant, channel string, got func(id string, at time.Duration) bool, ready func()) error {
	ready = sync.OnceFunc(ready)
	defer ready()
	wanted := time.Now()
	for ctx.Err() == nil {
		again, err := s.session(ctx, tenant, channel, got, ready)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil || !again {
			return err
		}
		s.reconnects.Add(1)
		s.unreachable.CompareAndSwap(0, wanted.UnixMilli())
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil
}

// session is one client's life. again says that its error may pass.
func (s *subscribers) session(ctx context.Context, tenant, channel string, got func(id string, at time.Duration) bool, ready func()) (again bool, err error) {
	c, err := client.Dial(ctx, client.Config{URL: s.url, Token: s.token(tenant), KeepRepeats: true, HTTPClient: s.http})
	if err != nil {
		return mayPass(err), fmt.Errorf("connect %s: %w", tenant, err)
	}
	defer c.Close()
	done := make(chan struct{})
	ended := false // owned by the handler
	_, err = c.SubscribeFunc(ctx, channel, s.from(), client.Handler{
		OnEvent: func(e client.Event) {
			if got(e.ID(), s.now()) && !ended {
				ended = true
				close(done)
			}
		},
		OnGap: func(*client.Gap) { s.gaps.Add(1) },
	})
	if err != nil {
		return mayPass(err), fmt.Errorf("subscribe %s to %s: %w", tenant, channel, err)
	}
	ready()
	select {
	case <-done: // a repeat of the last event may come yet, and must not
		select {
		case <-time.After(lingerFor):
		case <-ctx.Done():
		}
	case <-ctx.Done():
	case <-c.Done():
		return false, fmt.Errorf("subscriber of %s to %s: %w", tenant, channel, c.Err())
	}
	s.reconnects.Add(max(0, c.Stats().Connects-1))
	return false, nil
}

// mayPass reports whether an error is not a node's final word.
func mayPass(err error) bool {
	var refused *client.Error
	return !errors.As(err, &refused) || refused.Retry != "no"
}

// from is where a subscription begins: live, or where it was first wanted if
// no node could be reached then, so that nothing published meanwhile is missed.
func (s *subscribers) from() client.From {
	if since := s.unreachable.Load(); since != 0 {
		return client.Since(time.UnixMilli(since))
	}
	return client.Live
}
