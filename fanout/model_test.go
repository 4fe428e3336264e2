package fanout

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/spillway/spillway/schemas"
)

// TestCutAndResumeMissesNothing is the model check: clients that come, are cut
// off and resume by cursor at random, against a node whose tail is so small
// that some resumes read Kafka. What each got, put together, is the log; and
// every frame follows the one before.
func TestCutAndResumeMissesNothing(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l, func(c *Config) { c.TailBytes = 96 << 10 })
	patterns := []string{"*", "c.*", "c.1", "c.2", "d"}
	starts := make(map[string]string)
	first, w := n.open(token("acme", "*"), ask("*", ""))
	first.ws.CloseNow()
	for _, p := range patterns {
		starts[p] = w.Subs[0].Cur
	}
	var mu sync.Mutex
	var log []*entry
	done := make(chan struct{})
	go func() { // the writer, with a neighbour's flood in between
		defer close(done)
		rng := rand.New(rand.NewPCG(1, 2))
		for i := 0; i < 2000; {
			var batch []*entry
			for range 1 + rng.IntN(20) {
				batch = append(batch, &entry{tenant: "acme", channel: []string{"c.1", "c.2", "c.3", "d"}[rng.IntN(4)], id: fmt.Sprint(i)})
				if rng.IntN(3) == 0 {
					batch = append(batch, &entry{tenant: "globex", channel: "c.1", id: fmt.Sprint("foreign", i)})
				}
				i++
			}
			l.write(batch...)
			mu.Lock()
			for _, e := range batch {
				if e.tenant == "acme" {
					log = append(log, e)
				}
			}
			mu.Unlock()
		}
		end := []*entry{{tenant: "acme", channel: "c.1", id: "end"}, {tenant: "acme", channel: "c.2", id: "end"}, {tenant: "acme", channel: "d", id: "end"}}
		l.write(end...)
		mu.Lock()
		log = append(log, end...)
		mu.Unlock()
	}()
	got := make([][]string, len(patterns))
	var readers sync.WaitGroup
	for i, p := range patterns {
		readers.Go(func() { got[i] = readWithCuts(t, n, p, starts[p], uint64(i)) })
	}
	readers.Wait()
	<-done
	for i, p := range patterns {
		var want []string
		for _, e := range log {
			if schemas.Match(p, e.channel) {
				want = append(want, e.id)
			}
		}
		ends := map[string]int{"*": 3, "c.*": 2}[p]
		if ends > 1 { // readers stop at the first end
			cut := slices.Index(want, "end")
			want = want[:cut+1]
			got[i] = got[i][:slices.Index(got[i], "end")+1]
		}
		if !slices.Equal(got[i], want) {
			t.Errorf("%s: got %d events, want %d; first difference at %d", p, len(got[i]), len(want), firstDifference(got[i], want))
		}
	}
}

func firstDifference(a, b []string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// readWithCuts reads a pattern until the event "end", from connection after
// connection, and checks that each frame follows.
func readWithCuts(t *testing.T, n *testNode, pattern, at string, seed uint64) (got []string) {
	rng := rand.New(rand.NewPCG(seed, 7))
	for {
		c, w := n.open(token("acme", "*"), ask(pattern, at))
		if len(w.Subs) != 1 || w.Subs[0].Cur != at {
			t.Errorf("%s at %s: %+v", pattern, at, w)
			return got
		}
		for range 1 + rng.IntN(6) {
			f := c.read()
			if f.T == "gap" && f.Why == whyLag && f.From == at {
				break // too slow for so small a tail: it resumes from before the gap, out of Kafka
			}
			if f.T == "gap" {
				t.Errorf("%s at %s: gap %+v", pattern, at, f)
				return got
			}
			if f.T != "ev" && f.T != "adv" {
				continue
			}
			if f.P > at || f.C <= at {
				t.Errorf("%s: %s p=%s c=%s does not follow %s", pattern, f.T, f.P, f.C, at)
				return got
			}
			at = f.C
			got = append(got, idsOf(t, f)...)
			if slices.Contains(got[max(0, len(got)-len(f.E)):], "end") {
				c.ws.CloseNow()
				return got
			}
		}
		c.ws.CloseNow()
	}
}

// TestSlowClientIsToldItsGap stalls one client while others read on: they are
// not slowed, and it is told exactly what it missed.
func TestSlowClientIsToldItsGap(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l, func(c *Config) { c.TailBytes = 2 << 20 })
	open := func(onLag string) (*testClient, string) {
		r := ask("c", "")
		r.OnLag = onLag
		c, w := n.open(token("acme", "*"), r)
		return c, w.Subs[0].Cur
	}
	slow, at := open("gap")
	latest, _ := open("latest")
	closing, _ := open("close")
	quick, _ := open("")
	data := `"` + string(slices.Repeat([]byte("x"), 20<<10)) + `"`
	cursors := make(map[string]int)
	const total = 1500
	for i := 0; i < total; i += 10 { // 30 MB through a tail of 2: kernel buffers hold a few MB at most
		var batch []*entry
		for j := range 10 {
			batch = append(batch, &entry{tenant: "acme", channel: "c", id: fmt.Sprint(i + j), data: data})
		}
		l.write(batch...)
		for _, e := range batch {
			cursors[e.cursor.String()] = len(cursors)
		}
		if got := quick.events(10); got[0] != fmt.Sprint(i) {
			t.Fatalf("the quick client got %v after %d", got, i)
		}
	}
	// The slow one reads on: events in order, the gap says what is not there.
	next, gaps := 0, 0
	for next < total {
		f := slow.read()
		switch f.T {
		case "gap":
			gaps++
			if f.Why != whyLag || f.From != at || f.Replay == "" {
				t.Fatalf("gap %+v at %s", f, at)
			}
			at, next = f.To, cursors[f.To]+1
		case "ev":
			for _, id := range idsOf(t, f) {
				if id != fmt.Sprint(next) {
					t.Fatalf("got %s, want %d", id, next)
				}
				next++
			}
			at = f.C
		}
	}
	if gaps == 0 {
		t.Error("no gap was announced")
	}
	if got := skipTo(latest, "gap"); got.Why != whyLag {
		t.Errorf("latest: %+v", got)
	}
	if code, _ := closing.closed(); int(code) != int(schemas.CloseSlow) {
		t.Errorf("on_lag close: closed with %d", code)
	}
}

func skipTo(c *testClient, kind string) schemas.ServerFrame {
	for {
		if f := c.read(); f.T == kind {
			return f
		}
	}
}
