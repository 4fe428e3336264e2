package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
)

// unwell is a registry reached without a network whose answers to a path can be
// made bad: 500, or none at all.
type unwell struct {
	near
	bad func(path string) (status int, silent bool)

	mu    sync.Mutex
	asked map[string]int // times, by path
}

func (u *unwell) RoundTrip(r *http.Request) (*http.Response, error) {
	u.mu.Lock()
	u.asked[r.URL.Path]++
	u.mu.Unlock()
	switch status, silent := u.bad(r.URL.Path); {
	case silent:
		<-r.Context().Done()
		return nil, r.Context().Err()
	case status != 0:
		return &http.Response{StatusCode: status, Body: http.NoBody, Header: http.Header{}}, nil
	}
	return u.near.RoundTrip(r)
}

func (u *unwell) times(path string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.asked[path]
}

// withUnwell has n subjects S00, S01, … in a registry that can be made ill.
func withUnwell(t *testing.T, n int, test func(t *testing.T, u *unwell, c *Client, ids []int, loaded func() float64)) {
	fakes := srfake.New() // its listener must not belong to the bubble
	defer fakes.Close()
	var ids []int
	for i := range n {
		name := fmt.Sprintf("S%02d", i)
		id, _, err := fakes.RegisterSchema(name, sr.Schema{Schema: strings.Replace(message, "demo.Message", name, 1)})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	synctest.Test(t, func(t *testing.T) {
		u := &unwell{near: near{handler: fakes.Handler()}, bad: func(string) (int, bool) { return 0, false }, asked: map[string]int{}}
		metrics := prometheus.NewRegistry()
		c, err := New(Config{URLs: []string{"http://near"}, HTTP: &http.Client{Transport: u}, Registerer: metrics})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		test(t, u, c, ids, func() float64 { return gauge(t, metrics, "spillway_registry_loaded") })
	})
}

func gauge(t *testing.T, g prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func knows(c *Client, ids []int) (n int) {
	for _, id := range ids {
		if _, state := c.ByID(id); state.Answer == Known {
			n++
		}
	}
	return n
}

// TestLoadThroughIllness: a registry that first answers 500 to everything, and
// then nothing, is asked until it has said all; meanwhile no id is absent.
func TestLoadThroughIllness(t *testing.T) {
	withUnwell(t, 20, func(t *testing.T, u *unwell, c *Client, ids []int, loaded func() float64) {
		var phase atomic.Int32
		u.bad = func(string) (int, bool) {
			switch phase.Load() {
			case 0:
				return 500, false
			case 1:
				return 0, true
			}
			return 0, false
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Load(t.Context()) }()
		<-time.After(2 * time.Second)
		if n := u.times("/schemas"); n < 3 || n > 6 {
			t.Errorf("asked %d times in 2 s", n)
		}
		phase.Store(1)
		<-time.After(15 * time.Second)
		if _, state := c.ByID(ids[0]); state.Answer != Unknown || loaded() != 0 {
			t.Errorf("while it is ill: answer %v, loaded %v", state.Answer, loaded())
		}
		phase.Store(2)
		began := time.Now()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		// The end of the requests that have no answer, and of the pause.
		if took := time.Since(began); took > 3*maxBackoff {
			t.Errorf("loaded %s after it was well", took)
		}
		if knows(c, ids) != len(ids) || loaded() != 1 {
			t.Errorf("%d of %d known, loaded %v", knows(c, ids), len(ids), loaded())
		}
	})
}

// TestLoadBySubject: a list that takes too long for one answer is read subject
// by subject; what was read before a failure is known and not read again.
func TestLoadBySubject(t *testing.T) {
	withUnwell(t, 20, func(t *testing.T, u *unwell, c *Client, ids []int, loaded func() float64) {
		var well atomic.Bool
		u.bad = func(path string) (int, bool) {
			if path == "/schemas" {
				return 0, true
			}
			if !well.Load() && (strings.HasPrefix(path, "/subjects/S03/") || strings.HasPrefix(path, "/subjects/S11/")) {
				return 500, false
			}
			return 0, false
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Load(t.Context()) }()
		<-time.After(9 * time.Second)
		if n := knows(c, ids); n != 18 || loaded() != 0 {
			t.Errorf("%d ids known, want all but 2; loaded %v", n, loaded())
		}
		if _, state := c.ByID(ids[3]); state.Answer != Unknown {
			t.Errorf("what could not be read is %v", state.Answer)
		}
		well.Store(true)
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if knows(c, ids) != 20 || loaded() != 1 {
			t.Errorf("%d known, loaded %v", knows(c, ids), loaded())
		}
		if all, once, again := u.times("/schemas"), u.times("/subjects/S04/versions"), u.times("/subjects/S03/versions"); all != 1 || once != 1 || again < 3 {
			t.Errorf("asked for all %d times, for a good subject %d, for a bad one %d", all, once, again)
		}
	})
}

// TestLoadGoesOnBehindBadSubjects: more subjects that can never be read than end
// a try do not hide the others.
func TestLoadGoesOnBehindBadSubjects(t *testing.T) {
	withUnwell(t, 30, func(t *testing.T, u *unwell, c *Client, ids []int, loaded func() float64) {
		u.bad = func(path string) (int, bool) {
			if path == "/schemas" || strings.HasPrefix(path, "/subjects/S0") {
				return 500, false
			}
			return 0, false
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.Load(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "10 of 30 subjects") {
			t.Errorf("error is %v", err)
		}
		if knows(c, ids[10:]) != 20 || knows(c, ids[:10]) != 0 || loaded() != 0 {
			t.Errorf("%d good ones known, loaded %v", knows(c, ids[10:]), loaded())
		}
	})
}

// TestLoadKeepsANoFresh: what the registry denied before, or while all is being
// loaded, keeps the time of its "no".
func TestLoadKeepsANoFresh(t *testing.T) {
	withUnwell(t, 3, func(t *testing.T, u *unwell, c *Client, ids []int, _ func() float64) {
		asked := time.Now()
		_, err := c.Resolve(t.Context(), 4711)
		wantIs(t, err, ErrAbsent)
		<-time.After(3 * time.Second)
		if err := c.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, state := c.ByID(4711); state.Answer != Absent || !state.Asked.Equal(asked) {
			t.Errorf("got %+v, asked at %s", state, asked)
		}
		if _, state := c.ByID(4712); state.Answer != Unknown {
			t.Errorf("an id that no list has is %v", state.Answer)
		}
	})
}

// TestLoadKeepsGoodEntries: one entry that says nothing does not hide the list.
func TestLoadKeepsGoodEntries(t *testing.T) {
	w := newWorld(t)
	w.misbehave(says(200, `[{"subject":"demo.Message","version":1,"id":7,"schema":`+fmt.Sprintf("%q", message)+`},{"id":0}]`))
	c := w.client(t)
	err := c.Preload(t.Context())
	wantFault(t, err, w.URL(), wrongAnswer, "without subject")
	if s, _ := c.ByID(7); s == nil || s.Name != "demo.Message" {
		t.Errorf("got %+v", s)
	}
}
