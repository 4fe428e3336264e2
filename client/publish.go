package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spillway/spillway/schemas"
)

// A pub is an event whose answer has not come.
type pub struct {
	frame  schemas.ClientFrame
	answer chan published // holds one
}

type published struct {
	id  string
	err *Error
}

// Publish publishes an event and returns its id when it is held durably. An
// empty key is made up: with a key of its own the caller may publish again
// after an error, and the event still comes once. An id of "" means that the
// tenant's policy takes it from the data. What a node refuses for the moment
// is tried again until ctx ends; any other refusal is an *Error.
func (c *Client) Publish(ctx context.Context, channel, eventType, key string, data json.RawMessage) (id string, err error) {
	if key == "" {
		key = rand.Text()
	}
	for {
		id, err := c.publishOnce(ctx, schemas.ClientFrame{T: "pub", Ch: channel, Type: eventType, Key: key, Data: data})
		var refused *Error
		if !errors.As(err, &refused) || refused.Retry == "no" {
			return id, err
		}
		t := time.NewTimer(max(refused.After, 50*time.Millisecond))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return "", fmt.Errorf("publish to %s: %w: %w", channel, ctx.Err(), refused)
		}
	}
}

func (c *Client) publishOnce(ctx context.Context, f schemas.ClientFrame) (string, error) {
	p := &pub{answer: make(chan published, 1)}
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return "", c.err
	}
	c.lastN++
	f.N = c.lastN
	p.frame = f
	c.pubs[f.N] = p
	l := c.link
	c.mu.Unlock()
	if l != nil {
		l.send(f)
	}
	defer func() {
		c.mu.Lock()
		delete(c.pubs, f.N)
		c.mu.Unlock()
	}()
	var why error
	select {
	case a := <-p.answer:
		return a.result()
	case <-ctx.Done():
		why = fmt.Errorf("publish to %s: %w", f.Ch, ctx.Err())
	case <-c.done:
		why = c.Err()
	}
	select {
	case a := <-p.answer: // it came just before
		return a.result()
	default:
		return "", why
	}
}

func (a published) result() (id string, err error) {
	if a.err != nil {
		return "", a.err
	}
	return a.id, nil
}

func (c *Client) published(n int64, id string, err *Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.pubs[n]; p != nil {
		select {
		case p.answer <- published{id, err}:
		default: // answered before
		}
	}
}
