package schemas

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"
)

var origin = Origin{Topic: TopicID{1, 2, 3, 15: 9}, Partition: 3, Offset: 4711, AcceptedAt: 1700000000123}

// The hand-written encodings are those of the .avsc files, both ways.
func TestRecordsMatchTheirSchemas(t *testing.T) {
	tr := Transition{Tenant: "acme", Origin: origin, EventID: "e-1", Status: Processing, Path: "fast", Reason: "", Attempt: 1,
		At: 1700000000456, LatencyUS: 333, Node: "r-1", TraceID: strings.Repeat("ab", 16), Home: 3, Cursor: 4711}
	rc := Receipt{Tenant: "acme", Node: "f-1", Region: "eu", Home: 3, Epoch: 1 << 47, At: 5, Deliveries: []Delivery{{1, 2, 3, 4}, {5, 6, 7, 8}}}
	sr := SessionRange{Tenant: "acme", Session: "s", Subject: "ann", Node: "f-1", Region: "eu", Channel: "jobs.*", Home: 1, Epoch: 2, From: -1, To: 9, Acked: -1, CloseCode: 4200, OpenedAt: 7, At: 8}
	nd := Node{Name: "f-1", Region: "eu", Address: "ws://x", State: "live", Connections: 1, MaxConnections: 2}
	for name, c := range map[string]struct {
		body   []byte
		decode func([]byte) (any, error)
		want   any
	}{
		TransitionName:   {tr.AppendAvro(nil), func(b []byte) (any, error) { return DecodeTransition(b) }, tr},
		ReceiptName:      {rc.AppendAvro(nil), func(b []byte) (any, error) { return DecodeReceipt(b) }, rc},
		SessionRangeName: {sr.AppendAvro(nil), func(b []byte) (any, error) { return DecodeSessionRange(b) }, sr},
		NodeName:         {nd.AppendAvro(nil), func(b []byte) (any, error) { return DecodeNode(b) }, nd},
	} {
		schema, err := avro.Parse(SystemSchemas()[name])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var generic any
		rest, err := schema.Decode(c.body, &generic)
		if err != nil || len(rest) != 0 {
			t.Fatalf("%s: the library reads %v, %d bytes left: %v", name, generic, len(rest), err)
		}
		again, err := schema.Encode(generic)
		if err != nil || string(again) != string(c.body) {
			t.Errorf("%s: the library writes\n%x, we write\n%x (%v)", name, again, c.body, err)
		}
		if got, err := c.decode(c.body); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: decode = %+v, %v, want %+v", name, got, err, c.want)
		}
		for i := range c.body {
			if _, err := c.decode(c.body[:i]); err == nil {
				t.Errorf("%s: %d of %d bytes decode without an error", name, i, len(c.body))
			}
		}
	}
}

func TestSampleSchemasParse(t *testing.T) {
	for name, text := range SampleSchemas() {
		s, err := avro.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if root := s.Root(); root.Namespace+"."+root.Name != name && root.Name != name {
			t.Errorf("%s: the schema is called %s.%s", name, root.Namespace, root.Name)
		}
	}
}

func TestHomePartitionIsKafkas(t *testing.T) {
	const n = 12
	p := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	for _, key := range []string{"acme", "globex", "noisy", "a", "ab", "abc", "abcd", "ünïcode", strings.Repeat("x", 64)} {
		want := p.Partition(&kgo.Record{Key: []byte(key)}, n)
		if got := HomePartition([]byte(key), n); int(got) != want {
			t.Errorf("%q: %d, franz-go says %d", key, got, want)
		}
	}
}

func TestCursorsCompareAsTexts(t *testing.T) {
	e := Epoch(origin.Topic, 3)
	last := ""
	for _, off := range []int64{-1, 0, 1, 9, 10, 255, 256, 4711, 1 << 40} {
		c := Cursor{Epoch: e, Offset: off}
		s := c.String()
		if got, err := ParseCursor(s); err != nil || got != c {
			t.Errorf("ParseCursor(%q) = %+v, %v", s, got, err)
		}
		if s <= last {
			t.Errorf("%q does not sort after %q", s, last)
		}
		last = s
	}
	for _, bad := range []string{"", "c", "live", strings.Repeat("0", 25), "c" + strings.Repeat("g", 24), "c" + strings.Repeat("A", 24)} {
		if c, err := ParseCursor(bad); err == nil {
			t.Errorf("ParseCursor(%q) = %+v, want an error", bad, c)
		}
	}
	if e == Epoch(origin.Topic, 4) {
		t.Error("two partitions have one epoch")
	}
}

func TestReturnsAreSigned(t *testing.T) {
	secret := Secret{ID: "s1", Key: []byte("0123456789abcdef")}
	find := func(id string) ([]byte, bool) { return secret.Key, id == secret.ID }
	r := Return{Kind: Release, Origin: origin, Of: Place{"overflow", 2, 88}, Generation: 1, Job: "j"}
	key, value := []byte("acme"), []byte("body")
	h := r.Sign(secret, key, value)
	if got, err := ParseReturn(h, key, value, find); err != nil || got != r {
		t.Fatalf("ParseReturn = %+v, %v, want %+v", got, err, r)
	}
	for i := range h {
		forged := append([]byte(nil), h...)
		forged[i] ^= 1
		if _, err := ParseReturn(forged, key, value, find); err == nil {
			t.Errorf("byte %d changed and the return still counts", i)
		}
	}
	if _, err := ParseReturn(h, []byte("globex"), value, find); err == nil {
		t.Error("another key and the return still counts")
	}
	if _, err := ParseReturn(h, key, []byte("other"), find); err == nil {
		t.Error("another value and the return still counts")
	}
}

func TestOriginHeader(t *testing.T) {
	o, gen, job, err := ParseOriginHeader(OriginHeader(origin, 2, "job;1"))
	if err != nil || o != origin || gen != 2 || job != "job;1" {
		t.Errorf("= %+v %d %q %v", o, gen, job, err)
	}
}

func TestCheck(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		name    string
		key     string
		headers [][2]string
		value   string
		want    Reason
	}{
		{"plain", "acme", nil, "v", ""},
		{"no key", "", nil, "v", TenantMissing},
		{"illegal tenant", "a b", nil, "v", TenantIllegal},
		{"long tenant", strings.Repeat("a", 65), nil, "v", TenantIllegal},
		{"other tenant in header", "acme", [][2]string{{HeaderTenant, "globex"}}, "v", TenantMismatch},
		{"same tenant in header", "acme", [][2]string{{HeaderTenant, "acme"}}, "v", ""},
		{"empty", "acme", nil, "", ValueEmpty},
		{"long id", "acme", [][2]string{{HeaderID, long}}, "v", AttributeInvalid},
		{"empty id", "acme", [][2]string{{HeaderID, ""}}, "v", AttributeInvalid},
		{"not UTF-8", "acme", [][2]string{{HeaderSubject, "\xff"}}, "v", AttributeInvalid},
		{"star in channel", "acme", [][2]string{{HeaderSubject, "a.*"}}, "v", AttributeInvalid},
		{"no time", "acme", [][2]string{{HeaderTime, "yesterday"}}, "v", AttributeInvalid},
		{"class", "acme", [][2]string{{HeaderPriority, "urgent"}}, "v", AttributeInvalid},
		{"JSON", "acme", [][2]string{{HeaderContentType, "application/json"}}, "v", ContentTypeUnsupport},
		{"huge header", "acme", [][2]string{{"x", strings.Repeat("x", MaxHeaders)}}, "v", HeadersTooLarge},
		{"huge value", "acme", nil, strings.Repeat("x", MaxEvent+1), TooLarge},
		{"bad extension", "acme", [][2]string{{"ce_Shouting", "x"}}, "v", AttributeInvalid},
		{"foreign header", "acme", [][2]string{{"x-mine", "\xff"}}, "v", ""},
	} {
		var ev Event
		ev.Reset(origin, "events", []byte(c.key), []byte(c.value))
		for _, h := range c.headers {
			ev.SetHeader(h[0], []byte(h[1]))
		}
		if got := ev.Check(); got != c.want {
			t.Errorf("%s: %q (fault %q), want %q", c.name, got, ev.Fault(), c.want)
		}
	}
}

func TestCloudEventIsJSON(t *testing.T) {
	var ev Event
	ev.Reset(origin, "events", []byte("acme"), []byte("v"))
	for _, h := range [][2]string{{HeaderSource, "/q\"\\\n\x01\xff☃"}, {HeaderSubject, "chat.1"}, {"ce_causation", "x"}, {"ce_causation", "y"}, {HeaderTraceparent, "00-1"}} {
		ev.SetHeader(h[0], []byte(h[1]))
	}
	ev.Type = "demo.Message"
	var got map[string]any
	text := AppendCloudEvent(nil, &ev, []byte(`{"text":"hi"}`))
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	want := map[string]any{"specversion": "1.0", "id": origin.String(), "source": "/q\"\\\n\x01\ufffd☃", "type": "demo.Message", "subject": "chat.1",
		"time": "2023-11-14T22:13:20.123Z", "tenantid": "acme", "traceparent": "00-1", "causation": "y",
		"datacontenttype": "application/json", "data": map[string]any{"text": "hi"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, channel string
		want             bool
	}{
		{"jobs.1", "jobs.1", true}, {"jobs.1", "jobs.12", false}, {"jobs.*", "jobs.1", true}, {"jobs.*", "jobs.1.a", true},
		{"jobs.*", "jobs", false}, {"jobs.*", "jobs.", false}, {"jobs.*", "jobsx", false}, {"*", "anything", true},
	} {
		if got := Match(c.pattern, c.channel); got != c.want {
			t.Errorf("Match(%q, %q) = %v", c.pattern, c.channel, got)
		}
	}
	for _, c := range []struct {
		outer, inner string
		want         bool
	}{
		{"jobs.*", "jobs.a.*", true}, {"jobs.a.*", "jobs.*", false}, {"*", "jobs.*", true}, {"jobs.*", "*", false}, {"jobs.1", "jobs.*", false}, {"jobs.*", "jobs.*", true},
	} {
		if got := Covers(c.outer, c.inner); got != c.want {
			t.Errorf("Covers(%q, %q) = %v", c.outer, c.inner, got)
		}
	}
}

func TestPolicyUnder(t *testing.T) {
	base := DefaultPolicy([]string{"eu"})
	base.Types = map[string]Type{"a": {Class: "slow"}, "b": {Class: "fast"}}
	p := Policy{Fast: Rate{Rate: 2000}, Types: map[string]Type{"a": {Class: "fast"}}}.Under(base)
	if p.Fast.Burst != 2000 || p.Slow.Burst != 10 || p.State != "active" || p.Fast.MaxBacklog != Duration(time.Minute) {
		t.Errorf("%+v", p)
	}
	if p.Types["a"].Class != "fast" || p.Types["b"].Class != "fast" || base.Types["a"].Class != "slow" {
		t.Errorf("types %+v, base %+v", p.Types, base.Types)
	}
	text, err := json.Marshal(p)
	var back Policy
	if err != nil || json.Unmarshal(text, &back) != nil || !reflect.DeepEqual(back, p) {
		t.Errorf("%s does not read back: %v", text, err)
	}
}

func TestEveryReasonHasAText(t *testing.T) {
	for _, r := range []Reason{TenantMissing, OverQuota, Duplicate, Behind, StaleReturn, Malformed, Internal} {
		if r.Text() == "" {
			t.Errorf("%s has no text", r)
		}
	}
	for code := range closeReasons {
		if code.Reason().Text() == "" {
			t.Errorf("close code %d has no text", code)
		}
	}
}

func FuzzRecords(f *testing.F) {
	f.Add((&Receipt{Tenant: "a", Deliveries: []Delivery{{1, 2, 3, 4}}}).AppendAvro(nil))
	f.Add((&Transition{Tenant: "a", Status: Pending}).AppendAvro(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := DecodeReceipt(b); err == nil {
			if again, err := DecodeReceipt(r.AppendAvro(nil)); err != nil || !reflect.DeepEqual(again, r) {
				t.Fatalf("%+v reads back as %+v, %v", r, again, err)
			}
		}
		if r, err := DecodeTransition(b); err == nil {
			if again, err := DecodeTransition(r.AppendAvro(nil)); err != nil || again != r {
				t.Fatalf("%+v reads back as %+v, %v", r, again, err)
			}
		}
	})
}

func FuzzTexts(f *testing.F) {
	f.Add("c0123456789ab0123456789ab", []byte("x"))
	f.Add("AQID/3/4", OriginHeader(origin, 0, ""))
	f.Fuzz(func(t *testing.T, s string, b []byte) {
		if c, err := ParseCursor(s); err == nil && c.String() != s {
			t.Fatalf("%q reads as %+v, which writes %q", s, c, c.String())
		}
		if o, g, j, err := ParseOriginHeader(b); err == nil {
			if o2, g2, j2, err := ParseOriginHeader(OriginHeader(o, g, j)); err != nil || o2 != o || g2 != g || j2 != j {
				t.Fatalf("%q does not read back", b)
			}
		}
		if text := AppendJSONString(nil, s); !json.Valid(text) {
			t.Fatalf("%q as JSON: %s", s, text)
		}
		find := func(string) ([]byte, bool) { return []byte("k"), true }
		if _, err := ParseReturn(b, []byte(s), nil, find); err == nil {
			t.Fatalf("%q is taken for a signed return", b)
		}
	})
}
