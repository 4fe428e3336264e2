package fanout

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/spillway/spillway/schemas"
)

// metric is the value of a counter or gauge, with one label's value or "".
func (n *testNode) metric(name, label string) float64 {
	n.tb.Helper()
	families, err := n.registry.Gather()
	if err != nil {
		n.tb.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if label == "" || len(m.GetLabel()) > 0 && m.GetLabel()[0].GetValue() == label {
				return valueOf(m)
			}
		}
	}
	return 0
}

func valueOf(m *dto.Metric) float64 {
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

var _ prometheus.Gatherer = (*prometheus.Registry)(nil)

// eventually waits for what another goroutine does.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("it does not happen: %s", what)
		}
	}
}

func authFrame(tok string) string {
	b, _ := json.Marshal(schemas.ClientFrame{T: "auth", Tok: tok})
	return string(b)
}

// TestErrorsAndCloseCodes is the table of what a client may do wrong, what it
// is told, and how the connection ends.
func TestErrorsAndCloseCodes(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l, func(c *Config) { c.PingInterval = 100 * time.Millisecond })
	n.tenants.set("asleep", &schemas.Policy{State: "suspended"})
	n.tenants.set("small", &schemas.Policy{State: "active", MaxConnections: 1})
	n.open(token("small", "*"))
	good := authFrame(token("acme", "jobs.*", "chat"))
	many := `{"t":"sub","subs":[`
	for i := range MaxChannels {
		many += fmt.Sprintf(`{"ch":"jobs.%d"},`, i)
	}
	many += `{"ch":"jobs.too-many"}]}`
	for _, c := range []struct {
		name   string
		frames []string
		code   schemas.Reason    // of the last err frame, "" for none
		close  schemas.CloseCode // 0: stays open
		retry  string
	}{
		{"not JSON", []string{"hello"}, schemas.BadFrame, 4000, "no"},
		{"array", []string{`[]`}, schemas.BadFrame, 4000, "no"},
		{"trailing bytes", []string{`{"t":"pong"} x`}, schemas.BadFrame, 4000, "no"},
		{"unknown member", []string{`{"t":"auth","token":"x"}`}, schemas.BadFrame, 4000, "no"},
		{"wrong type", []string{`{"t":"auth","subs":{}}`}, schemas.BadFrame, 4000, "no"},
		{"not UTF-8", []string{"{\"t\":\"auth\",\"tok\":\"\xff\"}"}, schemas.BadFrame, 4000, "no"},
		{"too large", []string{`{"t":"auth","tok":"` + strings.Repeat("x", MaxFrameIn) + `"}`}, schemas.BadFrame, 4000, "no"},
		{"nothing before auth", []string{`{"t":"pong"}`}, schemas.AuthRequired, 4003, "no"},
		{"no token", []string{`{"t":"auth"}`}, schemas.AuthRequired, 4003, "no"},
		{"bad token", []string{authFrame("x")}, schemas.AuthFailed, 4004, "no"},
		{"expired token", []string{authFrame(claimsToken(schemas.Claims{Tenant: "acme", ExpiresAt: time.Now().Add(-time.Hour)}))}, schemas.TokenExpired, 4205, "now"},
		{"operator", []string{authFrame(token("*", "*"))}, schemas.Forbidden, 4005, "no"},
		{"unknown tenant", []string{authFrame(token("nobody", "*"))}, schemas.TenantUnknown, 4004, "no"},
		{"suspended", []string{authFrame(token("asleep", "*"))}, schemas.TenantSuspended, 4006, "no"},
		{"tenant full", []string{authFrame(token("small", "*"))}, schemas.ConnectionLimit, 4101, "after"},
		{"unknown t", []string{good, `{"t":"dance"}`}, schemas.BadFrame, 0, "no"},
		{"auth twice", []string{good, good}, schemas.BadFrame, 0, "no"},
		{"sub without subs", []string{good, `{"t":"sub"}`}, schemas.BadFrame, 4000, "no"},
		{"too many at once", []string{good, many}, schemas.ChannelLimit, 0, "no"},
		{"unsub without id", []string{good, `{"t":"unsub"}`}, schemas.BadFrame, 4000, "no"},
		{"forbidden", []string{good, `{"t":"sub","subs":[{"ch":"*"}]}`}, schemas.Forbidden, 0, "no"},
		{"illegal channel", []string{good, `{"t":"sub","subs":[{"ch":"a*b"}]}`}, schemas.ChannelIllegal, 0, "no"},
		{"illegal cursor", []string{good, `{"t":"sub","subs":[{"ch":"chat","from":"c123"}]}`}, schemas.CursorIllegal, 0, "no"},
		{"illegal last", []string{good, `{"t":"sub","subs":[{"ch":"chat","from":{"last":0}}]}`}, schemas.CursorIllegal, 0, "no"},
		{"illegal on_lag", []string{good, `{"t":"sub","subs":[{"ch":"chat","on_lag":"cry"}]}`}, schemas.BadFrame, 0, "no"},
		{"pub without n", []string{good, `{"t":"pub","ch":"chat"}`}, schemas.BadFrame, 4000, "no"},
		{"pub without key", []string{good, `{"t":"pub","n":1,"ch":"chat","type":"x","data":1}`}, schemas.Malformed, 0, "no"},
		{"pub forbidden", []string{good, `{"t":"pub","n":1,"ch":"other","type":"x","key":"k","data":1}`}, schemas.Forbidden, 0, "no"},
		{"pub without ingest", []string{good, `{"t":"pub","n":1,"ch":"chat","type":"x","key":"k","data":1}`}, schemas.NotFound, 0, "no"},
		{"binary", []string{good, "\x00binary"}, schemas.BadFrame, 4000, "no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := n.dial()
			cl.tb = t
			before := n.metric("spillway_fanout_closes_total", fmt.Sprint(int(c.close)))
			for _, f := range c.frames {
				kind := websocket.MessageText
				if f[0] == 0 {
					kind = websocket.MessageBinary
				}
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				cl.ws.Write(ctx, kind, []byte(f)) // the node may have closed already
				cancel()
			}
			if c.close == 0 {
				if got := skipTo(cl, "err"); got.Code != c.code || got.Retry != c.retry || got.Msg == "" {
					t.Errorf("err %+v, want %s retry %s", got, c.code, c.retry)
				}
				return
			}
			var last schemas.ServerFrame
			code := websocket.StatusCode(0)
			for code == 0 {
				f, err := cl.next()
				if err != nil {
					code = websocket.CloseStatus(err)
				} else if f.T == "err" {
					last = f
				}
			}
			if last.Code != c.code || last.Retry != c.retry || int(code) != int(c.close) {
				t.Errorf("err %q retry %q, closed %d; want %q %q %d", last.Code, last.Retry, code, c.code, c.retry, c.close)
			}
			eventually(t, "the close is counted", func() bool {
				return n.metric("spillway_fanout_closes_total", fmt.Sprint(int(c.close))) > before
			})
		})
	}
}

func TestWhatEndsAnOpenConnection(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l, func(c *Config) { c.PingInterval = 100 * time.Millisecond })
	t.Run("idle", func(t *testing.T) {
		c, _ := n.open(token("acme", "*"), ask("a", ""))
		ping := skipTo(c, "ping")
		c.send(schemas.ClientFrame{T: "pong", N: ping.N})
		skipTo(c, "ping")
		if code, _ := c.closed(); int(code) != int(schemas.CloseIdle) {
			t.Errorf("closed with %d", code)
		}
	})
	t.Run("suspended", func(t *testing.T) {
		c, _ := n.open(token("globex", "*"), ask("a", ""))
		n.tenants.set("globex", &schemas.Policy{State: "suspended"})
		if code, _ := c.closed(); int(code) != int(schemas.CloseSuspended) {
			t.Errorf("closed with %d", code)
		}
	})
	t.Run("token expires", func(t *testing.T) {
		claims := schemas.Claims{Tenant: "acme", Channels: []string{"*"}, ExpiresAt: time.Now().Add(200*time.Millisecond - expiryLeeway)}
		c, _ := n.open(claimsToken(claims), ask("a", ""))
		if code, last := c.closed(); int(code) != int(schemas.CloseTokenExpired) || last.Code != schemas.TokenExpired {
			t.Errorf("closed with %d after %+v", code, last)
		}
	})
	t.Run("drain", func(t *testing.T) {
		c, _ := n.open(token("acme", "*"), ask("a", ""))
		go n.stop()
		drain := skipTo(c, "drain")
		if drain.After <= 0 || drain.Deadline != 200 {
			t.Errorf("drain: %+v", drain)
		}
		resp := n.get("/v1/connect", "Authorization", "Bearer "+token("acme"))
		if resp.StatusCode == http.StatusOK {
			_, _, err := websocket.Dial(context.Background(), "ws://"+n.address+"/v1/ws", nil)
			if err == nil || !strings.Contains(err.Error(), "503") {
				t.Errorf("a draining node takes connections: %v", err)
			}
		}
		if code, _ := c.closed(); int(code) != int(schemas.CloseDrain) {
			t.Errorf("closed with %d", code)
		}
	})
}

func TestTheHandshake(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l, func(c *Config) {
		c.Origins, c.MaxConnections = []string{"*.example.com"}, 2
	})
	dial := func(h http.Header, protocols ...string) (*websocket.Conn, *http.Response, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return websocket.Dial(ctx, "ws://"+n.address+"/v1/ws", &websocket.DialOptions{HTTPHeader: h, Subprotocols: protocols})
	}
	for _, c := range []struct {
		name, value string
		status      int
	}{
		{"Origin", "https://evil.test", 403},
		{"Origin", "https://app.example.com", 101},
		{"Origin", "http://" + n.address, 101},
		{"Authorization", "Bearer nonsense", 401},
		{"Authorization", "Bearer " + token("nobody", "*"), 403},
		{"Authorization", "Bearer " + token("acme", "*"), 101},
	} {
		ws, resp, err := dial(http.Header{c.name: {c.value}}, schemas.Subprotocol)
		if resp == nil || resp.StatusCode != c.status {
			t.Errorf("%s %s: %v, want %d", c.name, c.value, err, c.status)
		}
		if err == nil {
			ws.CloseNow()
		}
		eventually(t, "it is gone", func() bool { return n.connections() == 0 })
	}
	ws, _, err := dial(nil, "other.v2")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, _, err := ws.Read(ctx); int(websocket.CloseStatus(err)) != int(schemas.CloseVersion) {
		t.Errorf("another subprotocol: %v", err)
	}
	eventually(t, "it is gone", func() bool { return n.connections() == 0 })
	// Auth without a token in the frame, for the upgrade had one.
	c := n.dialWith(&websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + token("acme", "*")}}})
	c.raw(`{"t":"auth","subs":[{"ch":"a"}]}`)
	if w := c.read(); w.T != "welcome" || w.Tenant != "acme" {
		t.Errorf("welcome: %+v", w)
	}
	n.dial()
	if _, resp, err := dial(nil); err == nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || resp.Header.Get("Reconnect-After") == "" {
		t.Errorf("a third connection: %v", err)
	}
	if resp := n.get("/v1/connect", "Authorization", "Bearer "+token("acme")); resp.StatusCode != 200 {
		t.Errorf("connect: %d", resp.StatusCode)
	} else if b, _ := io.ReadAll(resp.Body); strings.TrimSpace(string(b)) != `{"url":"ws://`+n.address+`/v1/ws"}` {
		t.Errorf("connect: %s", b)
	}
	if resp := n.get("/spillway.js"); resp.StatusCode != 404 {
		t.Errorf("spillway.js: %d", resp.StatusCode)
	}
}

// TestPublish relays through an ingest that answers as the real one does.
func TestPublish(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tok := token("acme", "*")
	ingest := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var e struct{ Type, Subject, IdempotencyKey string }
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil || r.Header.Get("Authorization") != "Bearer "+tok ||
			r.Header.Get("Content-Type") != "application/cloudevents+json" || e.Subject != `ch "1"` {
			t.Errorf("ingest got %+v, %v", e, err)
		}
		switch e.Type {
		case "ok":
			w.WriteHeader(http.StatusAccepted)
			fmt.Fprintf(w, `{"events":[{"id":"id of %s","partition":0,"offset":1}]}`, e.IdempotencyKey)
		case "busy":
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"error":{"code":"kafka_unavailable","message":"no"}}`)
		case "bad":
			w.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprint(w, `{"error":{"code":"schema_mismatch","message":"data.a: want int","fix":"send an int"}}`)
		default:
			w.WriteHeader(http.StatusBadGateway)
		}
	})}
	go ingest.Serve(ln)
	defer ingest.Close()
	l := newTestLog(t)
	n := startNode(t, l, func(c *Config) { c.IngestURL = "http://" + ln.Addr().String() })
	c, _ := n.open(tok)
	pub := func(k int64, kind string) schemas.ServerFrame {
		c.send(schemas.ClientFrame{T: "pub", N: k, Ch: `ch "1"`, Type: kind, Key: fmt.Sprint("k", k), Data: json.RawMessage(`{"a":1}`)})
		return c.read()
	}
	if f := pub(1, "ok"); f.T != "ack" || f.N != 1 || string(f.Ident) != `"id of k1"` {
		t.Errorf("ack: %+v", f)
	}
	if f := pub(2, "busy"); f.T != "err" || f.N != 2 || f.Code != schemas.KafkaUnavailable || f.Retry != "after" || f.MS != 7000 {
		t.Errorf("busy: %+v", f)
	}
	if f := pub(3, "bad"); f.Code != schemas.SchemaMismatch || f.Retry != "no" || f.Msg != "data.a: want int; send an int" {
		t.Errorf("bad: %+v", f)
	}
	if f := pub(4, "odd"); f.Code != schemas.Internal || f.Retry != "after" {
		t.Errorf("odd: %+v", f)
	}
	ingest.Close()
	if f := pub(5, "ok"); f.Code != schemas.KafkaUnavailable || f.Retry != "after" {
		t.Errorf("ingest is gone: %+v", f)
	}
}

// FuzzFrame: no frame breaks the parser, what it takes is within the bounds,
// and it takes what it has written.
func FuzzFrame(f *testing.F) {
	for _, s := range []string{
		`{"t":"auth","tok":"x","subs":[{"ch":"jobs.42","from":"live","on_lag":"gap"}]}`, `{"t":"sub","subs":[{"ch":"a","from":{"ts":1}}]}`,
		`{"t":"unsub","id":[7]}`, `{"t":"pub","n":9,"ch":"jobs.42","type":"x","key":"k","data":{"a":[1]}}`, `{"t":"pong","n":17,"ack":{"7":"c"}}`,
		`{}`, `null`, `[]`, `{"t":"auth"}{}`, `{"t":"sub","subs":[{"ch":"a","from":{"last":5}}]}`, `{"t":"sub","subs":[{"ch":"a","from":"c000000000001000000000002"}]}`,
	} {
		f.Add([]byte(s))
	}
	claims := schemas.Claims{Tenant: "acme", Channels: []string{"*"}, Publish: []string{"*"}}
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := parseFrame(b)
		if err != nil {
			return
		}
		if len(frame.Subs) > MaxChannels || len(frame.ID) > MaxChannels || len(frame.Ack) > MaxChannels {
			t.Fatalf("a list over the bound: %+v", frame)
		}
		for i := range frame.Subs {
			from, no := checkSub(&claims, &frame.Subs[i])
			if no == nil && (!schemas.ValidPattern(frame.Subs[i].Ch) || from.last > MaxLast || from.ms < 0) {
				t.Fatalf("taken: %+v as %+v", frame.Subs[i], from)
			}
			if no != nil && no.code.Text() == "" {
				t.Fatalf("refused with a word that is in no table: %+v", no)
			}
		}
		checkPub(&claims, &frame)
		again, err := json.Marshal(frame)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > MaxFrameIn { // escapes may make it longer
			return
		}
		if _, err := parseFrame(again); err != nil {
			t.Fatalf("%s is taken, %s is not: %v", b, again, err)
		}
	})
}
