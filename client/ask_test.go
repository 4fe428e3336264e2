package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/spillway/spillway/schemas"
)

// What another connection confirms, one that comes to nothing here, takes no
// answer away from what is asked on the first.
func TestEachConnectionHasItsOwnAnswers(t *testing.T) {
	confirmed := make(chan struct{})
	n := startScript(t,
		func(p *peer) {
			p.welcome(1)
			p.subs(1)
			p.ev(1, 1, 1)
			p.want("sub") // d: its answer takes long
			p.send(`{"t":"drain","after":1,"deadline":30000}`)
			<-confirmed
			p.want("sub") // e
			p.send(`{"t":"subs","subs":[{"ch":"d","id":2,"cur":"%s"}]}`, at(1))
			p.send(`{"t":"subs","subs":[{"ch":"e","id":3,"cur":"%s"}]}`, at(1))
			p.ev(3, 2, 2)
			p.rest()
		},
		func(p *peer) { // confirms d and cannot serve c for the moment
			p.want("auth")
			p.send(`{"t":"err","code":"kafka_unavailable","msg":"later","retry":"after","ms":20}`)
			p.send(`{"t":"welcome","sid":"s","subs":[{"ch":"d","id":8,"cur":"%s"}]}`, at(1))
			p.rest()
		},
		func(p *peer) {
			p.welcome(4)
			p.rest()
		})
	c := dial(t, n)
	if _, err := c.Subscribe(testContext(t), "c", Live); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Subscribe(testContext(t), "d", Live); err != nil {
		t.Fatal(err)
	}
	close(confirmed)
	e, err := c.Subscribe(testContext(t), "e", Live)
	if err != nil {
		t.Fatal(err)
	}
	if got := collect(t, e, 1); !slices.Equal(got, []string{"2"}) {
		t.Errorf("got %v", got)
	}
}

// A subscription that was cancelled before the node confirmed it is ended
// there, unless the channel was subscribed anew: then it has the same number.
func TestACancelledSubscribe(t *testing.T) {
	for _, anew := range []bool{false, true} {
		t.Run(fmt.Sprint("anew ", anew), func(t *testing.T) {
			asked, cancelled, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
			n := startScript(t, func(p *peer) {
				defer close(done)
				p.welcome(1)
				first := p.want("sub")
				close(asked)
				<-cancelled
				if anew {
					p.want("sub")
					p.send(`{"t":"subs","subs":[%s]}`, confirmed(first.Subs, 7))
				}
				p.send(`{"t":"subs","subs":[%s]}`, confirmed(first.Subs, 7))
				if !anew {
					if f := p.want("unsub"); !slices.Equal(f.ID, []int{7}) {
						t.Errorf("unsub %v", f.ID)
					}
				}
				p.ev(7, 1, 1)
				p.send(`{"t":"ping","n":1}`)
				f := p.want("pong")
				if _, there := f.Ack["7"]; there != anew {
					t.Errorf("pong %+v", f)
				}
			})
			c := dial(t, n)
			ctx, cancel := context.WithCancel(testContext(t))
			go func() { <-asked; cancel() }()
			if _, err := c.Subscribe(ctx, "c", Live); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			if !anew {
				close(cancelled)
				<-done
				return
			}
			made := make(chan *Sub, 1)
			go func() {
				s, err := c.Subscribe(testContext(t), "c", Live)
				if err != nil {
					t.Error(err)
				}
				made <- s
			}()
			close(cancelled)
			if s := <-made; s != nil {
				if got := collect(t, s, 1); !slices.Equal(got, []string{"1"}) {
					t.Errorf("got %v", got)
				}
			}
			<-done
		})
	}
}

// Places that are none: frames with one are left alone, and a connection that
// confirms one is given up.
func TestBrokenCursors(t *testing.T) {
	n := startScript(t,
		func(p *peer) {
			p.welcome(1)
			p.want("sub")
			p.send(`{"t":"subs","subs":[{"ch":"c","id":1,"cur":"c1"}]}`)
			p.rest()
		},
		func(p *peer) {
			p.welcome(2)
			p.send(`{"t":"adv","id":2,"p":"c0","c":"%s"}`, at(9))
			p.send(`{"t":"adv","id":2,"p":"%s","c":"c"}`, at(0))
			p.send(`{"t":"gap","id":2,"from":"","to":"","why":"lag"}`)
			p.ev(2, 1, 1)
			p.send(`{"t":"ev","id":2,"p":"c","c":"c1","e":[{}]}`)
			p.rest()
		},
		func(p *peer) {
			if f := p.welcome(3); string(f.Subs[0].From) != `"`+at(1)+`"` {
				t.Errorf("goes on from %s", f.Subs[0].From)
			}
			p.ev(3, 2, 2)
			p.rest()
		})
	c := dial(t, n)
	s, err := c.Subscribe(testContext(t), "c", Live)
	if err != nil {
		t.Fatal(err)
	}
	if got := collect(t, s, 2); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("got %v", got)
	}
	if st := c.Stats(); st.Connects != 3 || st.Holes != 0 {
		t.Errorf("%+v", st)
	}
}

func TestRelate(t *testing.T) {
	other := schemas.Cursor{Epoch: 6, Offset: 3}.String()
	for _, c := range []struct {
		cursor, p, c string
		want         place
	}{
		{"", at(1), at(2), follows},
		{at(1), at(1), at(2), follows},
		{at(2), at(1), at(3), follows},
		{at(2), at(1), at(2), repeats},
		{at(1), at(2), at(3), hole},
		{at(1), other, other, hole},
		{at(1), "", at(2), hole},
		{at(1), at(1)[:12], at(2), hole},
		{at(1), at(1), "c", hole},
		{"", "", "", hole},
	} {
		if got := relate(c.cursor, []byte(c.p), []byte(c.c)); got != c.want {
			t.Errorf("at %q, frame %q to %q: %d, want %d", c.cursor, c.p, c.c, got, c.want)
		}
	}
}
