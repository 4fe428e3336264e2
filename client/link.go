package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/spillway/spillway/schemas"
)

// maxFrame bounds a node's frame, in bytes: an event of 1 MiB and what is
// around it.
const maxFrame = 2 << 20

// writeTimeout bounds a write to a node that does not read; then the
// connection is given up.
const writeTimeout = 10 * time.Second

// A link is one connection.
type link struct {
	c     *Client
	ws    *websocket.Conn
	ping  time.Duration // the node pings an idle connection so often
	heard atomic.Int64  // when something last came, Unix ns

	leaving bool // owned by the reading goroutine: the node has said that it drains

	// Guarded by c.mu.
	ids     map[int]*Sub
	asks    []*ask          // sub frames without an answer, oldest first
	resumed map[*Sub]string // until it is installed: where its welcome said that each goes on

	watch sync.WaitGroup
	ctx   context.Context // ends with close, or with the client
	end   context.CancelFunc
	raw   net.Conn // under ws; nil if the HTTP client does not tell
}

// A refusedError is a handshake that was answered with an HTTP error.
type refusedError struct {
	status int
	after  time.Duration // Retry-After
	body   string
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("the node answers %d %s: %s", e.status, http.StatusText(e.status), e.body)
}

func (e *refusedError) fatal() bool {
	return e.status >= 400 && e.status < 500 && e.status != http.StatusTooManyRequests && e.status != http.StatusRequestTimeout
}

// connect opens a connection, authenticates, and asks for all subscriptions.
func (c *Client) connect(ctx context.Context, url string) (*link, error) {
	token := c.cfg.Token
	if c.cfg.TokenSource != nil {
		var err error
		if token, err = c.cfg.TokenSource(ctx); err != nil {
			return nil, fmt.Errorf("ask for a token: %w", err)
		}
	}
	var raw net.Conn
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) { raw = got.Conn }})
	ws, resp, err := websocket.Dial(traced, url, &websocket.DialOptions{Subprotocols: []string{schemas.Subprotocol}, HTTPClient: c.cfg.HTTPClient})
	if err != nil {
		return nil, dialError(err, resp)
	}
	ws.SetReadLimit(maxFrame)
	l := &link{c: c, ws: ws, raw: raw, ids: make(map[int]*Sub), resumed: make(map[*Sub]string)}
	l.ctx, l.end = context.WithCancel(c.ctx)
	if err := l.greet(ctx, token); err != nil {
		l.close()
		return nil, err
	}
	l.heard.Store(time.Now().UnixNano())
	l.watch.Go(l.watchdog)
	return l, nil
}

func dialError(err error, resp *http.Response) error {
	if resp == nil || resp.StatusCode == http.StatusSwitchingProtocols {
		return err
	}
	e := &refusedError{status: resp.StatusCode}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 && s < 3600 {
		e.after = time.Duration(s) * time.Second
	}
	if resp.Body != nil {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // what came is enough for a message
		e.body = string(b)
	}
	return e
}

// greet does hello, auth and welcome.
func (l *link) greet(ctx context.Context, token string) error {
	hello, err := l.read(ctx)
	if err != nil {
		return err
	}
	if hello.T != "hello" || hello.V != schemas.ProtocolVersion {
		return fmt.Errorf("the node speaks %q version %d, not version %d", hello.T, hello.V, schemas.ProtocolVersion)
	}
	l.ping = time.Duration(hello.Ping) * time.Millisecond
	subs, frame := l.c.authFrame(token)
	if err := l.write(ctx, frame); err != nil {
		return err
	}
	var errs []*Error
	for {
		f, err := l.read(ctx)
		if err != nil && len(errs) > 0 {
			return fmt.Errorf("%w: %w", errs[len(errs)-1], err)
		}
		if err != nil {
			return err
		}
		switch f.T {
		case "err":
			errs = append(errs, errorOf(&f))
		case "welcome":
			return l.c.confirm(l, subs, f.Subs, errs)
		}
	}
}

func errorOf(f *schemas.ServerFrame) *Error {
	return &Error{Code: f.Code, Msg: f.Msg, Retry: f.Retry, After: time.Duration(f.MS) * time.Millisecond}
}

// authFrame asks for all subscriptions from where they are.
func (c *Client) authFrame(token string) ([]*Sub, schemas.ClientFrame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	frame := schemas.ClientFrame{T: "auth", Tok: token}
	var subs []*Sub
	for _, s := range c.subs {
		subs = append(subs, s)
		frame.Subs = append(frame.Subs, s.request())
	}
	return subs, frame
}

func sameLog(a, b string) bool {
	return len(a) == cursorLen && len(b) == cursorLen && a[:epochLen] == b[:epochLen]
}

// idOf is the number that the node gave a subscription, -1 if none. c.mu held.
func (l *link) idOf(s *Sub) int {
	for id, other := range l.ids {
		if other == s {
			return id
		}
	}
	return -1
}

func (l *link) read(ctx context.Context) (schemas.ServerFrame, error) {
	var f schemas.ServerFrame
	_, b, err := l.ws.Read(ctx)
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return f, fmt.Errorf("the node's frame cannot be read: %w", err)
	}
	return f, nil
}

func (l *link) write(ctx context.Context, f schemas.ClientFrame) error {
	b, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode a frame: %w", err)
	}
	return l.ws.Write(ctx, websocket.MessageText, b)
}

// send writes a frame. A failure needs no answer: the connection has ended, or
// ends with it, and what the frame asked for is asked again on the next one.
func (l *link) send(f schemas.ClientFrame) {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	if err := l.write(ctx, f); err != nil {
		l.c.cfg.Logger.Debug("write", "err", err)
	}
}

// watchdog gives a connection up on which nothing came for so long that the
// node must have pinged.
func (l *link) watchdog() {
	if l.ping <= 0 {
		return
	}
	t := time.NewTicker(l.ping)
	defer t.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-t.C:
			if time.Since(time.Unix(0, l.heard.Load())) > 3*l.ping {
				l.ws.CloseNow()
				return
			}
		}
	}
}

// leaveTimeout is how long a node may take to answer a goodbye.
const leaveTimeout = time.Second

// leave says goodbye.
func (l *link) leave() {
	t := time.AfterFunc(leaveTimeout, func() {
		if l.raw != nil {
			_ = l.raw.Close() // ws waits 5 s more, whatever is asked of it
		}
	})
	defer t.Stop()
	l.ws.Close(websocket.StatusNormalClosure, "")
}

// close ends the connection without a word.
func (l *link) close() {
	l.end()
	l.ws.CloseNow()
	l.watch.Wait()
}
