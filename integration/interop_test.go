//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A sentEvent is what a program says of an event when the broker has it.
type sentEvent struct {
	Tenant    string `json:"tenant"`
	Run       string `json:"run"`
	Codec     string `json:"codec"`
	Headers   bool   `json:"headers"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

func (e sentEvent) place() string { return fmt.Sprintf("/%d/%d", e.Partition, e.Offset) }

// gotEvent is an event as a subscriber has it.
type gotEvent struct {
	ID, Source, Type, Subject, TenantID, Traceparent string
	Time                                             time.Time
	Data                                             map[string]any
}

// storyRow is what ClickHouse knows of an event.
type storyRow struct {
	Tenant, ID, Origin, Type, Channel, Trace, Status, Path string
	Home                                                   int32
}

const interopTrace = "4bf92f3577b34da6a3ce929d0e0e4736"

// TestInterop sends from each producer: whoever subscribes gets the same JSON,
// and the story of each event is in ClickHouse.
func TestInterop(t *testing.T) { onEach(t, testInterop) }

func testInterop(t *testing.T, s *site) {
	s.clickhouseReady(t)
	strangers, foreign := 0, 0
	for _, p := range producers {
		if p.ownAPI && !strings.Contains(s.at().Registry, "/apis/") {
			continue // this stack's registry has no other API than Confluent's
		}
		t.Run(p.name, func(t *testing.T) {
			on(t, s.kind)
			n := p.test(t, s)
			if !p.home {
				strangers, foreign = strangers+n, foreign+1
			}
		})
	}
	if foreign > 1 && strangers == 0 && !t.Failed() { // chance: one in three million
		t.Error("no event came to another partition than its tenant's: nothing was forwarded")
	}
}

// test returns how many events were sent to another partition than their
// tenant's home.
func (p producer) test(t *testing.T, s *site) (strangers int) {
	cache := p.ready(t)
	run := "io" + strconv.FormatInt(time.Now().UnixMilli(), 36)
	var tenants []string
	for i := range 3 {
		tenants = append(tenants, fmt.Sprintf("%s-%s-%d", run, p.name, i))
	}
	began := time.Now()
	each := 2 * len(codecs) // a tenant's events
	receive := s.receive(t, tenants, each)
	sent := p.produce(t, s, cache, tenants, run)
	if len(sent) != each*len(tenants) {
		t.Fatalf("%d events were sent, want %d", len(sent), each*len(tenants))
	}
	got := receive()
	used := s.codecsUsed(t, sent)
	rows := s.rows(t, tenants, len(sent))
	for _, codec := range codecs {
		for _, headers := range []bool{true, false} {
			t.Run(codec+map[bool]string{true: " with ce headers", false: " bare"}[headers], func(t *testing.T) {
				for _, e := range sent {
					if e.Codec == codec && e.Headers == headers {
						p.checkEvent(t, e, got[e.Run], began)
						p.checkStory(t, s, e, rows[e.place()])
						checkCodec(t, e, used[e.place()])
					}
				}
			})
		}
	}
	unnamed := 0
	for _, e := range sent {
		if rows[e.place()].Home != e.Partition {
			strangers++
		}
		if rows[e.place()].Type == "" {
			unnamed++
		}
	}
	if unnamed >= len(tenants)*len(codecs) {
		t.Errorf("no row of an event without ce_type has a type: ClickHouse never learns it from the schema")
	}
	if p.home && strangers > 0 {
		t.Errorf("%d of %d events were sent to another partition than home, and this client partitions as we do", strangers, len(sent))
	}
	t.Logf("%d events, %d forwarded to their home partition; %d rows without a type, for the registry did not answer the sink in time",
		len(sent), strangers, unnamed)
	return strangers
}

func (p producer) checkEvent(t *testing.T, sent sentEvent, got gotEvent, began time.Time) {
	t.Helper()
	if got.Data == nil {
		t.Errorf("%s did not arrive", sent.Run)
		return
	}
	if want := p.reading(t, sent.Run); !reflect.DeepEqual(got.Data, want) {
		for name := range want {
			if !reflect.DeepEqual(got.Data[name], want[name]) {
				t.Errorf("%s: %s = %#v, want %#v", sent.Run, name, got.Data[name], want[name])
			}
		}
		t.Errorf("%s: %d fields, want %d", sent.Run, len(got.Data), len(want))
	}
	want := gotEvent{
		ID: sent.Run, Source: "/interop/" + p.name, Type: p.record(), Subject: "interop." + p.name, TenantID: sent.Tenant,
	}
	if !sent.Headers {
		want.ID, want.Source, want.Subject = got.ID, "/kafka", "default"
		if !strings.HasSuffix(got.ID, sent.place()) {
			t.Errorf("%s has the id %q, want its place, …%s", sent.Run, got.ID, sent.place())
		}
	}
	have := got
	have.Data, have.Time, have.Traceparent = nil, time.Time{}, ""
	if !reflect.DeepEqual(have, want) {
		t.Errorf("got %+v, want %+v", have, want)
	}
	said := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	if sent.Headers && (!got.Time.Equal(said) || !strings.Contains(got.Traceparent, interopTrace)) {
		t.Errorf("%s: time %s, traceparent %q; want those of the headers", sent.Run, got.Time, got.Traceparent)
	}
	if !sent.Headers && (got.Time.Before(began.Add(-time.Minute)) || got.Time.After(time.Now().Add(time.Minute))) {
		t.Errorf("%s: time %s, want that of the record", sent.Run, got.Time)
	}
}

// checkCodec: an event that came as it should proves nothing about a codec if
// its batch was not compressed with it.
func checkCodec(t *testing.T, sent sentEvent, used string) {
	t.Helper()
	if used != sent.Codec && !t.Failed() {
		t.Errorf("%s: its batch is compressed with %q, so nothing was tested", sent.Run, used)
	}
}

// checkStory looks at an event's row, and at what a person is told of it.
func (p producer) checkStory(t *testing.T, s *site, sent sentEvent, row storyRow) {
	t.Helper()
	want := storyRow{
		Tenant: sent.Tenant, ID: sent.Run, Type: p.record(), Channel: "interop." + p.name, Trace: interopTrace, Path: "fast",
		Status: row.Status, Origin: row.Origin, Home: row.Home,
	}
	if !sent.Headers {
		want.ID, want.Channel, want.Trace = row.Origin, "default", row.Trace
	}
	if row.Type == "" && !sent.Headers {
		want.Type = "" // the sink did not wait for the registry; unnamed counts these
	}
	if row != want || !slices.Contains([]string{"processing", "delivered", "unclaimed"}, row.Status) {
		t.Errorf("ClickHouse has %+v, want %+v", row, want)
		return
	}
	if !strings.HasSuffix(sent.Tenant, "-0") {
		return // one tenant's stories are enough to be told
	}
	var story struct{ Tenant, Summary string }
	out := s.run(t, "", "explain", row.ID, "--output", "json", "--source", "clickhouse")
	if err := json.Unmarshal([]byte(out), &story); err != nil || !strings.Contains(out, sent.Tenant) || !strings.Contains(out, row.Origin) {
		t.Errorf("explain %s: %v\n%s", row.ID, err, out)
	}
}

func (p producer) record() string { return "interop." + p.name + ".Reading" }

// reading is the event's data as each subscriber must get it.
func (p producer) reading(t *testing.T, run string) map[string]any {
	t.Helper()
	text, err := os.ReadFile("interop/reading.json")
	if err != nil {
		t.Fatal(err)
	}
	return decodeData(t, bytes.Replace(text, []byte(`"RUN"`), []byte(strconv.Quote(run)), 1))
}

// decodeData keeps numbers as they are written: 1 is not 1.0 here.
func decodeData(t *testing.T, text []byte) map[string]any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var data map[string]any
	if err := d.Decode(&data); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return data
}

// receive subscribes to all channels of the tenants. What it returns waits for
// each tenant's events and returns them by their field run; each tenant's must
// have come in the order of the log.
func (s *site) receive(t *testing.T, tenants []string, each int) func() map[string]gotEvent {
	type answer struct {
		out string
		err error
	}
	answers := make([]chan answer, len(tenants))
	ctx, cancel := context.WithCancel(t.Context())
	for i, tenant := range tenants {
		answers[i] = make(chan answer, 1)
		go func() {
			out, err := s.try(ctx, "", "sub", tenant, "*", "--from", "begin", "--count", strconv.Itoa(each), "--timeout", "90s", "--output", "json")
			answers[i] <- answer{out, err}
		}()
	}
	t.Cleanup(func() {
		cancel()
		for _, a := range answers {
			<-a // closed, or the answer that nobody waited for
		}
	})
	return func() map[string]gotEvent {
		all := map[string]gotEvent{}
		for i := range answers {
			a := <-answers[i]
			close(answers[i])
			if a.err != nil {
				t.Errorf("sub %s: %v\n%s", tenants[i], a.err, tail(a.out))
			}
			for line := range strings.Lines(a.out) {
				var e struct {
					gotEvent
					Data json.RawMessage
				}
				if json.Unmarshal([]byte(line), &e) != nil {
					continue // what it says of its end
				}
				e.gotEvent.Data = decodeData(t, e.Data)
				run, _ := e.gotEvent.Data["run"].(string)
				if _, twice := all[run]; twice {
					t.Errorf("%s came twice", run)
				}
				all[run] = e.gotEvent
			}
		}
		return all
	}
}

// codecsUsed reads the events from Kafka: the codec of the batch at each place.
func (s *site) codecsUsed(t *testing.T, sent []sentEvent) map[string]string {
	t.Helper()
	const topic = "spillway.events"
	from, missing := map[int32]kgo.Offset{}, map[string]bool{}
	first := map[int32]int64{}
	for _, e := range sent {
		if at, ok := first[e.Partition]; !ok || e.Offset < at {
			first[e.Partition], from[e.Partition] = e.Offset, kgo.NewOffset().At(e.Offset)
		}
		missing[e.place()] = true
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(s.at().Kafka), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	used := map[string]string{}
	for len(missing) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %s, %d records missing: %v", topic, len(missing), err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			place := sentEvent{Partition: r.Partition, Offset: r.Offset}.place()
			used[place] = codecs[r.Attrs.CompressionType()]
			delete(missing, place)
		})
	}
	return used
}

// rows waits until ClickHouse has the tenants' events, decided, and returns
// them by place; there must be no more than were sent.
func (s *site) rows(t *testing.T, tenants []string, want int) map[string]storyRow {
	t.Helper()
	in := "tenant IN ('" + strings.Join(tenants, "','") + "')"
	sql := `SELECT e.tenant AS tenant, e.event_id AS id, e.origin AS origin, e.type AS type, e.channel AS channel, e.trace_id AS trace,
  s.status AS status, s.path AS path, s.home AS home
FROM (SELECT * FROM spillway.v_events WHERE ` + in + `) AS e
JOIN (SELECT * FROM spillway.v_status_now WHERE ` + in + ` AND status != 'pending') AS s ON e.tenant = s.tenant AND e.origin = s.origin
FORMAT JSONEachRow`
	var answer string
	eventually(t, fmt.Sprintf("ClickHouse has %d events", want), func() bool {
		answer = s.query(t, sql)
		return strings.Count(answer, "\n")+1 >= want && strings.HasPrefix(answer, "{")
	}, func() string { return answer })
	rows := map[string]storyRow{}
	for line := range strings.Lines(answer) {
		var r storyRow
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		_, place, _ := strings.Cut(r.Origin, "/")
		rows["/"+place] = r
	}
	if n := strings.Count(answer, "\n") + 1; n != want || len(rows) != want {
		t.Errorf("ClickHouse has %d rows of %d events, want %d", n, len(rows), want)
	}
	return rows
}
