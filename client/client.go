package client

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

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

	askMu sync.Mutex // held while a sub frame is noted and sent: answers come in that order

	mu    sync.Mutex // guards:
	err   error      // why it ended
	link  *link      // nil while there is none
	next  *link      // replaces link, which is drained
	subs  map[string]*Sub
	asks  []*ask // sub frames without an answer, oldest first
	pubs  map[int64]*pub
	lastN int64
	count Stats
}

// Stats counts what a Client lived through.
type Stats struct {
	Connects int64 // connections that a node welcomed
	Holes    int64 // times that something was missing between two frames; subscribed again
}

// An ask is a sub frame.
type ask struct {
	sub    *Sub
	errs   []*Error // err frames that came since
	answer chan error
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
	c.install(l)
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
// goroutines have ended.
func (c *Client) Close() error {
	c.fail(ErrClosed)
	c.cancel()
	c.mu.Lock()
	links := []*link{c.link, c.next}
	c.mu.Unlock()
	for _, l := range links {
		if l != nil {
			l.leave()
		}
	}
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
	s.c, s.ended, s.seed = c, make(chan struct{}), maphash.MakeSeed()
	if s.handler == nil {
		s.queue = make(chan batch, c.cfg.Queue)
	}
	a, err := c.add(s)
	if err != nil {
		return nil, err
	}
	select {
	case err := <-a.answer:
		if err != nil {
			return nil, err
		}
		return s, nil
	case <-ctx.Done():
		c.unsubscribe(s)
		return nil, fmt.Errorf("subscribe to %s: %w", s.channel, ctx.Err())
	case <-c.ctx.Done():
		return nil, c.Err()
	}
}

// add asks for a new subscription; with no connection now, the next one does.
func (c *Client) add(s *Sub) (*ask, error) {
	c.askMu.Lock()
	defer c.askMu.Unlock()
	c.mu.Lock()
	switch {
	case c.err != nil:
		defer c.mu.Unlock()
		return nil, c.err
	case c.subs[s.channel] != nil:
		c.mu.Unlock()
		return nil, fmt.Errorf("channel %s is subscribed already", s.channel)
	}
	c.subs[s.channel] = s
	a, l, frame := c.note(s), c.link, s.frame()
	c.mu.Unlock()
	if l != nil {
		l.send(frame)
	}
	return a, nil
}

// note remembers that a subscription is asked for, c.mu and askMu held.
func (c *Client) note(s *Sub) *ask {
	s.asking = true
	a := &ask{sub: s, answer: make(chan error, 1)}
	c.asks = append(c.asks, a)
	return a
}

// frame asks for a subscription alone, c.mu held.
func (s *Sub) frame() schemas.ClientFrame {
	return schemas.ClientFrame{T: "sub", Subs: []schemas.SubRequest{s.request()}}
}

func (c *Client) unsubscribe(s *Sub) {
	c.mu.Lock()
	if c.subs[s.channel] == s {
		delete(c.subs, s.channel)
	}
	s.end(nil)
	l, id := c.link, -1
	if l != nil {
		if id = l.idOf(s); id >= 0 {
			delete(l.ids, id)
		}
	}
	c.mu.Unlock()
	if id >= 0 {
		l.send(schemas.ClientFrame{T: "unsub", ID: []int{id}})
	}
}

// moved notes that a frame up to cursor was handed on.
func (c *Client) moved(s *Sub, cursor string, taken bool) {
	c.mu.Lock()
	s.cursor = cursor
	if taken {
		s.acked = cursor
	}
	c.mu.Unlock()
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
	for _, a := range c.asks {
		a.answer <- err
	}
	c.asks = nil
	c.cancel()
}

// install makes l the connection and asks on it for what its auth frame did
// not: subscriptions made meanwhile, and publishes without an answer.
func (c *Client) install(l *link) {
	c.askMu.Lock()
	defer c.askMu.Unlock()
	c.mu.Lock()
	c.link, c.next = l, nil
	c.count.Connects++
	var frames []schemas.ClientFrame
	for _, a := range c.asks { // in the order in which answers will come
		a.errs = nil
		frames = append(frames, a.sub.frame())
	}
	for _, s := range c.subs {
		switch {
		case !s.asking && l.idOf(s) < 0:
			c.note(s)
			frames = append(frames, s.frame())
		case sameLog(s.cursor, s.resumed) && s.cursor > s.resumed: // the connection before has brought more since
			s.overlap = s.cursor
		}
	}
	for id, s := range l.ids {
		if s.over {
			frames = append(frames, schemas.ClientFrame{T: "unsub", ID: []int{id}})
			delete(l.ids, id)
		}
	}
	pubs := slices.SortedFunc(maps.Values(c.pubs), func(a, b *pub) int { return int(a.frame.N - b.frame.N) })
	c.mu.Unlock()
	for _, p := range pubs { // same key: what was taken already is not taken twice
		frames = append(frames, p.frame)
	}
	for _, f := range frames {
		l.send(f)
	}
}

// run reads connection after connection.
func (c *Client) run(l *link) {
	defer close(c.done)
	for attempt := 0; ; {
		opened := time.Now()
		err := c.read(l)
		l.close()
		c.mu.Lock()
		next := c.next
		c.link = nil
		c.mu.Unlock()
		if next == nil {
			if time.Since(opened) > 5*time.Second {
				attempt = 0
			}
			next, err = c.reconnect(err, &attempt)
			if err != nil {
				c.fail(err)
				return
			}
		}
		c.install(next)
		l = next
	}
}

// reconnect tries until a node welcomes the client, or until trying again
// cannot help.
func (c *Client) reconnect(why error, attempt *int) (*link, error) {
	for {
		wait, fatal := c.backoff(why, *attempt)
		if c.ctx.Err() != nil {
			return nil, ErrClosed
		}
		if fatal {
			return nil, why
		}
		c.cfg.Logger.Info("connecting again", "after", wait, "err", why)
		*attempt++
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-c.ctx.Done():
			t.Stop()
			return nil, ErrClosed
		}
		ctx, cancel := context.WithTimeout(c.ctx, 15*time.Second)
		l, err := c.connect(ctx, c.url)
		cancel()
		if err == nil {
			return l, nil
		}
		why = err
	}
}

// backoff says how long to wait before connecting again, or that there is no
// use: close codes 40xx stop, 41xx back off, 42xx resume now.
func (c *Client) backoff(why error, attempt int) (wait time.Duration, fatal bool) {
	base := min(100*time.Millisecond<<min(attempt, 10), 10*time.Second)
	code := schemas.CloseCode(websocket.CloseStatus(why))
	var refused *refusedError
	var no *Error
	if errors.As(why, &no) {
		base = max(base, no.After)
	}
	switch {
	case errors.As(why, &refused):
		if refused.fatal() {
			return 0, true
		}
		base = max(base, refused.after)
		return base + rand.N(base/2+1), false
	case code == schemas.CloseTokenExpired:
		if c.cfg.TokenSource == nil {
			return 0, true
		}
	case code >= 4000 && code < 4100:
		return 0, true
	case code >= 4100 && code < 4200:
		base = max(base, time.Second)
	}
	return rand.N(base) + base/2, false
}
