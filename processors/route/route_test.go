package route

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// TestDeliver follows one event from `events` to its region.
func TestDeliver(t *testing.T) {
	s := newStage(t)
	s.control.set("acme", schemas.Policy{Regions: []string{"eu", "us"}})
	s.run(s.config(0))
	s.produce(record("acme", "m-1", "hi"))

	in := s.read(topics.Events(), 1)[0]
	for _, region := range []string{"eu", "us"} {
		r := s.read(topics.Fanout(region), 1)[0]
		home := schemas.HomePartition([]byte("acme"), partitions)
		if r.Partition != home || string(r.Key) != "acme" || r.Timestamp.UnixMilli() != in.Timestamp.UnixMilli() {
			t.Errorf("%s: partition %d key %q time %v, want %d acme %v", region, r.Partition, r.Key, r.Timestamp, home, in.Timestamp)
		}
		cursor, err := schemas.ParseCursor(header(r, schemas.HeaderCursor))
		if err != nil || cursor.Offset != in.Offset || header(r, schemas.HeaderSubject) != "chat.1" {
			t.Errorf("%s: cursor %v, %v, channel %q", region, cursor, err, header(r, schemas.HeaderSubject))
		}
		var ce struct {
			ID, Type, Subject, Tenantid, Traceparent string
			Data                                     struct{ Text string }
		}
		if err := json.Unmarshal(r.Value, &ce); err != nil {
			t.Fatal(err)
		}
		if ce.ID != "m-1" || ce.Type != "demo.Message" || ce.Subject != "chat.1" || ce.Tenantid != "acme" || ce.Data.Text != "hi" || len(ce.Traceparent) != 55 {
			t.Errorf("%s: %s", region, r.Value)
		}
	}
	tr := s.transitions(1)[0]
	if tr.Status != schemas.Processing || tr.Path != "fast" || tr.EventID != "m-1" || tr.Cursor != in.Offset ||
		tr.Origin.Offset != in.Offset || tr.Origin.AcceptedAt != in.Timestamp.UnixMilli() || tr.Node != "r" || len(tr.TraceID) != 32 || tr.LatencyUS < 0 {
		t.Errorf("transition %+v", tr)
	}
}

// TestBadInput: each malformed record ends in dead with its reason and its
// original bytes, and the good one behind them is delivered.
func TestBadInput(t *testing.T) {
	s := newStage(t)
	good := message("x")
	at := func(key, value []byte, headers ...kgo.RecordHeader) *kgo.Record {
		return &kgo.Record{Key: key, Value: value, Headers: headers, Partition: schemas.HomePartition([]byte("acme"), partitions)}
	}
	h := func(k, v string) kgo.RecordHeader { return kgo.RecordHeader{Key: k, Value: []byte(v)} }
	acme := []byte("acme")
	cases := []struct {
		reason schemas.Reason
		r      *kgo.Record
	}{
		{schemas.TenantMissing, at(nil, good)},
		{schemas.TenantIllegal, at([]byte("no/such"), good)},
		{schemas.TenantIllegal, at([]byte("\xff\xfe"), good)},
		{schemas.TenantMismatch, at(acme, good, h(schemas.HeaderTenant, "globex"))},
		{schemas.ValueEmpty, at(acme, nil)},
		{schemas.NotWireFormat, at(acme, append([]byte{1}, good[1:]...))},
		{schemas.NotWireFormat, at(acme, []byte(`{"text":"hi"}`))},
		{schemas.SchemaMismatch, at(acme, good[:len(good)-1])},
		{schemas.SchemaMismatch, at(acme, append(append([]byte{}, good...), 0))},
		{schemas.SchemaMismatch, at(acme, append(schemas.AppendWireHeader(nil, messageID), 2, 0xff))},
		{schemas.SchemaUnsupported, at(acme, append(schemas.AppendWireHeader(nil, referenceID), 2, 'x'))},
		{schemas.TooLarge, at(acme, append(append([]byte{}, good...), make([]byte, schemas.MaxEvent)...))},
		{schemas.HeadersTooLarge, at(acme, good, h("x", strings.Repeat("y", 10<<20)))},
		{schemas.AttributeInvalid, at(acme, good, h(schemas.HeaderID, "\xff"))},
		{schemas.AttributeInvalid, at(acme, good, h(schemas.HeaderTime, "+292277026596-12-04T15:30:07Z"))},
		{schemas.ContentTypeUnsupport, at(acme, good, h(schemas.HeaderContentType, "application/json"))},
		{schemas.NoRoute, at(acme, good, h(schemas.HeaderRegion, "mars"))},
	}
	var records []*kgo.Record
	for i, c := range cases {
		c.r.Headers = append(c.r.Headers, h("case", strconv.Itoa(i)), h("spillway-reason", "forged"))
		records = append(records, c.r)
	}
	absurd := record("acme", "absurd", "x")
	absurd.Timestamp = time.Unix(1<<40, 0)
	forged := record("acme", "forged", "x")
	forged.Headers = append(forged.Headers, h(schemas.HeaderReturn, "release;x"))
	s.produce(append(records, absurd, forged, record("acme", "last", "x"))...)
	cfg := s.config(0)
	cfg.Sessions = 1
	r, _ := s.run(cfg)

	got := map[string]bool{}
	for _, out := range s.read(topics.Fanout("eu"), 3) {
		var ce struct{ ID string }
		if err := json.Unmarshal(out.Value, &ce); err != nil {
			t.Fatal(err)
		}
		got[ce.ID] = true
	}
	if !got["absurd"] || !got["forged"] || !got["last"] {
		t.Errorf("delivered %v, want the three good events", got)
	}
	dead := s.read(topics.Dead(), len(cases))
	for _, out := range dead {
		i, err := strconv.Atoi(header(out, "case"))
		if err != nil && schemas.Reason(header(out, schemas.HeaderReason)) == schemas.HeadersTooLarge {
			i = 12 // its own headers are cut off
		} else if err != nil {
			t.Fatalf("dead letter without its headers: %v", out.Headers)
		}
		c := cases[i]
		if reason := header(out, schemas.HeaderReason); reason != string(c.reason) {
			t.Errorf("case %d: reason %q, want %q", i, reason, c.reason)
		}
		if string(out.Key) != string(c.r.Key) || string(out.Value) != string(c.r.Value) {
			t.Errorf("case %d (%s): key or value are not the original's", i, c.reason)
		}
		if header(out, schemas.HeaderError) == "" || header(out, schemas.HeaderStep) == "" {
			t.Errorf("case %d: no sentence or no step: %v", i, out.Headers)
		}
		if o, _, _, err := schemas.ParseOriginHeader([]byte(header(out, schemas.HeaderOrigin))); err != nil || o.AcceptedAt == 0 {
			t.Errorf("case %d: origin %+v, %v", i, o, err)
		}
	}
	if n := len(s.transitions(len(cases) + 3)); n != len(cases)+3 {
		t.Errorf("%d transitions", n)
	}
	s.settled()
	if err := r.Ready(); err != nil {
		t.Errorf("Ready: %v", err)
	}
}

// TestForward: a foreign partitioner's records are forwarded once, in order,
// with the origin of their first append.
func TestForward(t *testing.T) {
	s := newStage(t)
	home := schemas.HomePartition([]byte("acme"), partitions)
	const n = 50
	var records []*kgo.Record
	for i := range n {
		r := record("acme", fmt.Sprint("m-", i), "x")
		r.Partition = (home + 1) % partitions
		records = append(records, r)
	}
	s.run(s.config(0))
	s.produce(records...)
	for i, r := range s.read(topics.Fanout("eu"), n) {
		if want := fmt.Sprintf(`"id":"m-%d"`, i); r.Partition != home || !strings.Contains(string(r.Value), want) {
			t.Fatalf("record %d on partition %d: %s", i, r.Partition, r.Value)
		}
	}
	for _, tr := range s.transitions(n) {
		if tr.Origin.Partition != (home+1)%partitions || tr.Home != home || tr.Status != schemas.Processing {
			t.Fatalf("transition %+v", tr)
		}
	}
	s.settled()
	if got := s.count(topics.Fanout("eu")); got != n {
		t.Errorf("%d delivered, want %d", got, n)
	}
	if got := s.count(topics.Audit()); got != n {
		t.Errorf("%d transitions, want %d: a forward has none", got, n)
	}
}

// release gives an overflow record back as delay does.
func (s *stage) release(of *kgo.Record, kind schemas.ReturnKind) *kgo.Record {
	s.t.Helper()
	origin, generation, job, err := schemas.ParseOriginHeader([]byte(header(of, schemas.HeaderOrigin)))
	if err != nil {
		s.t.Fatal(err)
	}
	ret := schemas.Return{Kind: kind, Origin: origin, Generation: generation, Job: job,
		Of: schemas.Place{Topic: strings.TrimPrefix(of.Topic, topics.Prefix), Partition: of.Partition, Offset: of.Offset}}
	r := &kgo.Record{Key: of.Key, Value: of.Value, Partition: of.Partition}
	for _, h := range of.Headers {
		if !internal(h.Key) {
			r.Headers = append(r.Headers, h)
		}
	}
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: schemas.HeaderReturn, Value: ret.Sign(testSecret, of.Key, of.Value)})
	return r
}

// TestOverflow: a burst over the limit is late, in order, and a release that
// comes twice counts once.
func TestOverflow(t *testing.T) {
	s := newStage(t)
	s.control.set("acme", schemas.Policy{Fast: schemas.Rate{Rate: 0.1, Burst: 3, MaxBacklog: schemas.Duration(25 * time.Second)}})
	s.run(s.config(0))
	var records []*kgo.Record
	for i := range 6 {
		records = append(records, record("acme", fmt.Sprint("m-", i), "x"))
	}
	s.produce(records...)
	late := s.read(topics.Overflow(), 2)
	dead := s.read(topics.Dead(), 1)[0]
	if header(dead, schemas.HeaderReason) != string(schemas.OverQuota) || dead.Value != nil || header(dead, schemas.HeaderID) != "m-5" {
		t.Errorf("over_quota: %v, %d bytes", dead.Headers, len(dead.Value))
	}
	events := s.read(topics.Events(), 6)
	for i, r := range late {
		due, err := strconv.ParseInt(header(r, schemas.HeaderDue), 10, 64)
		in := events[3+i].Timestamp.UnixMilli()
		if first := events[0].Timestamp.UnixMilli(); err != nil || due < first+int64(10_000*(i+1))-100 || due > in+int64(10_000*(i+1)) {
			t.Errorf("due %d of an event of %d: %v", due, in, err)
		}
		if got := header(r, schemas.HeaderPriority); got != "fast" {
			t.Errorf("class %q goes along, want fast: the release must be counted in the class that it waited in", got)
		}
	}
	s.produce(s.release(late[0], schemas.Release), s.release(late[0], schemas.Release), record("acme", "m-6", "x"), s.release(late[1], schemas.Release))
	var ids []string
	for _, r := range s.read(topics.Fanout("eu"), 5) {
		var ce struct{ ID string }
		if err := json.Unmarshal(r.Value, &ce); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, ce.ID)
	}
	if got := strings.Join(ids, " "); got != "m-0 m-1 m-2 m-3 m-4" {
		t.Errorf("delivered %s", got)
	}
	s.settled()
	if n := s.count(topics.Fanout("eu")); n != 5 {
		t.Errorf("%d delivered, want 5", n)
	}
}

// TestSlow: a slow event goes to work and waits there.
func TestSlow(t *testing.T) {
	s := newStage(t)
	s.control.set("acme", schemas.Policy{Types: map[string]schemas.Type{"demo.Message": {Class: "slow", Endpoint: "llm"}}})
	s.run(s.config(0))
	s.produce(record("acme", "m-1", "x"))
	r := s.read(topics.Work(), 1)[0]
	if header(r, schemas.HeaderID) != "m-1" || header(r, schemas.HeaderAttempt) != "0" || string(r.Value) != string(message("x")) {
		t.Errorf("work: %v", r.Headers)
	}
	if tr := s.transitions(1)[0]; tr.Status != schemas.Pending || tr.Path != "slow" {
		t.Errorf("transition %+v", tr)
	}
}

// TestWait: an unknown schema waits, and when the registry has said no since,
// the event is dead; one that came to be known is delivered.
func TestWait(t *testing.T) {
	s := newStage(t)
	s.registry.down = true
	delete(s.registry.hidden, messageID)
	s.run(s.config(0))
	s.produce(record("acme", "m-1", "x"), record("nemo", "m-2", "x"))
	waits := s.read(topics.Retry(waitTier), 2)
	for _, r := range waits {
		if w := header(r, schemas.HeaderWait); w != "schema" || header(r, schemas.HeaderOrigin) == "" {
			t.Errorf("waits for %q: %v", w, r.Headers)
		}
	}
	s.registry.mu.Lock()
	s.registry.down = false
	s.registry.mu.Unlock()
	s.produce(s.release(waits[0], schemas.Wait), s.release(waits[1], schemas.Wait))
	dead := s.read(topics.Dead(), 2)
	for _, r := range dead {
		if header(r, schemas.HeaderReason) != string(schemas.SchemaUnknown) {
			t.Errorf("dead: %v", r.Headers)
		}
	}
	if tr := s.transitions(4); tr[0].Path != "wait" && tr[1].Path != "wait" {
		t.Errorf("transitions %+v", tr)
	}
}
