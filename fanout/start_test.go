package fanout

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/spillway/spillway/schemas"
)

// TestWhereASubscriptionBegins checks each kind of "from", out of the tail and
// out of Kafka.
func TestWhereASubscriptionBegins(t *testing.T) {
	for _, tailBytes := range []int64{8 << 20, 32 << 10} {
		t.Run(fmt.Sprint(tailBytes), func(t *testing.T) { testStarts(t, tailBytes) })
	}
}

func testStarts(t *testing.T, tailBytes int64) {
	l := newTestLog(t)
	var all []*entry
	var middle time.Time
	for i := range 400 {
		if i == 200 {
			waitForTick()
			middle = time.Now()
		}
		e := &entry{tenant: "acme", channel: fmt.Sprintf("c.%d", i%4), id: fmt.Sprint(i)}
		if i == 123 {
			e.channel = "rare"
		}
		all = append(all, e)
		if i%8 == 7 {
			l.write(all[i-7:]...)
		}
	}
	n := startNode(t, l, func(c *Config) { c.TailBytes = tailBytes })
	only := func(from int, channel string) []string {
		var out []string
		for _, e := range all[from:] {
			if schemas.Match(channel, e.channel) {
				out = append(out, e.id)
			}
		}
		return out
	}
	for _, c := range []struct {
		channel, from string
		want          []string
	}{
		{"*", "begin", only(0, "*")},
		{"c.1", "begin", only(0, "c.1")},
		{"c.*", fmt.Sprintf(`{"ts":%d}`, middle.UnixMilli()), only(200, "c.*")},
		{"c.1", `{"ts":0}`, only(0, "c.1")},
		{"c.1", `{"last":3}`, only(388, "c.1")},
		{"*", `{"last":399}`, only(1, "*")},
		{"c.2", `{"last":1000}`, only(0, "c.2")},
		{"rare", `{"last":5}`, []string{"123"}},
		{"c.1", all[100].cursor.String(), only(101, "c.1")},
		{"c.1", "live", []string{"new"}},
		{"c.1", fmt.Sprintf(`{"ts":%d}`, time.Now().Add(time.Hour).UnixMilli()), []string{"new"}},
	} {
		node := n.dial()
		node.send(schemas.ClientFrame{T: "auth", Tok: token("acme", "*"), Subs: []schemas.SubRequest{ask(c.channel, c.from)}})
		w := node.read()
		if w.T != "welcome" || len(w.Subs) != 1 {
			t.Fatalf("%s from %s: %+v", c.channel, c.from, w)
		}
		if c.want[0] == "new" {
			l.write(&entry{tenant: "acme", channel: "c.1", id: "new"})
		}
		var got []string
		for len(got) < len(c.want) {
			f := node.read()
			if f.T == "gap" {
				t.Fatalf("%s from %s: %+v", c.channel, c.from, f)
			}
			got = append(got, idsOf(t, f)...)
		}
		if !slices.Equal(got[:len(c.want)], c.want) {
			t.Errorf("%s from %s: got %d events %v…, want %d %v…", c.channel, c.from, len(got), got[:min(4, len(got))], len(c.want), c.want[:min(4, len(c.want))])
		}
		node.ws.CloseNow()
	}
}

// waitForTick returns when the clock shows another millisecond.
func waitForTick() {
	for now := time.Now().UnixMilli(); time.Now().UnixMilli() < now+2; {
		<-time.After(time.Millisecond)
	}
}
