package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/processors/audit/explain"
	"github.com/spillway/spillway/schemas"
)

// scene writes events and what is said about them, as route and fanout do.
type scene struct {
	*world
	home  int32
	epoch int64
}

func newScene(t *testing.T) *scene {
	w := newWorld(t)
	home := schemas.HomePartition([]byte("acme"), testPartitions)
	return &scene{world: w, home: home, epoch: int64(schemas.Epoch(w.topic, home))}
}

// say writes a transition of the event at o.
func (s *scene) say(o schemas.Origin, tenant, id string, status schemas.Status, path string, reason schemas.Reason, cursor int64) {
	s.put(s.audit(tenant, &schemas.Transition{
		Tenant: tenant, Origin: o, EventID: id, Status: status, Path: path, Reason: reason, At: o.AcceptedAt + 1, LatencyUS: 1500, Node: "r1", Home: s.home, Cursor: cursor,
	}))
}

// bury writes rec to dead.
func (s *scene) bury(rec *kgo.Record, o schemas.Origin, reason schemas.Reason) {
	s.put(&kgo.Record{
		Topic: s.topics.Dead(), Partition: s.home, Key: rec.Key, Value: rec.Value,
		Headers: append(append([]kgo.RecordHeader{}, rec.Headers...),
			kgo.RecordHeader{Key: schemas.HeaderOrigin, Value: schemas.OriginHeader(o, 0, "")}, kgo.RecordHeader{Key: schemas.HeaderReason, Value: []byte(reason)},
			kgo.RecordHeader{Key: schemas.HeaderError, Value: []byte("field text: cut short")}, kgo.RecordHeader{Key: schemas.HeaderStep, Value: []byte("valid")}),
	})
}

// TestSourcesAgree tells the same stories from ClickHouse and from Kafka alone:
// one for each reason that can end an event, with and without tenant, and ids
// that try to be something else.
func TestSourcesAgree(t *testing.T) {
	s := newScene(t)
	type asked struct{ id, tenant, status string }
	var all []asked
	n := 0
	for reason := range schemas.Reasons() {
		rec := s.event("acme", n)
		n++
		id := "why-" + string(reason)
		rec.Headers[0].Value = []byte(id)
		tenant, own := "acme", true
		switch reason {
		case schemas.TenantMissing:
			rec.Key, rec.Headers, tenant, own = nil, nil, "", false
		case schemas.TenantIllegal:
			rec.Key, tenant = []byte("no such/tenant"), ""
		case schemas.AttributeInvalid:
			rec.Headers[0].Value, own = []byte("\xff\xfe"), false
		case schemas.HeadersTooLarge:
			rec.Headers[0].Value, own = []byte(strings.Repeat("x", 1000)), false
		}
		o := s.origin(s.put(rec)[0])
		if !own {
			id = o.String()
		}
		s.say(o, tenant, id, schemas.DeadStatus, "", reason, -1)
		s.bury(rec, o, reason)
		all = append(all, asked{id, tenant, "dead"}, asked{o.String(), "", "dead"})
	}
	for _, id := range []string{"it's", `back\slash`, "tab\tline\nend", "{id:String}", "ünï", "%s ? $1", " "} {
		rec := s.event("acme", n)
		n++
		rec.Headers[0].Value = []byte(id)
		o := s.origin(s.put(rec)[0])
		s.say(o, "acme", id, schemas.Processing, "fast", "", int64(n))
		s.put(s.audit("acme", &schemas.Receipt{Tenant: "acme", Node: "f1", Region: "eu", Home: s.home, Epoch: s.epoch, At: o.AcceptedAt + 700,
			Deliveries: []schemas.Delivery{{Cursor: int64(n), Appended: o.AcceptedAt, Sessions: 2, LatencyUS: 4000}}}))
		all = append(all, asked{id, "acme", "delivered"})
	}
	fromPayload := &kgo.Record{Topic: s.topics.Events(), Key: []byte("acme"), Value: wire(7, "x")}
	o := s.origin(s.put(fromPayload)[0])
	s.say(o, "acme", "m-1", schemas.Pending, "slow", "", -1) // the policy took the id from the payload
	all = append(all, asked{"m-1", "acme", "pending"})

	_, stop := s.run(s.config())
	s.await("SELECT count() FROM v_events", uint64(n+1))
	s.await("SELECT count() FROM transitions", uint64(n+1))
	s.await("SELECT count() FROM dead_letters", uint64(len(schemas.Reasons())))
	s.await("SELECT count() FROM receipts", 7)
	s.await("SELECT count() FROM v_status_now", uint64(n+2)) // each event once; the id that only the payload has twice, for no policy is known here
	kafka := explain.Kafka(explain.KafkaConfig{Kafka: s.seeds, Topics: s.topics, SchemaIDs: testSchemaIDs, SecretKey: secretKeys{}.SecretKey})
	for _, q := range all {
		a, err := explain.Explain(t.Context(), explain.ClickHouse(s.conn), q.id, q.tenant)
		if err != nil {
			t.Errorf("%q: %v", q.id, err)
			continue
		}
		if len(a.Events) != 1 || a.Events[0].Status != q.status || len(a.Events[0].Steps) < 2 || a.Events[0].Tenant != q.tenant && q.tenant != "" {
			t.Errorf("%q:\n%s", q.id, a)
		}
		if reason := a.Events[0].Reason; q.status == "dead" && (reason == "" || !strings.Contains(a.String(), reason.Text()) || !strings.Contains(a.String(), "field text")) {
			t.Errorf("%q lacks its reason:\n%s", q.id, a)
		}
		if b, err := explain.Explain(t.Context(), kafka, q.id, q.tenant); err != nil || a.String() != b.String() {
			t.Errorf("%q: ClickHouse says\n%s\nKafka says (%v)\n%s", q.id, a, err, b)
		}
	}
	for _, src := range []explain.Source{explain.ClickHouse(s.conn), kafka} {
		if _, err := explain.Explain(t.Context(), src, "why-"+string(schemas.TooLarge), "globex"); !errors.Is(err, explain.ErrNotFound) {
			t.Errorf("%s, another tenant: %v", src.Name(), err)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// tokens are the claims by token.
type tokens map[string]schemas.Claims

func (ts tokens) Verify(token string) (schemas.Claims, error) {
	c, ok := ts[token]
	if !ok {
		return c, errors.New("unknown token")
	}
	return c, nil
}

// plain reads payloads as {"text":…}.
type plain struct{}

func (plain) Schema(id int32) (processors.Schema, int64) {
	if id != 7 {
		return nil, -1
	}
	return plain{}, 0
}
func (plain) Name() string { return "demo.Message" }
func (plain) AppendField(dst, _ []byte, _ string) ([]byte, bool) {
	return dst, false
}

func (plain) AppendJSON(dst, body []byte, _ int) ([]byte, schemas.Reason, string) {
	return append(schemas.AppendJSONString(append(dst, `{"text":`...), string(body)), '}'), "", ""
}

func TestAPI(t *testing.T) {
	s := newScene(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.config()
	cfg.Listener, cfg.Schemas = l, plain{}
	cfg.Tokens = tokens{
		"op": {Tenant: "*", Role: schemas.RoleOperator}, "acme": {Tenant: "acme", Role: schemas.RoleProducer}, "globex": {Tenant: "globex", Role: schemas.RoleProducer},
		"client": {Tenant: "acme", Role: schemas.RoleClient, Channels: []string{"chat.*"}}, "other": {Tenant: "acme", Role: schemas.RoleClient, Channels: []string{"jobs.*"}},
	}
	_, stop := s.run(cfg)
	const n = 1203 // more than two pages
	var records []*kgo.Record
	for i := range n {
		records = append(records, s.event("acme", i))
	}
	s.put(records...)
	var system []*kgo.Record
	for i, rec := range records {
		o := s.origin(rec)
		system = append(system, s.audit("acme", &schemas.Transition{
			Tenant: "acme", Origin: o, EventID: "ev-" + string(rec.Headers[0].Value[3:]), Status: schemas.Processing, Path: "fast", At: o.AcceptedAt, Home: s.home, Cursor: int64(2 * i),
		}))
	}
	s.put(system...)
	odd := &kgo.Record{Topic: s.topics.Events(), Key: []byte("acme"), Value: []byte{0xff, 0}, Headers: []kgo.RecordHeader{{Key: schemas.HeaderTime, Value: []byte(`"}`)}}}
	s.put(odd)
	s.await("SELECT count() FROM v_events", n+1)
	s.await("SELECT count() FROM transitions", n)

	get := func(token, path string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
	cursor := func(offset int64) string {
		return schemas.Cursor{Epoch: uint64(s.epoch), Offset: offset}.String()
	}
	gap := "&from=" + cursor(99) + "&to=" + cursor(2100)
	for _, c := range []struct {
		token, path string
		status      int
		has         string
	}{
		{"op", "/v1/events/ev-7?tenant=acme", 200, `"status": "processing"`}, {"op", "/v1/events/ev-7", 200, `"event_id": "ev-7"`}, {"acme", "/v1/events/ev-7", 200, `"origin"`},
		{"client", "/v1/events/ev-7", 200, `"origin"`}, {"other", "/v1/events/ev-7", 404, "not_found"}, {"globex", "/v1/events/ev-7", 404, "not_found"},
		{"globex", "/v1/events/ev-7?tenant=acme", 403, `"claim":"tenant"`}, {"", "/v1/events/ev-7", 401, "auth_required"}, {"x", "/v1/events/ev-7", 401, "auth_failed"},
		{"op", "/v1/events", 400, "tenant"}, {"acme", "/v1/events?from=yesterday", 400, "malformed"}, {"acme", "/v1/events?from=" + cursor(1) + "&to=5", 400, "cursor_illegal"},
		{"acme", "/v1/events?from=0&channel=a*b", 400, "channel_illegal"}, {"other", "/v1/events?tenant=acme" + gap, 403, `"claim":"channels"`},
		{"globex", "/v1/events?tenant=acme" + gap, 403, "forbidden"}, {"op", "/v2", 404, "not_found"},
	} {
		if status, body := get(c.token, c.path); status != c.status || !strings.Contains(body, c.has) || !json.Valid([]byte(body)) {
			t.Errorf("%s %s: %d %s", c.token, c.path, status, body)
		}
	}
	for path, want := range map[string]int{
		"/v1/events?tenant=acme" + gap: 1001, "/v1/events?tenant=acme&channel=chat.*" + gap: 1001, "/v1/events?tenant=acme&channel=chat.2" + gap: 0,
		"/v1/events?tenant=acme&from=0": n + 1, "/v1/events?tenant=acme&channel=chat.1&from=" + url.QueryEscape("2020-01-01T00:00:00Z"): n,
		"/v1/events?tenant=globex&from=0": 0, "/v1/events?tenant=acme&from=0&to=1": 0,
	} {
		status, body := get("op", path)
		seen, last := map[string]bool{}, ""
		for lines := bufio.NewScanner(strings.NewReader(body)); lines.Scan(); {
			var ev struct {
				ID, Source, TenantID, Cursor string
				Data                         map[string]string
				Base64                       []byte `json:"data_base64"`
			}
			if err := json.Unmarshal(lines.Bytes(), &ev); err != nil {
				t.Fatalf("%s: %v", lines.Text(), err)
			}
			if ev.TenantID != "acme" || (ev.Data["text"] == "") == (len(ev.Base64) == 0) || seen[ev.ID] || strings.Contains(path, "to=c") && ev.Cursor <= last {
				t.Errorf("%s", lines.Text())
			}
			seen[ev.ID], last = true, ev.Cursor
		}
		if status != 200 || len(seen) != want {
			t.Errorf("%s: %d, %d events, want %d", path, status, len(seen), want)
		}
	}
	if status, _ := get("client", "/v1/events?channel=chat.1"+gap); status != 200 {
		t.Errorf("a client's own channel: %d", status)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestKafkaBounds: a story from Kafka ends where the topics end, though nothing
// is produced and a transaction is open, and stops with its context.
func TestKafkaBounds(t *testing.T) {
	s := newScene(t)
	o := s.origin(s.put(s.event("acme", 1))[0])
	tx, err := kgo.NewClient(append(s.seeds, kgo.TransactionalID("t"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	for _, commit := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		if err := tx.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		id := map[kgo.TransactionEndTry]string{kgo.TryCommit: "ev-1", kgo.TryAbort: "gone"}[commit]
		rec := s.audit("acme", &schemas.Transition{Tenant: "acme", Origin: o, EventID: id, Status: schemas.Pending, Path: "slow", At: o.AcceptedAt, Cursor: -1})
		if err := tx.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := tx.EndTransaction(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := tx.ProduceSync(t.Context(), s.audit("acme", &schemas.Transition{Tenant: "acme", Origin: o, EventID: "open", Status: schemas.Pending, Cursor: -1})).FirstErr(); err != nil {
		t.Fatal(err)
	}
	var read, total int64
	src := explain.Kafka(explain.KafkaConfig{Kafka: s.seeds, Topics: s.topics, SchemaIDs: testSchemaIDs, Progress: func(r, n int64) { read, total = r, n }})
	story, err := explain.Explain(t.Context(), src, "ev-1", "")
	if err != nil || len(story.Events) != 1 || len(story.Events[0].Steps) != 2 || read == 0 || read != total {
		t.Errorf("%v: read %d of %d\n%s", err, read, total, story)
	}
	for _, id := range []string{"gone", "open"} {
		if _, err := explain.Explain(t.Context(), src, id, ""); !errors.Is(err, explain.ErrNotFound) {
			t.Errorf("%s: %v", id, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := explain.Explain(ended, src, "ev-1", ""); err == nil {
		t.Error("it went on after its context ended")
	}
}
