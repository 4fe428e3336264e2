package fanout

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// An sse is what a stream's client sees.
type sse struct {
	id, event, data string
}

// stream opens a stream and returns a function that reads one block.
func (n *testNode) stream(t *testing.T, query url.Values, header ...string) (*http.Response, func() sse) {
	t.Helper()
	resp := n.get("/v1/stream?"+query.Encode(), header...)
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	return resp, func() sse {
		t.Helper()
		var b sse
		for lines.Scan() {
			key, value, _ := strings.Cut(lines.Text(), ": ")
			switch key {
			case "id":
				b.id = value
			case "event":
				b.event = value
			case "data":
				b.data = value
			case "":
				return b
			}
		}
		return b
	}
}

func TestStream(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l)
	tok := token("acme", "a.*")
	resp, next := n.stream(t, url.Values{"channel": {"a.1"}, "access_token": {tok}})
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("stream: %s", resp.Status)
	}
	first := next()
	if first.id == "" || first.data != "" {
		t.Fatalf("first block: %+v", first)
	}
	var all []*entry
	for i := range 6 {
		e := &entry{tenant: "acme", channel: "a.1", id: fmt.Sprint(i), data: "{\"text\":\n\"two lines\"}"}
		l.write(e, &entry{tenant: "globex", channel: "a.1", id: "foreign"}, &entry{tenant: "acme", channel: "a.2", id: "other"})
		all = append(all, e)
	}
	for _, e := range all {
		got := next()
		var ev struct{ ID, Subject string }
		if err := json.Unmarshal([]byte(got.data), &ev); err != nil || ev.ID != e.id || got.id != e.cursor.String() || got.event != "" {
			t.Fatalf("got %+v (%v), want %s at %s", got, err, e.id, e.cursor)
		}
	}
	// Last-Event-ID wins over from, and resumes exactly.
	_, next = n.stream(t, url.Values{"channel": {"a.1"}, "from": {"begin"}}, "Authorization", "Bearer "+tok, "Last-Event-ID", all[2].cursor.String())
	next()
	for _, e := range all[3:] {
		if got := next(); got.id != e.cursor.String() {
			t.Errorf("resumed: got %+v, want %s", got, e.cursor)
		}
	}
	// A cursor of another epoch.
	old := all[0].cursor
	old.Epoch++
	_, next = n.stream(t, url.Values{"channel": {"a.1"}, "access_token": {tok}}, "Last-Event-ID", old.String())
	next()
	if got := next(); got.event != "gap" || !strings.Contains(got.data, `"why":"epoch"`) {
		t.Errorf("other epoch: %+v", got)
	}
	for query, status := range map[string]int{
		"channel=b&access_token=" + url.QueryEscape(tok): 403, "channel=a.1": 401, "channel=a.1&from=x&access_token=" + url.QueryEscape(tok): 400,
		"access_token=" + url.QueryEscape(tok): 400,
	} {
		if resp := n.get("/v1/stream?" + query); resp.StatusCode != status {
			t.Errorf("%s: %d, want %d", query, resp.StatusCode, status)
		}
	}
	n.stop()
	for b := next(); b != (sse{}); b = next() { // the stream ends
	}
}

// TestWhatIsAudited reads what a node says of itself and of what it wrote.
func TestWhatIsAudited(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l)
	c, w := n.open(token("acme", "*"), ask("a", ""))
	all, _ := n.open(token("acme", "*"), ask("*", ""))
	var events []*entry
	for i := range 5 {
		e := &entry{tenant: "acme", channel: "a", id: fmt.Sprint(i)}
		l.write(e)
		events = append(events, e)
	}
	c.events(5)
	all.events(5)
	all.ws.Close(1000, "")
	again, _ := n.open(token("acme", "*"), ask("a", events[1].cursor.String()))
	again.events(3)
	n.stop()

	cl := l.client(kgo.ConsumeTopics(testTopics.Audit(), testTopics.Nodes()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	sessions := make(map[int64]int32) // by cursor
	var ranges []schemas.SessionRange
	var nodes []schemas.Node
	for len(ranges) < 4 || len(nodes) < 2 || sessions[events[4].cursor.Offset] < 3 {
		ctx, cancel := context.WithCancel(l.ctx())
		fetches := cl.PollFetches(ctx)
		cancel()
		if err := fetches.Err(); err != nil {
			t.Fatalf("%v; so far %v, %+v, %+v", err, sessions, ranges, nodes)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			id, body, ok := schemas.WireHeader(r.Value)
			if !ok {
				t.Fatalf("%x", r.Value)
			}
			switch id {
			case 1:
				rec, err := schemas.DecodeReceipt(body)
				if err != nil || rec.Tenant != "acme" || rec.Home != home("acme") || r.Partition != rec.Home || string(r.Key) != "acme" {
					t.Errorf("receipt %+v: %v", rec, err)
				}
				for _, d := range rec.Deliveries {
					sessions[d.Cursor] += d.Sessions
					if d.LatencyUS < 0 || d.LatencyUS > 60e6 || d.Appended == 0 {
						t.Errorf("delivery %+v", d)
					}
				}
			case 2:
				rec, err := schemas.DecodeSessionRange(body)
				if err != nil || rec.Subject != "someone" {
					t.Errorf("range %+v: %v", rec, err)
				}
				ranges = append(ranges, rec)
			case 3:
				rec, err := schemas.DecodeNode(body)
				if err != nil {
					t.Error(err)
				}
				nodes = append(nodes, rec)
			}
		})
	}
	for i, e := range events {
		want := int32(2)
		if i > 1 {
			want = 3
		}
		if got := sessions[e.cursor.Offset]; got != want {
			t.Errorf("event %d reached %d sessions, want %d", i, got, want)
		}
	}
	resumed := false
	for _, r := range ranges {
		if r.CloseCode == 0 && r.Acked == events[1].cursor.Offset && r.To == events[1].cursor.Offset {
			resumed = true
		}
		if r.Session == w.SID && (r.To < events[4].cursor.Offset || r.From > events[0].cursor.Offset || int(r.CloseCode) != int(schemas.CloseDrain)) {
			t.Errorf("range of the first session: %+v", r)
		}
	}
	if !resumed {
		t.Errorf("no range for the cursor of the resumed session: %+v", ranges)
	}
	if nodes[0].State != "live" || nodes[len(nodes)-1].State != "draining" || nodes[0].MaxConnections != 5000 {
		t.Errorf("nodes: %+v", nodes)
	}
}
