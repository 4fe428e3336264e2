package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
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

	ids map[int]*Sub // guarded by c.mu

	watch sync.WaitGroup
	gone  chan struct{} // closed by close
	once  sync.Once
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
	ws, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{Subprotocols: []string{schemas.Subprotocol}, HTTPClient: c.cfg.HTTPClient})
	if err != nil {
		return nil, dialError(err, resp)
	}
	ws.SetReadLimit(maxFrame)
	l := &link{c: c, ws: ws, ids: make(map[int]*Sub), gone: make(chan struct{})}
	if err := l.greet(ctx, token); err != nil {
		ws.CloseNow()
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

// confirm notes which of the subscriptions that were asked for are made. The
// others were refused, in order, by errs. It returns an error if the node
// cannot serve one for the moment that had been made before: then another
// connection must.
func (c *Client) confirm(l *link, asked []*Sub, made []schemas.Sub, errs []*Error) (again error) {
	var closed []int // confirmed, but nobody wants it any more
	defer func() {
		if len(closed) > 0 {
			l.send(schemas.ClientFrame{T: "unsub", ID: closed})
		}
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	byChannel := make(map[string]schemas.Sub, len(made))
	for _, m := range made {
		byChannel[m.Ch] = m
	}
	for _, s := range asked {
		s.asking = false
		m, ok := byChannel[s.channel]
		if ok && s.over {
			closed = append(closed, m.ID)
			c.answer(s, nil)
			continue
		}
		if ok {
			l.ids[m.ID] = s
			s.resumed = m.Cur
			if !sameLog(s.cursor, m.Cur) || m.Cur > s.cursor {
				s.cursor = m.Cur
			}
			c.answer(s, nil)
			continue
		}
		err := &Error{Code: schemas.Internal, Msg: "the node did not confirm channel " + s.channel, Retry: "no"}
		if len(errs) > 0 {
			err, errs = errs[0], errs[1:]
		}
		if err.Retry != "no" && s.cursor != "" && !s.over {
			again = err
			continue
		}
		if c.subs[s.channel] == s {
			delete(c.subs, s.channel)
		}
		s.end(err)
		c.answer(s, err)
	}
	return again
}

func sameLog(a, b string) bool {
	return len(a) == cursorLen && len(b) == cursorLen && a[:13] == b[:13]
}

// answer answers those who wait for a subscription, c.mu held.
func (c *Client) answer(s *Sub, err error) {
	left := c.asks[:0]
	for _, a := range c.asks {
		if a.sub == s {
			a.answer <- err
			continue
		}
		left = append(left, a)
	}
	c.asks = left
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
		case <-l.gone:
			return
		case <-t.C:
			if time.Since(time.Unix(0, l.heard.Load())) > 3*l.ping {
				l.ws.CloseNow()
				return
			}
		}
	}
}

// leave says goodbye.
func (l *link) leave() { l.ws.Close(websocket.StatusNormalClosure, "") }

func (l *link) close() {
	l.once.Do(func() { close(l.gone) })
	l.ws.CloseNow()
	l.watch.Wait()
}

// errBroken is a frame that no node sends.
var errBroken = errors.New("the node's frame cannot be read")

// read reads frames until the connection ends.
func (c *Client) read(l *link) error {
	var buf []byte
	for {
		_, r, err := l.ws.Reader(context.Background())
		if err != nil {
			return err
		}
		if buf, err = readAll(buf[:0], r); err != nil {
			return err
		}
		l.heard.Store(time.Now().UnixNano())
		if ev, ok := parseEv(buf); ok {
			if err := c.event(l, buf, ev); err != nil {
				return err
			}
			continue
		}
		var f schemas.ServerFrame
		if err := json.Unmarshal(buf, &f); err != nil {
			return fmt.Errorf("%w: %w", errBroken, err)
		}
		if err := c.frame(l, &f); err != nil {
			return err
		}
	}
}

func readAll(dst []byte, r io.Reader) ([]byte, error) {
	for {
		if len(dst) == cap(dst) {
			dst = append(dst, make([]byte, max(4096, cap(dst)))...)[:len(dst)]
		}
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if errors.Is(err, io.EOF) {
			return dst, nil
		}
		if err != nil {
			return dst, err
		}
	}
}

// event takes an ev frame. Frames that follow are handed on, repeats are
// dropped, and after a hole the subscription is asked for again.
func (c *Client) event(l *link, frame []byte, f evFrame) error {
	c.mu.Lock()
	s := l.ids[f.id]
	if s == nil || s.over || s.asking {
		c.mu.Unlock()
		return nil
	}
	where := relate(s.cursor, f.p, f.c)
	c.mu.Unlock()
	switch where {
	case repeats:
		return nil
	case hole:
		c.again(l, s)
		return nil
	}
	if s.handler == nil { // the queue keeps it
		frame = append([]byte(nil), frame...)
		f, _ = parseEv(frame)
	}
	_, err := s.deliver(frame, f)
	return err
}

// again subscribes from where a subscription is.
func (c *Client) again(l *link, s *Sub) {
	c.askMu.Lock()
	defer c.askMu.Unlock()
	c.mu.Lock()
	c.count.Holes++
	c.note(s)
	frame := s.frame()
	c.mu.Unlock()
	l.send(frame)
}

// frame takes any other frame.
func (c *Client) frame(l *link, f *schemas.ServerFrame) error {
	switch f.T {
	case "ev": // not as nodes write it
		return fmt.Errorf("%w: %q", errBroken, "ev")
	case "adv":
		c.skip(l, f, f.P, f.C)
	case "gap":
		if s := c.skip(l, f, "", f.To); s != nil {
			s.tell(&Gap{Channel: s.channel, From: f.From, To: f.To, Why: f.Why, Replay: f.Replay})
		}
	case "subs":
		return c.subscribed(l, f.Subs)
	case "ping":
		l.send(schemas.ClientFrame{T: "pong", N: f.N, Ack: c.acks(l)})
	case "ack":
		var id string
		if err := json.Unmarshal(f.Ident, &id); err != nil {
			return fmt.Errorf("%w: %w", errBroken, err)
		}
		c.published(f.N, id, nil)
	case "err":
		if f.N > 0 {
			c.published(f.N, "", errorOf(f))
			return nil
		}
		c.refused(errorOf(f))
	case "drain":
		go c.replace(l, f)
	}
	return nil
}

// skip moves a subscription to a place, from p on if that is given, and
// returns it.
func (c *Client) skip(l *link, f *schemas.ServerFrame, p, to string) *Sub {
	id, err := strconv.Atoi(string(f.Ident))
	if err != nil || len(to) != cursorLen {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := l.ids[id]
	if s == nil || s.over || s.asking {
		return nil
	}
	if p != "" && relate(s.cursor, []byte(p), []byte(to)) != follows {
		return nil // a hole shows with the next event
	}
	if s.acked == s.cursor {
		s.acked = to
	}
	s.cursor = to
	return s
}

// subscribed takes the answer to the oldest sub frame.
func (c *Client) subscribed(l *link, made []schemas.Sub) error {
	c.mu.Lock()
	if len(c.asks) == 0 {
		c.mu.Unlock()
		return nil
	}
	a := c.asks[0]
	c.mu.Unlock()
	return c.confirm(l, []*Sub{a.sub}, made, a.errs)
}

// refused notes an err frame for the oldest sub frame; without one it is about
// the connection, which its close code tells.
func (c *Client) refused(err *Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.asks) > 0 {
		c.asks[0].errs = append(c.asks[0].errs, err)
	}
	c.cfg.Logger.Debug("node", "err", err)
}

// acks is what a pong carries: up to where events were taken.
func (c *Client) acks(l *link) map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	acks := make(map[string]string, len(l.ids))
	for id, s := range l.ids {
		if s.acked != "" {
			acks[strconv.Itoa(id)] = s.acked
		}
	}
	return acks
}

// replace leaves a draining node for another when its time has come: first the
// new connection, then the old one goes.
func (c *Client) replace(old *link, f *schemas.ServerFrame) {
	url := c.url
	if to, err := address(f.To); f.To != "" && err == nil {
		url = to
	}
	for wait := time.Duration(f.After) * time.Millisecond; ; wait = 2 * time.Second {
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-old.gone: // closed before: run connects again
			t.Stop()
			return
		case <-c.ctx.Done():
			t.Stop()
			return
		}
		ctx, cancel := context.WithTimeout(c.ctx, 15*time.Second)
		l, err := c.connect(ctx, url)
		cancel()
		if err == nil {
			c.hand(old, l)
			return
		}
	}
}

// hand makes l the next connection, unless the old one has ended meanwhile.
func (c *Client) hand(old, l *link) {
	c.mu.Lock()
	late := c.link != old || c.err != nil
	if !late {
		c.next = l
	}
	c.mu.Unlock()
	if late {
		l.close()
		return
	}
	old.leave()
}
