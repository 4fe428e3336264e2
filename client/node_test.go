package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/spillway/spillway/schemas"
)

// A node is a scripted fan-out node: each connection is played by the next
// script; the last script plays all that follow.
type node struct {
	t       testing.TB
	server  *httptest.Server
	mu      sync.Mutex
	scripts []func(*peer)
	played  int
	running sync.WaitGroup
}

// A peer is one connection, seen from the node.
type peer struct {
	t  testing.TB
	ws *websocket.Conn
	n  int // which connection, from 0
}

func startScript(t testing.TB, scripts ...func(*peer)) *node {
	n := &node{t: t, scripts: scripts}
	n.server = httptest.NewServer(http.HandlerFunc(n.serve))
	t.Cleanup(func() {
		n.server.CloseClientConnections()
		n.server.Close()
		n.running.Wait()
	})
	return n
}

func (n *node) serve(w http.ResponseWriter, r *http.Request) {
	n.running.Add(1)
	defer n.running.Done()
	n.mu.Lock()
	i := n.played
	n.played++
	script := n.scripts[min(i, len(n.scripts)-1)]
	n.mu.Unlock()
	if script == nil {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{schemas.Subprotocol}})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	p := &peer{t: n.t, ws: ws, n: i}
	p.send(`{"t":"hello","v":1,"node":"f-1","ping":20000,"max_in":32768}`)
	script(p)
}

func (p *peer) send(format string, args ...any) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	p.ws.Write(ctx, websocket.MessageText, fmt.Appendf(nil, format, args...)) // the client may have gone
}

// want reads the next frame and checks its type.
func (p *peer) want(kind string) schemas.ClientFrame {
	var f schemas.ClientFrame
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, b, err := p.ws.Read(ctx)
	if err != nil {
		return f
	}
	if err := json.Unmarshal(b, &f); err != nil || f.T != kind {
		p.t.Errorf("connection %d: got %s, want %s", p.n, b, kind)
	}
	return f
}

// welcome answers an auth frame: all its subscriptions, numbered from id.
func (p *peer) welcome(id int) schemas.ClientFrame {
	f := p.want("auth")
	p.send(`{"t":"welcome","sid":"s","tenant":"acme","region":"eu","subs":[%s]}`, confirmed(f.Subs, id))
	return f
}

func confirmed(reqs []schemas.SubRequest, id int) string {
	var subs []string
	for i, r := range reqs {
		cur := string(r.From)
		if len(cur) != 27 {
			cur = `"` + at(0) + `"`
		}
		subs = append(subs, fmt.Sprintf(`{"ch":%q,"id":%d,"cur":%s}`, r.Ch, id+i, cur))
	}
	return strings.Join(subs, ",")
}

func (p *peer) subs(id int) schemas.ClientFrame {
	f := p.want("sub")
	p.send(`{"t":"subs","subs":[%s]}`, confirmed(f.Subs, id))
	return f
}

// ev sends events a to b; the cursor after event k is at(k).
func (p *peer) ev(id, a, b int) {
	var events []string
	for k := a; k <= b; k++ {
		events = append(events, fmt.Sprintf(`{"specversion":"1.0","id":"%d","source":"/x","type":"demo.Message","subject":"c","time":"2026-01-02T03:04:05.678Z","data":{"n":%d}}`, k, k))
	}
	p.send(`{"t":"ev","id":%d,"p":"%s","c":"%s","e":[%s]}`, id, at(a-1), at(b), strings.Join(events, ","))
}

// rest reads until the connection ends.
func (p *peer) rest() {
	for {
		if _, _, err := p.ws.Read(context.Background()); err != nil {
			return
		}
	}
}

func at(k int) string { return schemas.Cursor{Epoch: 5, Offset: int64(k)}.String() }

func dial(t *testing.T, n *node, change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{URL: n.server.URL, Token: "t"}
	for _, f := range change {
		f(&cfg)
	}
	c, err := Dial(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// collect reads n events of a Sub and returns their ids; a gap reads as its
// cause.
func collect(t *testing.T, s *Sub, n int) (got []string) {
	t.Helper()
	for ev, err := range s.Events(testContext(t)) {
		var gap *Gap
		switch {
		case errors.As(err, &gap):
			got = append(got, gap.Why)
		case err != nil:
			t.Fatalf("%v, after %v", err, got)
		default:
			got = append(got, ev.ID())
		}
		if len(got) == n {
			return got
		}
	}
	t.Fatalf("ended after %v", got)
	return nil
}
