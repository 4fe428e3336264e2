package client

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// A connection that was just made when Close looked for connections is closed
// by install: otherwise it would be read for ever.
func TestCloseMissesNoConnection(t *testing.T) {
	gone := make(chan int, 2)
	n := startScript(t, func(p *peer) {
		p.welcome(1)
		p.rest()
		gone <- p.n
	})
	c := dial(t, n)
	late, err := c.connect(testContext(t), c.url)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if c.install(late) || c.link == late {
		t.Error("a closed client has taken another connection")
	}
	for range 2 {
		select {
		case <-gone:
		case <-testContext(t).Done():
			t.Fatal("a connection is still open")
		}
	}
	if !errors.Is(c.Err(), ErrClosed) || c.Stats().Connects != 1 {
		t.Errorf("%v, %+v", c.Err(), c.Stats())
	}
}

// Close while a connection is being made anew, again and again at another
// moment, always ends.
func TestCloseWhileConnecting(t *testing.T) {
	for i := range 20 {
		welcomed := make(chan struct{})
		n := startScript(t,
			func(p *peer) {
				p.welcome(1)
				p.ws.Close(4201, "moved")
			},
			func(p *peer) {
				p.welcome(1)
				close(welcomed)
				p.rest()
			})
		c := dial(t, n)
		<-welcomed
		<-time.After(time.Duration(i) * 20 * time.Microsecond)
		closed := make(chan struct{})
		go func() { c.Close(); close(closed) }()
		select {
		case <-closed:
		case <-testContext(t).Done():
			t.Fatal("Close hangs")
		}
	}
}

// Close waits for what looks for another node, too.
func TestCloseWaitsForALeave(t *testing.T) {
	asked := make(chan struct{})
	var tokens atomic.Int32
	var ended atomic.Bool
	n := startScript(t, func(p *peer) {
		p.welcome(1)
		p.send(`{"t":"drain","after":1,"deadline":30000}`)
		p.send(`{"t":"drain","after":1,"deadline":30000}`) // said twice, left once
		p.rest()
	})
	c := dial(t, n, func(cfg *Config) {
		cfg.TokenSource = func(ctx context.Context) (string, error) {
			if tokens.Add(1) == 1 {
				return "t", nil
			}
			close(asked) // panics if two leave
			<-ctx.Done()
			<-time.After(50 * time.Millisecond)
			ended.Store(true)
			return "", ctx.Err()
		}
	})
	<-asked
	c.Close()
	if !ended.Load() {
		t.Error("Close has returned before a goroutine of the client ended")
	}
}

// Close gives a node that does not answer goodbyes a moment, not ten seconds.
func TestCloseOfASilentNode(t *testing.T) {
	over := make(chan struct{})
	defer close(over)
	n := startScript(t, func(p *peer) {
		p.welcome(1)
		<-over // reads nothing
	})
	c := dial(t, n)
	began := time.Now()
	c.Close()
	if took := time.Since(began); took > 3*leaveTimeout {
		t.Errorf("Close took %v", took)
	}
}

// What follows a Close within the same frame is not handed on.
func TestCloseInsideAHandler(t *testing.T) {
	over := make(chan struct{})
	n := startScript(t, func(p *peer) {
		p.welcome(1)
		p.subs(1)
		p.ev(1, 1, 5)
		p.send(`{"t":"ping","n":1}`)
		p.want("unsub")
		p.want("pong") // the frame is over
		close(over)
		p.rest()
	})
	c := dial(t, n)
	subs, got := make(chan *Sub, 1), make(chan string, 10)
	s, err := c.SubscribeFunc(testContext(t), "c", Live, Handler{OnEvent: func(ev Event) {
		got <- ev.ID()
		if ev.ID() == "2" {
			(<-subs).Close()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	subs <- s
	<-over
	if first, second, left := <-got, <-got, len(got); first != "1" || second != "2" || left != 0 {
		t.Errorf("%s, %s and %d more", first, second, left)
	}
	if s.Err() != nil || s.Cursor() != at(0) || c.Err() != nil {
		t.Errorf("%v at %s, %v", s.Err(), s.Cursor(), c.Err())
	}
}
