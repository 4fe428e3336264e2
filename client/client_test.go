package client

import (
	"encoding/json"
	"errors"
	"hash/maphash"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/spillway/spillway/schemas"
)

func TestResumesWhereItWas(t *testing.T) {
	var second schemas.ClientFrame
	n := startScript(t,
		func(p *peer) {
			p.welcome(1)
			p.subs(1)
			p.ev(1, 1, 3)
			p.ev(1, 4, 4)
			p.ws.Close(4203, "idle")
		},
		nil, // 503 with Retry-After
		func(p *peer) { // cannot serve it for the moment
			p.want("auth")
			p.send(`{"t":"err","code":"kafka_unavailable","msg":"later","retry":"after","ms":20}`)
			p.send(`{"t":"welcome","sid":"s"}`)
			p.rest()
		},
		func(p *peer) {
			second = p.welcome(9)
			p.ev(9, 3, 5) // begins earlier than asked for: 3 and 4 came before
			p.ev(9, 5, 5) // a repeat
			p.ev(9, 6, 6)
			p.rest()
		})
	c := dial(t, n)
	s, err := c.Subscribe(testContext(t), "c", Live)
	if err != nil {
		t.Fatal(err)
	}
	if got := collect(t, s, 6); !slices.Equal(got, []string{"1", "2", "3", "4", "5", "6"}) {
		t.Errorf("got %v", got)
	}
	if string(second.Subs[0].From) != `"`+at(4)+`"` || s.Cursor() != at(6) || s.Repeats() != 2 || c.Stats().Connects != 2 {
		t.Errorf("resumed from %s, is at %s, %d repeats, %+v", second.Subs[0].From, s.Cursor(), s.Repeats(), c.Stats())
	}
}

func TestAHoleIsAskedForAgain(t *testing.T) {
	n := startScript(t, func(p *peer) {
		p.welcome(1)
		p.subs(1)
		p.ev(1, 1, 1)
		p.ev(1, 3, 3) // 2 is missing
		p.ev(1, 4, 4) // under way when the client asks again
		if f := p.subs(1); string(f.Subs[0].From) != `"`+at(1)+`"` {
			t.Errorf("asked again from %s", f.Subs[0].From)
		}
		p.ev(1, 2, 4)
		p.send(`{"t":"adv","id":1,"p":"%s","c":"%s"}`, at(4), at(8))
		p.ev(1, 9, 9)
		p.send(`{"t":"gap","id":1,"from":"%s","to":"%s","why":"lag","replay":"/v1/events"}`, at(9), at(20))
		p.ev(1, 21, 21)
		p.rest()
	})
	c := dial(t, n)
	s, err := c.Subscribe(testContext(t), "c", Begin)
	if err != nil {
		t.Fatal(err)
	}
	if got := collect(t, s, 7); !slices.Equal(got, []string{"1", "2", "3", "4", "9", "lag", "21"}) {
		t.Errorf("got %v", got)
	}
	if c.Stats().Holes != 1 {
		t.Errorf("%+v", c.Stats())
	}
}

// TestLeavesADrainingNode: the new connection is open before the old one goes,
// what both bring comes once, and a Sub made meanwhile is not forgotten.
func TestLeavesADrainingNode(t *testing.T) {
	welcomed := make(chan struct{})
	n := startScript(t,
		func(p *peer) {
			p.welcome(1)
			p.subs(1)
			p.ev(1, 1, 1)
			p.send(`{"t":"drain","after":10,"deadline":30000}`)
			<-welcomed
			p.ev(1, 2, 3) // after the new one was asked for
			p.rest()
		},
		func(p *peer) {
			p.want("auth")
			close(welcomed)
			<-time.After(50 * time.Millisecond) // the old connection's frames arrive
			p.send(`{"t":"welcome","sid":"s","subs":[{"ch":"c","id":4,"cur":"%s"}]}`, at(1))
			p.ev(4, 2, 5)
			p.rest()
		})
	c := dial(t, n, func(c *Config) { c.KeepRepeats = true })
	s, err := c.Subscribe(testContext(t), "c", Live)
	if err != nil {
		t.Fatal(err)
	}
	if got := collect(t, s, 5); !slices.Equal(got, []string{"1", "2", "3", "4", "5"}) {
		t.Errorf("got %v", got)
	}
	if c.Stats().Connects != 2 || s.Repeats() != 2 {
		t.Errorf("%+v, %d repeats", c.Stats(), s.Repeats())
	}
}

func TestRefusals(t *testing.T) {
	n := startScript(t, func(p *peer) {
		p.welcome(1)
		p.want("sub")
		p.send(`{"t":"err","code":"forbidden","msg":"the claim channels","retry":"no"}`)
		p.send(`{"t":"subs"}`)
		p.subs(2)
		p.ev(2, 1, 1)
		p.want("pub")
		p.send(`{"t":"err","code":"overloaded","msg":"wait","n":1,"retry":"after","ms":10}`)
		f := p.want("pub")
		p.send(`{"t":"ack","n":%d,"id":"e1"}`, f.N)
		f = p.want("pub")
		p.send(`{"t":"err","code":"schema_mismatch","msg":"data.a","n":%d,"retry":"no"}`, f.N)
		p.send(`{"t":"ping","n":3}`)
		if f := p.want("pong"); f.N != 3 || f.Ack["2"] != at(1) {
			t.Errorf("pong %+v", f)
		}
		p.ws.Close(4006, "tenant_suspended")
	})
	c := dial(t, n)
	ctx := testContext(t)
	var refused *Error
	if _, err := c.Subscribe(ctx, "other", Live); !errors.As(err, &refused) || refused.Code != schemas.Forbidden {
		t.Errorf("subscribe: %v", err)
	}
	s, err := c.SubscribeFunc(ctx, "c", Last(3), Handler{OnEvent: func(e Event) {
		var d struct{ N int }
		if e.Cursor != at(1) || e.Type() != "demo.Message" || e.Source() != "/x" || e.Time().UnixMilli() != 1767323045678 || e.Decode(&d) != nil || d.N != 1 {
			t.Errorf("event %s", e.Raw)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Subscribe(ctx, "c", Live); err == nil {
		t.Error("subscribed twice")
	}
	if id, err := c.Publish(ctx, "c", "demo.Message", "", json.RawMessage(`{}`)); id != "e1" || err != nil {
		t.Errorf("publish: %s, %v", id, err)
	}
	if _, err := c.Publish(ctx, "c", "demo.Message", "k", json.RawMessage(`{}`)); !errors.As(err, &refused) || refused.Code != schemas.SchemaMismatch {
		t.Errorf("publish: %v", err)
	}
	<-c.Done()
	if websocket.CloseStatus(c.Err()) != 4006 || s.Err() == nil {
		t.Errorf("ended with %v, sub %v", c.Err(), s.Err())
	}
	if _, err := c.Subscribe(ctx, "d", Live); err == nil {
		t.Error("subscribed on a client that has ended")
	}
}

func TestDialSaysWhy(t *testing.T) {
	n := startScript(t, func(p *peer) {
		p.want("auth")
		p.send(`{"t":"err","code":"auth_failed","msg":"bad signature","retry":"no"}`)
		p.ws.Close(4004, "auth_failed")
	})
	var refused *Error
	if _, err := Dial(testContext(t), Config{URL: n.server.URL}); !errors.As(err, &refused) || refused.Code != schemas.AuthFailed || websocket.CloseStatus(err) != 4004 {
		t.Errorf("%v", err)
	}
	if _, err := Dial(testContext(t), Config{URL: "ftp://x"}); err == nil {
		t.Error("ftp is taken")
	}
	if _, err := Dial(testContext(t), Config{URL: "ws://127.0.0.1:1"}); err == nil {
		t.Error("nobody listens there")
	}
}

// A publish whose answer the broken connection took along is sent again.
func TestPublishOutlivesAConnection(t *testing.T) {
	keys := make(chan string, 2)
	n := startScript(t,
		func(p *peer) {
			p.welcome(1)
			keys <- p.want("pub").Key
			p.ws.CloseNow()
		},
		func(p *peer) {
			p.welcome(1)
			f := p.want("pub")
			keys <- f.Key
			p.send(`{"t":"ack","n":%d,"id":"e1"}`, f.N)
			p.rest()
		})
	c := dial(t, n)
	id, err := c.Publish(testContext(t), "c", "x", "", json.RawMessage(`1`))
	if first, second := <-keys, <-keys; id != "e1" || err != nil || first != second || first == "" {
		t.Errorf("%s, %v, keys %q and %q", id, err, first, second)
	}
}

func BenchmarkFrame(b *testing.B) {
	event := `{"specversion":"1.0","id":"0123456789","source":"/x","type":"ai.inference.TokenDelta","subject":"jobs.1","time":"2026-01-02T03:04:05.678Z","tenantid":"acme","datacontenttype":"application/json","data":{"request_id":"r","seq":3,"text":"` + strings.Repeat("x", 200) + `"}}`
	frame := []byte(`{"t":"ev","id":7,"p":"` + at(1) + `","c":"` + at(9) + `","e":[` + strings.Repeat(event+",", 7) + event + `]}`)
	c := &Client{cfg: Config{KeepRepeats: true}}
	n := 0
	s := &Sub{c: c, handler: &Handler{OnEvent: func(e Event) { n += len(e.ID()) }}}
	s.seed = maphash.MakeSeed()
	b.ReportAllocs()
	for range b.N {
		ev, _ := parseEv(frame)
		s.deliver(frame, ev)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/8, "ns/event")
}
