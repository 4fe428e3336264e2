package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// maxBatch is how many events a sender puts into one request at most: what
// piled up while the last one was under way.
const maxBatch = 200

// tick is how often a sender looks for what is due. Finer sleeps are not
// reliable and would distort what is measured.
const tick = time.Millisecond

// counters are what the progress line shows.
type counters struct{ offered, retried, malformed atomic.Int64 }

// An httpSender offers one tenant's events in order, one request at a time.
type httpSender struct {
	plan   *Plan
	run    string
	url    string // of POST /v1/events
	token  string
	client *http.Client
	now    clock
	count  *counters
	body   []byte
}

// play sends everything in sends when it is due.
func (s *httpSender) play(ctx context.Context, sends []Send) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for len(sends) > 0 {
		n, now := 0, s.now()
		for n < len(sends) && n < maxBatch && sends[n].At <= now {
			n++
		}
		if n == 0 {
			select {
			case <-ticker.C:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := s.post(ctx, sends[:n]); err != nil {
			return err
		}
		s.count.offered.Add(int64(n))
		sends = sends[n:]
	}
	return nil
}

// post sends one batch until it is acknowledged. The same ids make a repeat
// safe, so anything but a refusal is tried again.
func (s *httpSender) post(ctx context.Context, sends []Send) error {
	s.body = append(s.body[:0], '[')
	for i, e := range sends {
		if i > 0 {
			s.body = append(s.body, ',')
		}
		s.body = s.plan.appendEvent(s.body, s.run, &s.plan.Requests[e.Req], int(e.Seq))
	}
	s.body = append(s.body, ']')
	for {
		wait, err := s.try(ctx)
		if err == nil {
			return nil
		}
		if wait < 0 || ctx.Err() != nil {
			return err
		}
		s.count.retried.Add(1)
		select {
		case <-time.After(wait + rand.N(50*time.Millisecond)):
		case <-ctx.Done():
			return err
		}
	}
}

// try sends the body once. On an error wait says how long to wait before the
// next try, or is negative if there must be none.
func (s *httpSender) try(ctx context.Context) (wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(s.body))
	if err != nil {
		return -1, err
	}
	req.Header.Set("Content-Type", "application/cloudevents-batch+json")
	req.Header.Set("Authorization", "Bearer "+s.token)
	resp, err := s.client.Do(req)
	if err != nil {
		return 100 * time.Millisecond, fmt.Errorf("offer events: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return 100 * time.Millisecond, fmt.Errorf("offer events: %w", err)
	}
	switch {
	case resp.StatusCode == http.StatusAccepted:
		return 0, nil
	case resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusBadGateway:
		after, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return min(time.Duration(after)*time.Second, 5*time.Second), fmt.Errorf("offer events: %s: %s", resp.Status, answer)
	}
	return -1, fmt.Errorf("offer events: %s: %s", resp.Status, answer)
}

// A kafkaSender offers events as any Kafka client would, malformed ones too.
type kafkaSender struct {
	plan   *Plan
	run    string
	topic  string
	ids    schemaIDs
	client *kgo.Client
	now    clock
	count  *counters
}

func (s *kafkaSender) play(ctx context.Context, sends []Send) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var failed atomic.Pointer[error]
	for len(sends) > 0 && failed.Load() == nil {
		if sends[0].At > s.now() {
			select {
			case <-ticker.C:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		s.client.Produce(ctx, s.make(sends[0]), func(r *kgo.Record, err error) {
			if err != nil {
				err = fmt.Errorf("offer over Kafka: %w", err)
				failed.CompareAndSwap(nil, &err)
			}
		})
		sends = sends[1:]
	}
	err := s.client.Flush(ctx)
	if p := failed.Load(); p != nil {
		err = errors.Join(*p, err)
	}
	return err
}

func (s *kafkaSender) make(e Send) *kgo.Record {
	if e.Seq >= 0 {
		s.count.offered.Add(1)
		return s.plan.record(s.topic, s.run, s.ids, &s.plan.Requests[e.Req], int(e.Seq))
	}
	s.count.malformed.Add(1)
	kind := malformed[^e.Seq]
	whole := Request{Index: int(e.Req), Tenant: s.plan.Tenants[int(e.Req)%len(s.plan.Tenants)], Channel: s.run + ".bad", Tokens: 1}
	rec := s.plan.record(s.topic, s.run+"-bad", s.ids, &whole, 0)
	kind.make(rec)
	setHeader(rec, runHeader, s.run)
	return rec
}

// runHeader marks malformed records, so that their dead letters are found
// whatever else is wrong with them.
const runHeader = "x-load-run"
