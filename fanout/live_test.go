package fanout

import (
	"fmt"
	"slices"
	"testing"
)

func TestLiveEventsArriveInOrder(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l)
	exact, w := n.open(token("acme", "jobs.*", "chat"), ask("jobs.1", ""))
	if w.Tenant != "acme" || w.Region != testRegion || w.SID == "" || len(w.Subs) != 1 || w.Subs[0].Ch != "jobs.1" {
		t.Fatalf("welcome: %+v", w)
	}
	all, _ := n.open(token("acme", "*"), ask("*", "live"))
	var want []string
	for i := range 10 {
		e := &entry{tenant: "acme", channel: "jobs.1", id: fmt.Sprint(i)}
		l.write(e, &entry{tenant: "acme", channel: "jobs.2", id: fmt.Sprint("x", i)})
		want = append(want, e.id)
	}
	if got := exact.events(10); !slices.Equal(got, want) {
		t.Errorf("exact subscriber got %v, want %v", got, want)
	}
	if got := all.events(20); got[0] != "0" || got[1] != "x0" || got[19] != "x9" {
		t.Errorf("wildcard subscriber got %v", got)
	}
	at := w.Subs[0].Cur
	e := &entry{tenant: "acme", channel: "jobs.1", id: "more"}
	l.write(e)
	f := exact.read()
	if f.T != "ev" || f.P < at || f.P >= f.C || f.C != e.cursor.String() {
		t.Errorf("frame: %+v; subscribed at %s, event at %s", f, at, e.cursor)
	}
}

func TestResumeFromTailAndFromKafka(t *testing.T) {
	for _, tailBytes := range []int64{1 << 20, 64 << 10} {
		t.Run(fmt.Sprint(tailBytes), func(t *testing.T) {
			l := newTestLog(t)
			n := startNode(t, l, func(c *Config) { c.TailBytes = tailBytes })
			hold, w := n.open(token("acme", "*"), ask("a", ""))
			all := make([]*entry, 300)
			for i := range all {
				all[i] = &entry{tenant: "acme", channel: "a", id: fmt.Sprint(i)}
			}
			for i := 0; i < len(all); i += 10 {
				l.write(all[i : i+10]...)
				hold.events(10)
			}
			for _, from := range []int{-1, 0, 5, 150, 298, 299} {
				at := w.Subs[0].Cur
				if from >= 0 {
					at = all[from].cursor.String()
				}
				c, w2 := n.open(token("acme", "*"), ask("a", at))
				if !w2.Resumed || w2.Subs[0].Cur != at {
					t.Errorf("resume at %s: %+v", at, w2)
				}
				last := &entry{tenant: "acme", channel: "a", id: fmt.Sprint("last", from)}
				l.write(last)
				all = append(all, last)
				if got, want := c.events(len(all)-from-1), ids(all[from+1:]); !slices.Equal(got, want) {
					t.Errorf("resumed after %d: got %d events %v…, want %d", from, len(got), got[:min(3, len(got))], len(want))
				}
			}
		})
	}
}

func ids(entries []*entry) (out []string) {
	for _, e := range entries {
		out = append(out, e.id)
	}
	return out
}
