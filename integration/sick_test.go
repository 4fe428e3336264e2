//go:build integration

package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/client"
)

// Sick parts around the audit: a ClickHouse that does not take rows, a topic
// that is made anew, producers whose clocks are wrong.

// onBoth runs a story on the embedded and on the real broker, under a prefix of
// its own where it deletes topics.
func onBoth(t *testing.T, prefix string, story func(*testing.T, *deployment)) {
	for _, kind := range []string{"dev", "containers"} {
		t.Run(kind, func(t *testing.T) {
			on(t, kind)
			story(t, &deployment{site: shared(t, kind), prefix: prefix})
		})
	}
	t.Run("compose", func(t *testing.T) {
		on(t, "compose")
		skip(t, "a proxy stands before the part, or a topic of its own prefix is made anew: the story's roles run beside the stack, on parts that are those of containers")
	})
}

// A sickness is what ClickHouse, or what stands before it, answers.
type sickness struct {
	name, reason string
	answer       http.HandlerFunc
}

func refuses(status, code int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("X-ClickHouse-Exception-Code", strconv.Itoa(code))
		http.Error(w, fmt.Sprintf("Code: %d. DB::Exception: %s", code, text), status)
	}
}

func showsPage(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "<html><body><h1>Sorry</h1></body></html>")
	}
}

var sicknesses = []sickness{
	{"read-only user", "read_only", refuses(500, 164, "default: Cannot execute query in readonly mode. (READONLY)")},
	{"read-only table", "read_only", refuses(500, 242, "Table is in readonly mode (TABLE_IS_READ_ONLY)")},
	{"disk full", "disk_full", refuses(500, 243, "Cannot reserve 1.00 MiB, not enough space (NOT_ENOUGH_SPACE)")},
	{"out of memory", "memory_limit", refuses(500, 241, "Memory limit (total) exceeded (MEMORY_LIMIT_EXCEEDED)")},
	{"too many parts", "too_many_parts", refuses(500, 252, "Too many parts (3000) (TOO_MANY_PARTS)")},
	{"wrong password", "auth_failed", refuses(403, 516, "default: Authentication failed (AUTHENTICATION_FAILED)")},
	{"a proxy's 500", "not_clickhouse", showsPage(500)},
	{"a proxy's 200", "not_clickhouse", showsPage(200)},
	{"cut in the middle of an insert", "cut", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 512))
		panic(http.ErrAbortHandler)
	}},
}

// newClinic stands before ClickHouse and is as sick as it is told.
func newClinic(t *testing.T, behind string) (address string, sick *atomic.Pointer[sickness]) {
	t.Helper()
	target, err := url.Parse(behind)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	sick = &atomic.Pointer[sickness]{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ill := sick.Load(); ill != nil {
			ill.answer(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	us, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	us.User = target.User
	return us.String(), sick
}

// TestSickClickHouse: whatever ails ClickHouse, the audit says it once in its
// log, on /readyz and in a metric, loses nothing, and catches up by itself.
func TestSickClickHouse(t *testing.T) { onBoth(t, "sick.", testSickClickHouse) }

func testSickClickHouse(t *testing.T, d *deployment) {
	d.clickhouseReady(t)
	const database = "sick"
	if out, err := d.setup(t, "--clickhouse-database", database); err != nil {
		t.Fatalf("setup: %v\n%s", err, out)
	}
	address, sick := newClinic(t, d.at().ClickHouse)
	p := d.role(t, "audit", "--listen", "127.0.0.1:0", "--clickhouse-url", address, "--clickhouse-database", database)
	value, producer, sent := d.demoMessage(t, "hi"), d.kafka(t, false), 0
	send := func(n int) {
		records := make([]*kgo.Record, n)
		for i := range records {
			records[i] = &kgo.Record{Topic: d.prefix + "events", Partition: int32(i % 12), Key: fmt.Appendf(nil, "tenant-%d", i%12), Value: value,
				Headers: []kgo.RecordHeader{{Key: "ce_id", Value: fmt.Appendf(nil, "%s-%d", d.kind, sent+i)}}}
		}
		if err := producer.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		sent += n
	}
	stored := fmt.Sprintf("SELECT count() || ' ' || uniqExact(event_id) FROM %s.v_events WHERE startsWith(event_id, '%s-')", database, d.kind)
	caughtUp := func(after string) {
		t.Helper()
		want := fmt.Sprintf("%d %d", sent, sent)
		eventually(t, "every event is in ClickHouse once after "+after, func() bool { return d.query(t, stored) == want },
			func() string { return d.query(t, stored) + ", want " + want })
	}
	send(500)
	caughtUp("the start")
	for i := range sicknesses {
		ill := &sicknesses[i]
		said := len(p.out.String())
		sick.Store(ill)
		send(300)
		code, text := 0, ""
		eventually(t, ill.name+": /readyz says why", func() bool {
			code, text = askReady(t, p)
			return code == http.StatusServiceUnavailable && strings.Contains(text, ill.reason+": ")
		}, func() string { return text })
		send(100)
		_, metrics := get(t, web(p.admin)+"/metrics")
		if want := `spillway_audit_fault{part="clickhouse",reason="` + ill.reason + `"} 1`; !strings.Contains(metrics, want) {
			t.Errorf("%s: no metric %s", ill.name, want)
		}
		sick.Store(nil)
		caughtUp(ill.name)
		eventually(t, ill.name+": ready again", func() bool {
			code, text = askReady(t, p)
			return code == http.StatusOK
		}, func() string { return text })
		if log := p.out.String()[said:]; strings.Count(log, "the audit cannot go on now") != 1 {
			t.Errorf("%s: the log:\n%s", ill.name, log)
		}
	}
	t.Logf("%d events through %d sicknesses: %s", sent, len(sicknesses), d.query(t, stored))
}

// TestEventsMadeAnew: a topic of events that is deleted and created again while
// the audit runs is read from its start.
func TestEventsMadeAnew(t *testing.T) { onBoth(t, "anew.", testEventsMadeAnew) }

func testEventsMadeAnew(t *testing.T, d *deployment) {
	d.clickhouseReady(t)
	const database = "anew"
	setup := func() error {
		_, err := d.setup(t, "--clickhouse-database", database)
		return err
	}
	if err := setup(); err != nil {
		t.Fatal(err)
	}
	p := d.role(t, "audit", "--listen", "127.0.0.1:0", "--clickhouse-url", d.at().ClickHouse, "--clickhouse-database", database)
	value := d.demoMessage(t, "hi")
	send := func(what string, n int) {
		producer := d.kafka(t, false) // a producer keeps to the topic that it met
		for i := range n {
			r := &kgo.Record{Topic: d.prefix + "events", Partition: int32(i % 12), Key: []byte("acme"), Value: value,
				Headers: []kgo.RecordHeader{{Key: "ce_id", Value: fmt.Appendf(nil, "%s-%s-%d", d.kind, what, i)}}}
			producer.Produce(t.Context(), r, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
		if err := producer.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	has := func(what string, n int) {
		t.Helper()
		query := fmt.Sprintf("SELECT count() || ' ' || uniqExact(event_id) FROM %s.v_events WHERE startsWith(event_id, '%s-%s-')", database, d.kind, what)
		want := fmt.Sprintf("%d %d", n, n)
		within(t, 90*time.Second, what+" are in ClickHouse once", func() bool { return d.query(t, query) == want },
			func() string { return d.query(t, query) + ", want " + want + "\n" + tail(p.out.String()) })
	}
	send("old", 300)
	has("old", 300)
	d.remake(t, "events", func() {})
	send("new", 120) // fewer: offsets of the old topic would skip them
	has("new", 120)
	has("old", 300)
	eventually(t, "ready again", func() bool {
		code, _ := askReady(t, p)
		return code == http.StatusOK
	})
	if log := p.out.String(); strings.Count(log, "was deleted and made anew") != 1 {
		t.Errorf("the log:\n%s", log)
	}
	_, metrics := get(t, web(p.admin)+"/metrics")
	if !strings.Contains(metrics, `spillway_audit_failures_total{part="kafka",reason="topic_recreated"}`) {
		t.Error("no metric of the topic that was made anew")
	}
}

// TestClocks: a producer's clock places nothing. Its word is passed on and told
// as it was; order, quotas, days and partitions follow the broker.
func TestClocks(t *testing.T) {
	for _, kind := range []string{"dev", "containers"} {
		t.Run(kind, func(t *testing.T) {
			on(t, kind)
			testClocks(t, shared(t, kind))
		})
	}
}

func testClocks(t *testing.T, s *site) {
	s.clickhouseReady(t)
	run := fmt.Sprintf("clock-%d", time.Now().UnixNano())
	times := []string{"", "1970-01-01T00:00:00Z", "1969-12-31T23:59:59.999Z", "0000-01-01T00:00:00Z", "2100-01-01T00:00:00.5Z", "9999-12-31T23:59:59Z", "1815-12-10T00:00:00+01:00"}
	stamps := []time.Time{{}, time.UnixMilli(1), time.Date(1970, 1, 2, 0, 0, 0, 0, time.UTC), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}
	value, producer := s.demoMessage(t, "hi"), s.kafka(t, false)
	warm := &kgo.Record{Key: []byte("acme"), Partition: homeOf("acme"), Value: value, Headers: []kgo.RecordHeader{{Key: "ce_subject", Value: []byte(run + "-warm")}}}
	if err := producer.ProduceSync(t.Context(), warm).FirstErr(); err != nil { // the first event of a new schema id waits, and the others pass it
		t.Fatal(err)
	}
	s.run(t, "", "sub", "acme", run+"-warm", "--from", "begin", "--count", "1", "--timeout", "60s")
	began := time.Now()
	var sent []string
	said := map[string]string{}
	for i, stamp := range stamps {
		for j, at := range times {
			id := fmt.Sprintf("%s-%d-%d", run, i, j)
			r := &kgo.Record{Key: []byte("acme"), Partition: homeOf("acme"), Value: value, Timestamp: stamp, Headers: []kgo.RecordHeader{
				{Key: "ce_id", Value: []byte(id)}, {Key: "ce_subject", Value: []byte(run)}}}
			if at != "" {
				r.Headers = append(r.Headers, kgo.RecordHeader{Key: "ce_time", Value: []byte(at)})
			}
			if err := producer.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
			sent, said[id] = append(sent, id), at
		}
	}
	out := s.run(t, "", "sub", "acme", run, "--from", "begin", "--count", strconv.Itoa(len(sent)), "--timeout", "30s", "--output", "json")
	var got []string
	for lines := bufio.NewScanner(strings.NewReader(out)); lines.Scan(); {
		var ev struct{ ID, Time string }
		if err := json.Unmarshal(lines.Bytes(), &ev); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		got = append(got, ev.ID)
		at, err := time.Parse(time.RFC3339Nano, ev.Time)
		switch want := said[ev.ID]; {
		case want != "" && ev.Time != want:
			t.Errorf("%s: a subscriber is told %s, the producer said %s", ev.ID, ev.Time, want)
		case want == "" && (err != nil || at.Sub(began).Abs() > time.Minute):
			t.Errorf("%s: a subscriber is told %s, without ce_time", ev.ID, ev.Time)
		}
	}
	if !slices.Equal(got, sent) {
		t.Errorf("got %v\nwant %v", got, sent)
	}
	placed := fmt.Sprintf("SELECT count() || ' ' || countIf(abs(toUnixTimestamp(accepted_at) - %d) < 60) FROM spillway.v_events WHERE channel = '%s'", began.Unix(), run)
	want := fmt.Sprintf("%d %d", len(sent), len(sent))
	eventually(t, "all are placed by the broker's time", func() bool { return s.query(t, placed) == want }, func() string { return s.query(t, placed) + ", want " + want })
	for _, id := range sent[:len(times)] {
		story := ""
		eventually(t, "the story of "+id+" is told", func() bool { // receipts come a moment later
			story = s.run(t, "", "explain", id, "--tenant", "acme")
			return strings.Contains(story, "delivered to ")
		}, func() string { return story })
		if said[id] != "" && !strings.Contains(story, "time "+said[id]) {
			t.Errorf("%s: the story says another time:\n%s", said[id], story)
		}
	}
}

// TestFanoutMadeAnew: who is subscribed while the fan-out's topic is deleted and
// created again is told of the gap, and gets what follows it.
func TestFanoutMadeAnew(t *testing.T) { onBoth(t, "fan.", testFanoutMadeAnew) }

func testFanoutMadeAnew(t *testing.T, d *deployment) {
	if out, err := d.setup(t, "--clickhouse-database", "fan"); err != nil {
		t.Fatalf("setup: %v\n%s", err, out)
	}
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	route := d.role(t, "route")
	node := d.role(t, "fanout", "--listen", local(ports[0]))
	value, producer := d.demoMessage(t, "hi"), d.kafka(t, false)
	send := func(ids ...string) {
		for _, id := range ids {
			r := &kgo.Record{Topic: d.prefix + "events", Key: []byte("acme"), Partition: homeOf("acme"), Value: value, Headers: []kgo.RecordHeader{
				{Key: "ce_id", Value: []byte(id)}, {Key: "ce_subject", Value: []byte("room")}}}
			if err := producer.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	c, err := client.Dial(t.Context(), client.Config{URL: "ws://" + local(ports[0]), Token: strings.TrimSpace(d.run(t, "", "token", "acme"))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sub, err := c.Subscribe(t.Context(), "room", client.Live)
	if err != nil {
		t.Fatal(err)
	}
	next := func(within time.Duration) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		for ev, err := range sub.Events(ctx) {
			var gap *client.Gap
			switch {
			case errors.As(err, &gap):
				return "gap " + gap.Why
			case err != nil:
				t.Fatalf("%v; the node:\n%s\nroute:\n%s", err, tail(node.out.String()), tail(route.out.String()))
			}
			return ev.ID()
		}
		return "nothing"
	}
	send("old-1", "old-2")
	if got := []string{next(time.Minute), next(time.Minute)}; !slices.Equal(got, []string{"old-1", "old-2"}) {
		t.Fatalf("before: %v", got)
	}
	// The node is stopped while what it has not read vanishes with the topic.
	if err := node.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	fan := d.prefix + "fanout.local"
	for _, id := range []string{"on its way", "lost"} {
		after(t, time.Second) // the node's open question is answered by then, or with the first of the two
		send(id)
		eventually(t, "route has let it through", func() bool {
			return d.count(t, fan, func(r *kgo.Record) bool { return strings.Contains(string(r.Value), `"`+id+`"`) }) == 1
		}, func() string { return tail(route.out.String()) })
	}
	d.remake(t, "fanout.local", func() {})
	_ = route.cmd.Process.Kill() // its producer keeps to the topic that it met
	_ = route.cmd.Wait()
	route = d.role(t, "route")
	if err := node.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	send("new-1", "new-2")
	got := []string{next(90 * time.Second)}
	if got[0] == "on its way" {
		got[0] = next(90 * time.Second)
	}
	if got = append(got, next(time.Minute), next(time.Minute)); !slices.Equal(got, []string{"gap epoch", "new-1", "new-2"}) {
		t.Errorf("after: %v\n%s", got, tail(node.out.String()))
	}
	eventually(t, "the node is ready again", func() bool {
		code, _ := askReady(t, node)
		return code == http.StatusOK
	})
	if log := node.out.String(); strings.Count(log, "was deleted and made anew") != 1 {
		t.Errorf("the log:\n%s", log)
	}
	if _, metrics := get(t, web(node.admin)+"/metrics"); !strings.Contains(metrics, `spillway_fanout_gaps_total{why="epoch"} 1`) {
		t.Error("the gap is not counted")
	}
}
