package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// Config says whom to connect to, and as whom.
type Config struct {
	// URL is the fan-out's address: ws://host:8090, wss://…; /v1/ws is added if
	// it has no path. Required.
	URL string
	// Token returns the JWT to show; it is asked again for every connection, so
	// it may be fresh each time. Required. See Static.
	Token func(ctx context.Context) (string, error)
	// Buffer is how many messages wait for the reader of Messages; when it is
	// full the socket is read no further, and the node sees a slow client.
	// 0 is 1024.
	Buffer int
	// KeepRepeats hands out events again that were handed out before: for those
	// who count what a node sends.
	KeepRepeats bool
	// HTTPClient makes the handshakes; nil is one of its own.
	HTTPClient *http.Client
	// Logger is told of breaks at debug; nil is nobody.
	Logger *slog.Logger
}

// Static is a Token that never changes.
func Static(token string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return token, nil }
}

func (c *Config) setDefaults() error {
	if !strings.HasPrefix(c.URL, "ws://") && !strings.HasPrefix(c.URL, "wss://") {
		return fmt.Errorf("client: URL %q must begin with ws:// or wss://", c.URL)
	}
	c.URL = withPath(c.URL)
	if c.Token == nil {
		return errors.New("client: Token is required")
	}
	if c.Buffer == 0 {
		c.Buffer = 1024
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

func withPath(address string) string {
	if _, rest, _ := strings.Cut(address, "://"); !strings.Contains(rest, "/") {
		return address + "/v1/ws"
	}
	return address
}

// From says where a subscription begins.
type From struct{ json json.RawMessage }

var (
	Live  = From{json.RawMessage(`"live"`)}  // with the next event
	Begin = From{json.RawMessage(`"begin"`)} // with the oldest that is kept
)

// After begins with the first event after a cursor.
func After(cursor string) From { return From{quote(cursor)} }

// Since begins with the first event that was accepted at t or later.
func Since(t time.Time) From {
	return From{fmt.Appendf(nil, `{"ts":%d}`, t.UnixMilli())}
}

// Last begins with the last n events of the channel.
func Last(n int) From { return From{fmt.Appendf(nil, `{"last":%d}`, n)} }

func quote(s string) json.RawMessage {
	b, err := json.Marshal(s)
	if err != nil {
		panic("client: a string that is no JSON: " + err.Error())
	}
	return b
}

// A Subscription asks for a channel, prefix.* or *.
type Subscription struct {
	Channel string
	From    From   // zero: Live
	OnLag   string // when it falls too far behind: "gap" (default), "latest", "close"
}
