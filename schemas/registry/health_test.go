package registry

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/sr/srfake"
)

// near is a registry reached without a network, for clocks that jump. As with
// a socket, an answer that is not there when the request's time is over does
// not come.
type near struct {
	handler  http.Handler
	down     atomic.Bool // answers 503
	silent   atomic.Bool // does not answer
	requests atomic.Int64
}

func (n *near) RoundTrip(r *http.Request) (*http.Response, error) {
	n.requests.Add(1)
	if n.silent.Load() {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	rec := httptest.NewRecorder()
	if n.down.Load() {
		rec.WriteHeader(503)
	} else {
		n.handler.ServeHTTP(rec, r)
	}
	return rec.Result(), nil
}

// TestBackoff: a registry that is down is asked rarely, and found again soon.
func TestBackoff(t *testing.T) {
	fakes := srfake.New() // its listener must not belong to the bubble
	defer fakes.Close()
	synctest.Test(t, func(t *testing.T) {
		n := &near{handler: fakes.Handler()}
		c, err := New(Config{URLs: []string{"http://near"}, HTTP: &http.Client{Transport: n}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Ready(); err != nil {
			t.Errorf("before the first question: %v", err)
		}
		n.down.Store(true)
		_, err = c.Resolve(t.Context(), 1)
		wantIs(t, err, ErrUnavailable)
		began := time.Now()
		for i := range 6000 { // a minute of events with unknown ids
			_, err := c.Resolve(t.Context(), i+1)
			wantIs(t, err, ErrUnavailable)
			<-time.After(10 * time.Millisecond)
		}
		// Pauses of 0.1 to 3.2 s, then of 5 s: 18 ends of a pause, at each of
		// which an event and the search may both ask.
		if got := n.requests.Load(); got > 36 {
			t.Errorf("%d requests in a minute of silence", got)
		}
		n.down.Store(false)
		back := time.Now()
		for c.Ready() != nil {
			<-time.After(10 * time.Millisecond)
		}
		if took := time.Since(back); took > maxBackoff+time.Second {
			t.Errorf("found again after %s", took)
		}
		_, err = c.Resolve(t.Context(), 1)
		wantIs(t, err, ErrAbsent)
		asked := n.requests.Load()
		<-time.After(time.Hour)
		if got := n.requests.Load(); got != asked {
			t.Errorf("%d requests in an hour without a question, begun %s ago", got-asked, time.Since(began))
		}
	})
}

// TestSilence: a question that is not answered ends in time, those behind it
// too, and the answer of a registry that wakes up is taken.
func TestSilence(t *testing.T) {
	fakes := srfake.New()
	defer fakes.Close()
	synctest.Test(t, func(t *testing.T) {
		n := &near{handler: fakes.Handler()}
		c, err := New(Config{URLs: []string{"http://near"}, HTTP: &http.Client{Transport: n}, Timeout: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		n.silent.Store(true)
		began := time.Now()
		const askers = 60
		ended := make(chan error, askers)
		for id := range askers {
			go func() { _, err := c.Resolve(t.Context(), id+1); ended <- err }()
		}
		for range askers {
			wantIs(t, <-ended, ErrUnavailable)
		}
		// Two periods: waiting for a place, and for the answer.
		if took := time.Since(began); took > 4*time.Second+100*time.Millisecond {
			t.Errorf("took %s", took)
		}
		if _, state := c.ByID(1); state.Answer != Unknown {
			t.Errorf("got %v", state)
		}
		n.silent.Store(false)
		for c.Ready() != nil {
			<-time.After(10 * time.Millisecond)
		}
		_, err = c.Resolve(t.Context(), 1)
		wantIs(t, err, ErrAbsent)
	})
}
