package client

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/spillway/spillway/schemas"
)

// Config is what Dial needs: URL and a token.
type Config struct {
	URL         string                                    // of a node: ws, wss, http or https; without a path: /v1/ws
	Token       string                                    // JWT
	TokenSource func(ctx context.Context) (string, error) // asked before each connection, instead of Token
	Logger      *slog.Logger                              // reconnects are logged; nil: not
	HTTPClient  *http.Client                              // for the handshake; nil: http.DefaultClient
	KeepRepeats bool                                      // hand on what is in the log twice; else it is dropped by source and id
	Queue       int                                       // frames that a Sub without handler holds; 0: 64
}

// ErrClosed is why things end after Close.
var ErrClosed = errors.New("the client is closed")

// An Error is a node's word that it does not do what it was asked.
type Error struct {
	Code  schemas.Reason
	Msg   string
	Retry string // "no", "now", "after"
	After time.Duration
}

// Error is code and message.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Msg }

// A Client is a connection that is made anew when it breaks. Its methods may
// be called concurrently.
type Client struct {
	cfg    Config
	url    string
	ctx    context.Context // ends with the client
	cancel context.CancelFunc
	done   chan struct{} // closed when run has ended

	moves sync.WaitGroup // what leaves draining nodes; run waits for it

	askMu sync.Mutex // held while a sub or unsub frame is decided and sent: a node sees them in that order

	mu    sync.Mutex // guards:
	err   error      // why it ended
	link  *link      // nil while there is none
	next  *link      // replaces link, which is drained
	subs  map[string]*Sub
	pubs  map[int64]*pub
	lastN int64
	count Stats
}

// Stats counts what a Client lived through.
type Stats struct {
	Connects int64 // connections that a node welcomed
	Holes    int64 // times that something was missing between two frames; subscribed again
}

// Dial connects and authenticates. After that the Client looks after itself,
// until Close or an error that trying again does not cure.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	address, err := address(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Queue <= 0 {
		cfg.Queue = 64
	}
	c := &Client{cfg: cfg, url: address, done: make(chan struct{}), subs: make(map[string]*Sub), pubs: make(map[int64]*pub)}
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	l, err := c.connect(ctx, c.url)
	if err != nil {
		c.cancel()
		return nil, err
	}
	c.install(l) // nobody can have closed it
	go c.run(l)
	return c, nil
}

func address(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", fmt.Errorf("URL %q: %w", s, err)
	}
	switch u.Scheme {
	case "ws", "wss":
	case "http", "https":
		u.Scheme = "ws" + strings.TrimPrefix(u.Scheme, "http")
	default:
		return "", fmt.Errorf("URL %q: want ws, wss, http or https", s)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/ws"
	}
	return u.String(), nil
}

// Done is closed when the client has ended; Err says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is why the client ended: ErrClosed after Close, nil while it lives.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Stats is what happened so far.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// Close ends the client and all its subscriptions. It returns when its
// goroutines have ended, and the handler that is running with them.
func (c *Client) Close() error {
	c.fail(ErrClosed) // from now on install refuses: no other link appears
	c.mu.Lock()
	links := []*link{c.link, c.next}
	c.mu.Unlock()
	var leaving sync.WaitGroup
	for _, l := range links {
		if l != nil {
			leaving.Go(l.leave)
		}
	}
	leaving.Wait()
	<-c.done
	return nil
}

// Subscribe subscribes to a channel ("jobs.42"), a prefix ("jobs.*") or all
// ("*"), and returns when the node has confirmed it. Read Events. One Client
// has one subscription to a channel.
func (c *Client) Subscribe(ctx context.Context, channel string, from From) (*Sub, error) {
	return c.subscribe(ctx, &Sub{channel: channel, from: from})
}

// SubscribeFunc is Subscribe with a handler: the cheapest way, for there is no
// queue in between.
func (c *Client) SubscribeFunc(ctx context.Context, channel string, from From, h Handler) (*Sub, error) {
	if h.OnEvent == nil {
		return nil, errors.New("Handler.OnEvent is nil")
	}
	return c.subscribe(ctx, &Sub{channel: channel, from: from, handler: &h})
}

func (c *Client) subscribe(ctx context.Context, s *Sub) (*Sub, error) {
	s.c, s.ready, s.ended, s.seed = c, make(chan struct{}), make(chan struct{}), maphash.MakeSeed()
	if s.handler == nil {
		s.queue = make(chan batch, c.cfg.Queue)
	}
	if err := c.add(s); err != nil {
		return nil, err
	}
	select {
	case <-s.ready:
		return s, nil
	case <-s.ended: // refused, or with the client
		return nil, s.Err()
	case <-ctx.Done():
		c.unsubscribe(s)
		return nil, fmt.Errorf("subscribe to %s: %w", s.channel, ctx.Err())
	}
}

// fail ends the client with a reason; the first one counts.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	for _, s := range c.subs {
		s.end(err)
	}
	c.cancel()
}
