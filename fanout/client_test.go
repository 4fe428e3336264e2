package fanout

import (
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/spillway/spillway/client"
)

// TestTheClientOutlivesNodes runs the Go client against nodes that drain and
// come back on the same address, while events go on: it gets each once.
func TestTheClientOutlivesNodes(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l, func(c *Config) { c.DrainTimeout = 300 * time.Millisecond })
	c, err := client.Dial(t.Context(), client.Config{URL: "http://" + n.address, Token: token("acme", "*"), KeepRepeats: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.Subscribe(t.Context(), "a.*", client.Live)
	if err != nil {
		t.Fatal(err)
	}
	quick := make(chan string, 1000)
	if _, err := c.SubscribeFunc(t.Context(), "a.1", client.Live, client.Handler{OnEvent: func(e client.Event) { quick <- e.ID() }}); err != nil {
		t.Fatal(err)
	}
	const total = 200
	read := make(chan []string, 1)
	go func() {
		var got []string
		for ev, err := range s.Events(t.Context()) {
			if err != nil { // a *client.Gap too
				t.Errorf("%v after %d events", err, len(got))
				break
			}
			if got = append(got, ev.ID()); len(got) == total {
				break
			}
		}
		read <- got
	}()
	var want []string
	write := func(k int) {
		for range k {
			e := &entry{tenant: "acme", channel: "a.1", id: fmt.Sprint(len(want))}
			want = append(want, e.id)
			l.write(e, &entry{tenant: "globex", channel: "a.1", id: "foreign"})
		}
	}
	for range 3 {
		write(20)
		stopped := make(chan struct{})
		go func() { n.stop(); close(stopped) }()
		write(20)
		<-stopped
		write(20)
		n = startNode(t, l, func(c *Config) {
			c.DrainTimeout = 300 * time.Millisecond
			c.Listener.Close()
			if c.Listener, err = net.Listen("tcp", n.address); err != nil {
				t.Fatal(err)
			}
		})
		n.address = n.cfg.Listener.Addr().String()
		eventually(t, "the client is back", func() bool { return n.metric("spillway_fanout_connections", "ws") == 1 })
	}
	write(20)
	got := <-read
	if !slices.Equal(got, want) {
		t.Errorf("got %d events, want %d; first difference at %d", len(got), len(want), firstDifference(got, want))
	}
	for i := range want {
		if id := <-quick; id != want[i] {
			t.Fatalf("the handler got %s, want %s", id, want[i])
		}
	}
	if c.Stats().Connects < 4 || c.Stats().Holes != 0 {
		t.Errorf("%+v", c.Stats())
	}
}
