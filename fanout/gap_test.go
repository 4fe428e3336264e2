package fanout

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/spillway/spillway/schemas"
)

// TestCursorsThatDoNotContinue checks what a client is told that comes with a
// place the log does not have.
func TestCursorsThatDoNotContinue(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l)
	var all []*entry
	for i := range 20 {
		e := &entry{tenant: "acme", channel: "a", id: fmt.Sprint(i)}
		l.write(e)
		all = append(all, e)
	}
	last := all[19].cursor
	tok := token("acme", "*")
	for name, off := range map[string]schemas.Cursor{
		"other epoch": {Epoch: 1}, "beyond the end of events": {Offset: 1}, "far beyond": {Offset: 1 << 40},
	} {
		at := schemas.Cursor{Epoch: last.Epoch + off.Epoch, Offset: last.Offset + off.Offset}
		c, w := n.open(tok, ask("a", at.String()))
		if w.Resumed || w.Subs[0].Cur != last.String() {
			t.Errorf("%s: %+v", name, w)
		}
		if g := c.read(); g.T != "gap" || g.Why != whyEpoch || g.From != at.String() || g.To != last.String() {
			t.Errorf("%s: %+v", name, g)
		}
		e := &entry{tenant: "acme", channel: "a", id: name}
		l.write(e)
		last = e.cursor
		if got := c.events(1); got[0] != name {
			t.Errorf("%s: got %v", name, got)
		}
	}
	// Appended to events, not let through yet: this node has not come so far.
	ahead := &entry{tenant: "acme", channel: "a", id: "ahead"}
	l.put([]*entry{ahead})
	c, w := n.open(tok, ask("a", ahead.cursor.String()))
	if !w.Resumed || w.Subs[0].Cur != ahead.cursor.String() {
		t.Errorf("ahead of the node: %+v", w)
	}
	l.write(&entry{tenant: "acme", channel: "a", id: "next"})
	if got := c.events(1); got[0] != "next" {
		t.Errorf("ahead of the node: got %v", got)
	}
}

// TestPlacesOlderThanTheTopic takes away the oldest half of the log.
func TestPlacesOlderThanTheTopic(t *testing.T) {
	for _, tailBytes := range []int64{8 << 20, 16 << 10} {
		l := newTestLog(t)
		var all []*entry
		for i := range 200 {
			all = append(all, &entry{tenant: "acme", channel: "a", id: fmt.Sprint(i)})
			if i%2 == 1 {
				l.write(all[i-1:]...)
			}
		}
		var cut kadm.Offsets
		cut.AddOffset(testTopics.Fanout(testRegion), home("acme"), 150, -1) // each transaction: two records and a marker
		if _, err := l.adm.DeleteRecords(l.ctx(), cut); err != nil {
			t.Fatal(err)
		}
		n := startNode(t, l, func(c *Config) { c.TailBytes = tailBytes })
		tok := token("acme", "*")
		c, w := n.open(tok, ask("a", all[10].cursor.String()))
		before := schemas.Cursor{Epoch: all[100].cursor.Epoch, Offset: all[100].cursor.Offset - 1}.String()
		if g := c.read(); g.T != "gap" || g.Why != whyRetention || g.From != all[10].cursor.String() || g.To != before {
			t.Fatalf("%d: welcome %+v, then %+v; want a gap to %s", tailBytes, w, g, before)
		}
		if got, want := c.events(100), ids(all[100:]); !slices.Equal(got, want) {
			t.Errorf("after the gap: %v", got)
		}
		c, _ = n.open(tok, ask("a", before)) // nothing is missing after this place
		if got, want := c.events(100), ids(all[100:]); !slices.Equal(got, want) {
			t.Errorf("from the edge: %v", got)
		}
		c, _ = n.open(tok, ask("a", "begin"))
		if got, want := c.events(100), ids(all[100:]); !slices.Equal(got, want) {
			t.Errorf("from the beginning: %v", got)
		}
	}
}
