package client

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/spillway/spillway/schemas"
)

// A loop that is left in the middle of a frame loses nothing: the next one
// goes on after it, and Cursor stands where resuming misses nothing.
func TestALoopThatIsLeft(t *testing.T) {
	n := startScript(t, func(p *peer) {
		p.welcome(1)
		p.subs(1)
		p.ev(1, 1, 4)
		p.ev(1, 5, 6)
		p.send(`{"t":"gap","id":1,"from":"%s","to":"%s","why":"lag"}`, at(6), at(9))
		p.ev(1, 10, 11)
		p.rest()
	})
	c := dial(t, n)
	s, err := c.Subscribe(testContext(t), "c", Live)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, step := range []struct {
		take int
		at   string // Cursor after it
	}{{0, at(0)}, {1, at(0)}, {2, at(0)}, {1, at(4)}, {1, at(4)}, {1, at(6)}, {1, at(9)}, {1, at(9)}, {1, at(11)}} {
		if step.take > 0 {
			all = append(all, collect(t, s, step.take)...)
		}
		if s.Cursor() != step.at {
			t.Fatalf("after %v at %s, want %s", all, s.Cursor(), step.at)
		}
	}
	if !slices.Equal(all, []string{"1", "2", "3", "4", "5", "6", "lag", "10", "11"}) {
		t.Errorf("got %v", all)
	}
	func() {
		defer func() { recover() }()
		s.leave(batch{events: [][]byte{[]byte(`{"id":"x"}`), []byte(`{"id":"y"}`)}, p: at(11), c: at(13)})
		for range s.Events(testContext(t)) {
			panic("a loop that ends so")
		}
	}()
	if got := collect(t, s, 1); got[0] != "y" || s.Cursor() != at(13) {
		t.Errorf("after a panic: %v, at %s", got, s.Cursor())
	}
}

// A loop ends with its context, however much waits.
func TestALoopEndsWithItsContext(t *testing.T) {
	n := startScript(t, func(p *peer) {
		p.welcome(1)
		p.subs(1)
		for k := 1; k <= 20; k++ {
			p.ev(1, k, k)
		}
		p.rest()
	})
	c := dial(t, n)
	s, err := c.Subscribe(testContext(t), "c", Live)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	var got []string
	for ev, err := range s.Events(ctx) {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			break
		}
		got = append(got, ev.ID())
		cancel()
	}
	cancel()
	if !slices.Equal(got, []string{"1"}) {
		t.Errorf("got %v", got)
	}
	if got := collect(t, s, 19); got[0] != "2" || got[18] != "20" {
		t.Errorf("then %v", got)
	}
}

// What Events yields stays as it is while the connection is read on; what a
// handler gets, it copies.
func TestRawStays(t *testing.T) {
	n := startScript(t, func(p *peer) {
		p.welcome(1)
		p.subs(1)
		p.subs(2)
		for k := 1; k <= 50; k++ {
			p.ev(1, k, k)
			p.ev(2, k, k)
		}
		p.rest()
	})
	c := dial(t, n)
	s, err := c.Subscribe(testContext(t), "c", Live)
	if err != nil {
		t.Fatal(err)
	}
	copies := make(chan []byte, 50)
	if _, err := c.SubscribeFunc(testContext(t), "d", Live, Handler{OnEvent: func(e Event) { copies <- bytes.Clone(e.Raw) }}); err != nil {
		t.Fatal(err)
	}
	var kept []Event
	for ev, err := range s.Events(testContext(t)) {
		if err != nil {
			t.Fatal(err)
		}
		if kept = append(kept, ev); len(kept) == 50 {
			break
		}
	}
	for i, ev := range kept {
		var data struct{ N int }
		if err := ev.Decode(&data); err != nil || data.N != i+1 {
			t.Fatalf("event %d is now %s", i+1, ev.Raw)
		}
		if raw := <-copies; !bytes.Equal(raw, ev.Raw) {
			t.Fatalf("the handler got %s, the loop %s", raw, ev.Raw)
		}
	}
}

// A gap that an earlier connection has already filled is not told, and does
// not lead back; one that names another log does.
func TestGapsBehind(t *testing.T) {
	n := startScript(t, func(p *peer) {
		p.welcome(1)
		p.subs(1)
		p.ev(1, 1, 5)
		p.send(`{"t":"gap","id":1,"from":"%s","to":"%s","why":"retention"}`, at(1), at(3))
		p.ev(1, 6, 6)
		p.send(`{"t":"gap","id":1,"from":"%s","to":"%s","why":"epoch"}`, at(6), at(2))
		p.send(`{"t":"adv","id":1,"p":"%s","c":"%s"}`, at(2), at(3))
		p.ev(1, 4, 7) // 4 to 6 came before
		p.rest()
	})
	var told []string
	seven := make(chan struct{})
	c := dial(t, n)
	s, err := c.SubscribeFunc(testContext(t), "c", Live, Handler{
		OnEvent: func(e Event) {
			if told = append(told, e.ID()); e.ID() == "7" {
				close(seven)
			}
		},
		OnGap: func(g *Gap) { told = append(told, g.Why) },
	})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-seven:
	case <-testContext(t).Done():
	}
	c.Close()
	if want := []string{"1", "2", "3", "4", "5", "6", "epoch", "7"}; !slices.Equal(told, want) {
		t.Errorf("got %v, want %v", told, want)
	}
	if want := (schemas.Cursor{Epoch: 5, Offset: 7}).String(); s.Cursor() != want {
		t.Errorf("at %s, want %s", s.Cursor(), want)
	}
}
