package fanout

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/spillway/spillway/schemas"
)

// tokens is an Auth whose tokens are JSON claims.
type tokens struct{}

type tokenError struct{ reason schemas.Reason }

func (e *tokenError) Error() string                     { return "refused: " + string(e.reason) }
func (e *tokenError) Refused() (schemas.Reason, string) { return e.reason, "" }

func (tokens) Verify(token string) (schemas.Claims, error) {
	var c schemas.Claims
	if err := json.Unmarshal([]byte(token), &c); err != nil {
		return c, &tokenError{schemas.AuthFailed}
	}
	if !c.ExpiresAt.IsZero() && time.Now().After(c.ExpiresAt.Add(expiryLeeway)) {
		return c, &tokenError{schemas.TokenExpired}
	}
	return c, nil
}

func token(tenant string, channels ...string) string {
	return claimsToken(schemas.Claims{Tenant: tenant, Subject: "someone", Role: schemas.RoleClient, Channels: channels, Publish: channels})
}

func claimsToken(c schemas.Claims) string {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// policies is a Tenants that a test may change.
type policies struct {
	mu sync.Mutex
	m  map[string]*schemas.Policy
}

func (p *policies) Policy(tenant string) (*schemas.Policy, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v, ok := p.m[tenant]
	return v, ok
}

func (p *policies) set(tenant string, v *schemas.Policy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.m[tenant] = v
}

// A testNode is a running Fanout.
type testNode struct {
	*Fanout
	tb       testing.TB
	address  string
	tenants  *policies
	registry *prometheus.Registry
	stop     func() // drains and waits
}

func startNode(tb testing.TB, l *testLog, change ...func(*Config)) *testNode {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	n := &testNode{tb: tb, address: ln.Addr().String(), registry: prometheus.NewRegistry(), tenants: &policies{m: map[string]*schemas.Policy{}}}
	for _, name := range []string{"acme", "globex", "noisy"} {
		n.tenants.set(name, &schemas.Policy{State: "active"})
	}
	cfg := Config{
		Kafka: l.opts(), Topics: testTopics, Partitions: testPartitions, Region: testRegion, Node: "f-1",
		SchemaIDs: map[string]int32{schemas.ReceiptName: 1, schemas.SessionRangeName: 2, schemas.NodeName: 3},
		Listener:  ln, Auth: tokens{}, Tenants: n.tenants, Logger: slog.New(slog.DiscardHandler), Registerer: n.registry,
		DrainTimeout: 200 * time.Millisecond,
	}
	for _, f := range change {
		f(&cfg)
	}
	if n.Fanout, err = New(cfg); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				tb.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			tb.Error("Run does not end")
		}
	})
	tb.Cleanup(n.stop)
	return n
}

// A testClient speaks the protocol frame by frame.
type testClient struct {
	tb testing.TB
	ws *websocket.Conn
}

func (n *testNode) dial() *testClient {
	n.tb.Helper()
	return n.dialWith(&websocket.DialOptions{Subprotocols: []string{schemas.Subprotocol}})
}

func (n *testNode) dialWith(opts *websocket.DialOptions) *testClient {
	n.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://"+n.address+"/v1/ws", opts)
	if err != nil {
		n.tb.Fatal(err)
	}
	ws.SetReadLimit(4 << 20)
	c := &testClient{tb: n.tb, ws: ws}
	n.tb.Cleanup(func() { ws.CloseNow() })
	if hello := c.read(); hello.T != "hello" || hello.V != 1 || hello.MaxIn != MaxFrameIn {
		n.tb.Fatalf("hello: %+v", hello)
	}
	return c
}

// open dials, authenticates and subscribes; it returns the welcome too.
func (n *testNode) open(tok string, subs ...schemas.SubRequest) (*testClient, schemas.ServerFrame) {
	n.tb.Helper()
	c := n.dial()
	c.send(schemas.ClientFrame{T: "auth", Tok: tok, Subs: subs})
	w := c.read()
	if w.T != "welcome" {
		n.tb.Fatalf("want welcome, got %+v", w)
	}
	return c, w
}

func ask(channel, from string) schemas.SubRequest {
	r := schemas.SubRequest{Ch: channel}
	if strings.HasPrefix(from, "{") {
		r.From = json.RawMessage(from)
	} else if from != "" {
		r.From = json.RawMessage(`"` + from + `"`)
	}
	return r
}

func (c *testClient) send(f schemas.ClientFrame) {
	c.tb.Helper()
	b, err := json.Marshal(f)
	if err != nil {
		c.tb.Fatal(err)
	}
	c.raw(string(b))
}

func (c *testClient) raw(s string) {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.ws.Write(ctx, websocket.MessageText, []byte(s)); err != nil {
		c.tb.Fatal(err)
	}
}

func (c *testClient) next() (schemas.ServerFrame, error) {
	var f schemas.ServerFrame
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	_, b, err := c.ws.Read(ctx)
	if err != nil {
		return f, err
	}
	return f, json.Unmarshal(b, &f)
}

func (c *testClient) read() schemas.ServerFrame {
	c.tb.Helper()
	f, err := c.next()
	if err != nil {
		c.tb.Fatal(err)
	}
	return f
}

// events reads until n events have come, and returns their ids.
func (c *testClient) events(n int) []string {
	c.tb.Helper()
	var ids []string
	for len(ids) < n {
		if f := c.read(); f.T == "ev" {
			ids = append(ids, idsOf(c.tb, f)...)
		}
	}
	return ids
}

func idsOf(tb testing.TB, f schemas.ServerFrame) []string {
	tb.Helper()
	var ids []string
	for _, raw := range f.E {
		var e struct{ ID string }
		if err := json.Unmarshal(raw, &e); err != nil {
			tb.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	return ids
}

// closed reads until the node closes, and returns the code and the last frame.
func (c *testClient) closed() (websocket.StatusCode, schemas.ServerFrame) {
	c.tb.Helper()
	var last schemas.ServerFrame
	for {
		f, err := c.next()
		if err == nil {
			last = f
			continue
		}
		if errors.Is(err, context.DeadlineExceeded) {
			c.tb.Fatal("the node does not close")
		}
		return websocket.CloseStatus(err), last
	}
}

func (n *testNode) get(path string, header ...string) *http.Response {
	n.tb.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+n.address+path, nil)
	if err != nil {
		n.tb.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		n.tb.Fatal(err)
	}
	n.tb.Cleanup(func() { resp.Body.Close() })
	return resp
}
