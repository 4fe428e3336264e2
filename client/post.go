package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// A Post sends events to ingest over HTTP, without a connection that stays.
// The zero values of its fields leave to Spillway what they say.
type Post struct {
	URL   string // base address of ingest; required
	Token string // a producer's; required
	HTTP  *http.Client

	Type     string // full name of a registered record
	Channel  string
	Key      string // idempotency key
	Priority string // fast or slow
}

// Accepted is where Kafka holds an event.
type Accepted struct {
	ID        string
	Partition int32
	Offset    int64
}

// maxAccepted bounds the answer about one event.
const maxAccepted = 1 << 20

// Send sends one event's data, JSON, and returns when Kafka holds it. id may be
// "". The error of a refusal has its code and what to do.
func (p Post) Send(ctx context.Context, id string, data []byte) (Accepted, error) {
	q := url.Values{}
	for name, value := range map[string]string{"type": p.Type, "subject": p.Channel, "id": id, "key": p.Key, "priority": p.Priority} {
		if value != "" {
			q.Set(name, value)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(p.URL, "/")+"/v1/events?"+q.Encode(), bytes.NewReader(data))
	if err != nil {
		return Accepted{}, err
	}
	req.Header.Set("Authorization", "Bearer "+p.Token)
	req.Header.Set("Content-Type", "application/json")
	c := p.HTTP
	if c == nil {
		c = http.DefaultClient
	}
	resp, err := c.Do(req)
	if err != nil {
		return Accepted{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAccepted))
	if err != nil {
		return Accepted{}, err
	}
	return accepted(resp, text)
}

func accepted(resp *http.Response, text []byte) (Accepted, error) {
	var got struct {
		Events []Accepted
		Error  struct{ Code, Message, Fix string }
	}
	err := json.Unmarshal(text, &got)
	switch {
	case err == nil && got.Error.Fix != "":
		return Accepted{}, fmt.Errorf("%s: %s (%s)", got.Error.Code, got.Error.Message, got.Error.Fix)
	case err == nil && got.Error.Code != "":
		return Accepted{}, fmt.Errorf("%s: %s", got.Error.Code, got.Error.Message)
	case err != nil || resp.StatusCode != http.StatusAccepted || len(got.Events) != 1:
		return Accepted{}, fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(text))
	}
	return got.Events[0], nil
}
