package processors

import (
	"bytes"

	"fmt"
	"testing"

	"github.com/spillway/spillway/schemas"
)

// outcomes are all the decisions there are: by step, verdict and reason.
var outcomes = func() map[string]bool {
	out := map[string]bool{}
	for _, o := range []string{
		"home forward ", "home stale stale_return", "home dead not_home",
		"valid wait await_schema", "valid dead schema_unknown", "valid dead schema_mismatch", "valid dead schema_unsupported",
		"valid dead not_wire_format", "valid dead transactional_producer", "valid dead too_large",
		"valid dead tenant_missing", "valid dead tenant_illegal", "valid dead tenant_mismatch", "valid dead value_empty",
		"valid dead headers_too_large", "valid dead content_type_unsupported", "valid dead attribute_invalid",
		"tenant wait await_tenant", "tenant dead tenant_unknown", "tenant dead tenant_suspended", "tenant dead attribute_invalid",
		"dedupe duplicate duplicate", "quota dead over_quota",
		"rate overflow rate_limited", "rate overflow behind", "rate dropped rate_limited", "rate dead over_quota",
		"route deliver ", "route work ", "route dead no_route",
	} {
		out[o] = true
	}
	return out
}()

func outcome(d Decision) string { return fmt.Sprintf("%s %s %s", d.Step, d.Verdict, d.Reason) }

// FuzzWalk reads arbitrary bytes as records: key, value, headers, return. The
// line must not panic, must decide from the table, must decide the same again
// after a rollback, and must know at once what it let through.
func FuzzWalk(f *testing.F) {
	f.Add([]byte("acme"), []byte("\x00\x00\x00\x00\x01{}"), []byte("ce_id\x01a\x00ce_subject\x01chat.1"), uint8(0), int64(1000))
	f.Add([]byte("acme"), []byte("{}"), []byte("ce_priority\x01slow"), uint8(1), int64(-5))
	f.Add([]byte(""), []byte(""), []byte("\xff\x01\xfe"), uint8(2), int64(1<<62))
	f.Add([]byte("acme"), []byte("\x00\x00\x00\x00\x09{"), []byte("ce_id\x01"), uint8(3), int64(0))
	kinds := []schemas.ReturnKind{"", schemas.Forward, schemas.Release, schemas.Wait, schemas.Replay, schemas.Redrive}
	f.Fuzz(func(t *testing.T, key, value, headers []byte, kind uint8, shift int64) {
		p := newPlayer(t)
		p.control.set("acme", schemas.Policy{Quota: 3, Types: map[string]schemas.Type{"demo.Message": {Channel: "c.{a}"}}})
		st := NewState(8)
		walk := func(offset int64) Decision {
			origin := schemas.Origin{Topic: schemas.TopicID{1}, Offset: offset, AcceptedAt: storyStart.UnixMilli() + shift*offset}
			p.ev.Reset(origin, "events", key, value)
			for _, h := range bytes.Split(headers, []byte{0}) {
				k, v, _ := bytes.Cut(h, []byte{1})
				p.ev.SetHeader(string(k), v)
			}
			if k := kinds[int(kind)%len(kinds)]; k != "" {
				p.ev.Returned(schemas.Return{Kind: k, Origin: origin, Job: "j", Of: schemas.Place{Topic: "overflow", Offset: offset}})
			}
			p.ev.Transactional = kind >= 128
			d := p.steps.Walk(&p.ev, st)
			if !outcomes[outcome(d)] {
				t.Fatalf("decision %q is not in the table", outcome(d))
			}
			return d
		}
		for offset := range int64(6) {
			st.Commit()
			first := walk(offset)
			due := p.ev.Due
			st.Rollback()
			if again := walk(offset); again != first || p.ev.Due != due {
				t.Fatalf("after a rollback %+v due %d, first %+v due %d", again, p.ev.Due, first, due)
			}
			if first.Verdict.letThrough() && p.ev.HasKey() && p.ev.Return.Kind == "" {
				if d := walk(offset + 100); d.Verdict != Duplicate && d.Verdict != Dead {
					t.Fatalf("let through twice: %q, then %q", outcome(first), outcome(d))
				}
			}
		}
	})
}

// plain is a schema that takes any body, for measuring the line alone.
type plain struct{}

func (plain) Name() string { return "demo.Message" }
func (plain) AppendJSON(dst, body []byte, _ int) ([]byte, schemas.Reason, string) {
	return append(dst, body...), "", ""
}
func (plain) AppendField(dst, _ []byte, _ string) ([]byte, bool) { return dst, false }

var chatOne = []byte("chat.1")

// traffic makes records of 64 tenants with ids that never repeat.
type traffic struct {
	*player
	line   Line
	st     *State
	ev     Event
	n      uint64
	keys   [64][]byte
	value  []byte
	id     []byte
	clock  int64
	perKey int64 // ms the clock advances every eight events
}

func newTraffic(t testing.TB) *traffic {
	p := newPlayer(t)
	p.registry[1] = fakeAnswer{schema: plain{}}
	tr := &traffic{player: p, line: p.steps, st: NewState(0), value: append(schemas.AppendWireHeader(nil, 1), `{"text":"hello"}`...),
		id: make([]byte, 24), clock: storyStart.UnixMilli()}
	for i := range tr.keys {
		tr.keys[i] = fmt.Appendf(nil, "tenant-%02d", i)
		p.control.set(string(tr.keys[i]), schemas.Policy{Fast: schemas.Rate{Rate: 1e9}})
	}
	return tr
}

func (tr *traffic) next() Decision {
	if tr.n%512 == 0 {
		tr.st.Commit()
	}
	return tr.walk()
}

// walk makes a record and takes it down the line.
func (tr *traffic) walk() Decision {
	tr.n++
	copy(tr.id, "0123456789abcdef")
	for i := range tr.id[16:] {
		tr.id[16+i] = 'a' + byte(tr.n>>(4*i))&15
	}
	tr.ev.Reset(schemas.Origin{Offset: int64(tr.n), AcceptedAt: tr.clock}, "events", tr.keys[tr.n%64], tr.value)
	tr.ev.SetHeader(schemas.HeaderID, tr.id)
	tr.ev.SetHeader(schemas.HeaderSubject, chatOne)
	if tr.n%8 == 0 {
		tr.clock += tr.perKey
	}
	return tr.line.Walk(&tr.ev, tr.st)
}

// fill lets n events through.
func (tr *traffic) fill(t testing.TB, n int) {
	for range n {
		if d := tr.next(); d.Verdict != Deliver {
			t.Fatalf("event %d: %s", tr.n, outcome(d))
		}
	}
}

// TestWalkAllocates nothing, once its buffers have grown.
func TestWalkAllocates(t *testing.T) {
	tr := newTraffic(t)
	tr.fill(t, 100_000)
	// What is left is the ring's growth: a chunk every 4096 keys and an index
	// segment now and then.
	if n := testing.AllocsPerRun(20_000, func() { tr.next() }); n > 0 {
		t.Errorf("%v allocations an event, want 0", n)
	}
}

// BenchmarkWalk: the whole line with a full window of 1 M keys, each event new,
// so that each is remembered and one is forgotten.
func BenchmarkWalk(b *testing.B) {
	tr := newTraffic(b)
	tr.perKey = 8 * Window.Milliseconds() / 1_000_000
	tr.fill(b, 1_100_000)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		tr.next()
	}
	b.StopTimer()
	s := tr.st.Stats()
	b.ReportMetric(float64(s.Bytes)/float64(s.Keys), "bytes/key")
	b.ReportMetric(float64(s.Keys), "keys")
}

// BenchmarkDuplicate: every event was let through before.
func BenchmarkDuplicate(b *testing.B) {
	tr := newTraffic(b)
	tr.fill(b, 1_000_000)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i%900_000 == 0 {
			tr.n = 0
		}
		if d := tr.next(); d.Verdict != Duplicate {
			b.Fatal(outcome(d))
		}
	}
}
