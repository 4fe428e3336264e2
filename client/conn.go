package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/spillway/spillway/schemas"
)

// handshakeTimeout bounds connecting, from the first byte to welcome.
const handshakeTimeout = 15 * time.Second

// maxFrame is the largest frame a node sends (DESIGN section 9: 1 MiB), with
// room for one event more.
const maxFrame = 4 << 20

// A Conn is a client's connection to Spillway, whatever socket carries it at
// the moment. Its methods may be called from any goroutine.
type Conn struct {
	cfg      Config
	messages chan Message // closed by run
	cancel   context.CancelFunc
	ended    chan struct{}

	mu      sync.Mutex
	subs    map[string]*sub // by pattern
	byID    map[int]*sub    // on the present socket
	waiting map[int64]chan answer
	socket  *websocket.Conn // nil while broken
	up      chan struct{}   // closed when socket is set; replaced when it breaks
	err     error           // why it ended
	lastN   int64

	url atomic.Pointer[string] // where a drain sent us
}

// sub is one subscription. All fields are guarded by Conn.mu.
type sub struct {
	Subscription
	id        int
	cursor    string // "" before the node said where it is
	seen      recent
	confirmed chan struct{} // closed at the first confirmation
}

type answer struct {
	id  string
	err error
}

// Dial connects, shows the token and subscribes. It returns when the node has
// welcomed the client, or with the reason why it cannot; later breaks are
// mended silently and told as Resumed.
func Dial(ctx context.Context, cfg Config, subs ...Subscription) (*Conn, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	c := &Conn{
		cfg: cfg, messages: make(chan Message, cfg.Buffer), ended: make(chan struct{}), up: make(chan struct{}),
		subs: map[string]*sub{}, waiting: map[int64]chan answer{},
	}
	for _, s := range subs {
		c.add(s)
	}
	socket, frame, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	var life context.Context
	life, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go c.run(life, socket, frame)
	return c, nil
}

func (c *Conn) add(s Subscription) *sub {
	if s.From.json == nil {
		s.From = Live
	}
	n := &sub{Subscription: s, confirmed: make(chan struct{})}
	c.subs[s.Channel] = n
	return n
}

// Messages hands out what arrives, in the order of the log for each
// subscription. It is closed when the Conn has ended; Err says why.
func (c *Conn) Messages() <-chan Message { return c.messages }

// Err is why the Conn ended, nil while it lives.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the Conn and returns when its goroutine has ended. What is still
// in Messages may be read.
func (c *Conn) Close() {
	c.cancel()
	<-c.ended
}

// Subscribe adds a subscription and returns when a node has confirmed it. A
// channel that is subscribed already stays as it is.
func (c *Conn) Subscribe(ctx context.Context, s Subscription) error {
	c.mu.Lock()
	n, known := c.subs[s.Channel]
	if !known {
		n = c.add(s)
	}
	socket := c.socket
	c.mu.Unlock()
	if !known && socket != nil {
		frame := schemas.ClientFrame{T: "sub", Subs: []schemas.SubRequest{n.request()}}
		if err := write(ctx, socket, frame); err != nil && ctx.Err() != nil {
			return ctx.Err() // a broken socket is mended, and the next one subscribes
		}
	}
	select {
	case <-n.confirmed:
		return nil
	case <-c.ended:
		return c.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Unsubscribe ends a subscription; what is in Messages already stays there.
func (c *Conn) Unsubscribe(ctx context.Context, channel string) error {
	c.mu.Lock()
	n, ok := c.subs[channel]
	socket := c.socket
	if ok {
		delete(c.subs, channel)
		delete(c.byID, n.id)
	}
	c.mu.Unlock()
	if !ok || socket == nil {
		return nil
	}
	return write(ctx, socket, schemas.ClientFrame{T: "unsub", ID: []int{n.id}})
}

// Cursor is how far a subscription has come, for resuming it elsewhere with
// After; "" if it is not subscribed or not confirmed yet.
func (c *Conn) Cursor(channel string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n, ok := c.subs[channel]; ok {
		return n.cursor
	}
	return ""
}

// Publish writes an event to a channel of the token's tenant and returns its
// id once Kafka holds it. key makes it the same event when it is sent again;
// "" makes a new one. After a break it is sent again with the same key.
func (c *Conn) Publish(ctx context.Context, channel, eventType, key string, data json.RawMessage) (id string, err error) {
	if key == "" {
		key = rand.Text()
	}
	for {
		c.mu.Lock()
		up := c.up
		c.mu.Unlock()
		select {
		case <-up:
		case <-c.ended:
			return "", c.Err()
		case <-ctx.Done():
			return "", ctx.Err()
		}
		id, err = c.publish(ctx, schemas.ClientFrame{T: "pub", Ch: channel, Type: eventType, Key: key, Data: data})
		if !errors.Is(err, errBroken) {
			return id, err
		}
	}
}

var errBroken = errors.New("client: the connection broke")

func (c *Conn) publish(ctx context.Context, f schemas.ClientFrame) (string, error) {
	got := make(chan answer, 1)
	c.mu.Lock()
	socket := c.socket
	c.lastN++
	f.N = c.lastN
	c.waiting[f.N] = got
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, f.N)
		c.mu.Unlock()
	}()
	if socket == nil || write(ctx, socket, f) != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", errBroken
	}
	select {
	case a := <-got:
		return a.id, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (n *sub) request() schemas.SubRequest {
	r := schemas.SubRequest{Ch: n.Channel, From: n.From.json, OnLag: n.OnLag}
	if n.cursor != "" {
		r.From = quote(n.cursor)
	}
	return r
}

func write(ctx context.Context, socket *websocket.Conn, f schemas.ClientFrame) error {
	b, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("client: %s frame: %w", f.T, err)
	}
	return socket.Write(ctx, websocket.MessageText, b)
}

// connect opens a socket up to welcome, which it returns.
func (c *Conn) connect(ctx context.Context) (*websocket.Conn, schemas.ServerFrame, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	var welcome schemas.ServerFrame
	token, err := c.cfg.Token(ctx)
	if err != nil {
		return nil, welcome, fmt.Errorf("client: token: %w", err)
	}
	address := c.cfg.URL
	if to := c.url.Swap(nil); to != nil {
		address = *to
	}
	socket, resp, err := websocket.Dial(ctx, address, &websocket.DialOptions{
		Subprotocols: []string{schemas.Subprotocol}, HTTPClient: c.cfg.HTTPClient,
	})
	if err != nil {
		return nil, welcome, handshakeError(resp, err)
	}
	socket.SetReadLimit(maxFrame)
	if welcome, err = c.greet(ctx, socket, token); err != nil {
		_ = socket.CloseNow() // it is of no use, whatever it says
		return nil, welcome, err
	}
	return socket, welcome, nil
}

func handshakeError(resp *http.Response, err error) error {
	err = fmt.Errorf("client: connect: %w", err)
	if resp == nil {
		return err
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		return &Refused{schemas.AuthFailed, err.Error()}
	case http.StatusForbidden:
		return &Refused{schemas.Forbidden, err.Error()}
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return &busy{min(time.Duration(seconds)*time.Second, 30*time.Second), err}
	}
	return err
}

// greet waits for hello, answers with token and subscriptions, and waits for
// welcome.
func (c *Conn) greet(ctx context.Context, socket *websocket.Conn, token string) (schemas.ServerFrame, error) {
	hello, err := read(ctx, socket)
	if err != nil {
		return hello, err
	}
	if hello.T != "hello" || hello.V != schemas.ProtocolVersion {
		return hello, &Refused{schemas.VersionUnknown, fmt.Sprintf("the node greets with %q version %d", hello.T, hello.V)}
	}
	auth := schemas.ClientFrame{T: "auth", Tok: token}
	c.mu.Lock()
	for _, n := range c.subs {
		auth.Subs = append(auth.Subs, n.request())
	}
	c.mu.Unlock()
	if err := write(ctx, socket, auth); err != nil {
		return hello, err
	}
	for {
		f, err := read(ctx, socket)
		switch {
		case err != nil:
			return f, err
		case f.T == "welcome":
			return f, nil
		case f.T == "err" && f.Retry == "no":
			return f, &Refused{f.Code, f.Msg}
		case f.T == "err":
			return f, &busy{time.Duration(f.MS) * time.Millisecond, fmt.Errorf("client: %s: %s", f.Code, f.Msg)}
		}
	}
}

func read(ctx context.Context, socket *websocket.Conn) (schemas.ServerFrame, error) {
	var f schemas.ServerFrame
	_, b, err := socket.Read(ctx)
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return f, fmt.Errorf("client: frame: %w", err)
	}
	return f, nil
}
