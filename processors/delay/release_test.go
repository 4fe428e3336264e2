package delay

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

func newReturner() returner {
	tiers := map[string]time.Duration{}
	for _, tier := range schemas.RetryTiers {
		tiers[topics.Retry(tier)] = tier
	}
	return returner{topics, partitions, secrets{}, tiers}
}

func TestHopsGoToTheFittingTier(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	for left, want := range map[time.Duration]time.Duration{
		time.Millisecond: time.Second, time.Second: time.Second, 1999 * time.Millisecond: time.Second, 2 * time.Second: 2 * time.Second,
		15 * time.Second: 8 * time.Second, time.Hour: 16 * time.Second,
	} {
		due := now.Add(left).UnixMilli()
		r := &kgo.Record{Topic: topics.Retry(time.Second), Key: []byte("acme"), Headers: []kgo.RecordHeader{
			{Key: schemas.HeaderOrigin, Value: schemas.OriginHeader(origin, 0, "")}, {Key: schemas.HeaderDue, Value: decimal(due)},
		}}
		g := newReturner().give(r, now.UnixMilli())
		out, to := g.record, g.to
		if to != toRetry || out.Topic != topics.Retry(want) || header(out, schemas.HeaderDue) != string(decimal(due)) || len(out.Headers) != 2 {
			t.Errorf("%s left: %s %s %v", left, to, out.Topic, out.Headers)
		}
	}
}

func TestADeadLetterHasOneReason(t *testing.T) {
	g := newReturner().give(&kgo.Record{Topic: topics.Overflow(), Key: []byte("acme"), Headers: []kgo.RecordHeader{
		{Key: schemas.HeaderStep, Value: []byte("old")}, {Key: schemas.HeaderReason, Value: []byte("old")}, {Key: "mine", Value: []byte("x")},
		{Key: schemas.HeaderDue, Value: []byte("soon")}, {Key: schemas.HeaderReason, Value: []byte("older")},
	}}, 1)
	keys := []string{}
	for _, h := range g.record.Headers {
		keys = append(keys, h.Key)
	}
	want := []string{"mine", schemas.HeaderDue, schemas.HeaderReason, schemas.HeaderError, schemas.HeaderStep}
	if g.to != toDead || g.reason != schemas.Internal || !slices.Equal(keys, want) || header(g.record, schemas.HeaderReason) != string(schemas.Internal) ||
		header(g.record, schemas.HeaderStep) != "delay" || !strings.Contains(header(g.record, schemas.HeaderError), "spillway-due") {
		t.Errorf("%s %v", g.to, g.record.Headers)
	}
}

// A memory full of what is due later leaves room for what is due now.
func TestPayloadsReadAgainHaveRoomOfTheirOwn(t *testing.T) {
	p := newPayloads(1000)
	tp := partition{"a", 0}
	if !p.keep(tp, &kgo.Record{Offset: 1, Value: make([]byte, 700)}) || p.keep(tp, &kgo.Record{Offset: 2, Value: make([]byte, 700)}) {
		t.Fatal("the bound of payloads does not hold")
	}
	if !p.keepAgain(tp, &kgo.Record{Offset: 2, Value: make([]byte, 700)}) || p.take(tp, 2) == nil {
		t.Error("what was read again is not kept")
	}
	big := &kgo.Record{Offset: 3, Value: make([]byte, 3*readAheadMax)}
	if p.keepAgain(tp, big) {
		t.Error("what was read again has no bound")
	}
	if p.forget(tp); p.size != 0 || len(p.records) != 0 {
		t.Errorf("%d bytes left", p.size)
	}
}

func FuzzGive(f *testing.F) {
	f.Add([]byte("1700000000000"), schemas.OriginHeader(origin, 1, "job"), int64(5), uint8(0))
	f.Add([]byte(""), []byte("x;y"), int64(0), uint8(3))
	g := newReturner()
	names := []string{topics.Overflow()}
	for _, tier := range schemas.RetryTiers {
		names = append(names, topics.Retry(tier))
	}
	f.Fuzz(func(t *testing.T, due, from []byte, now int64, topic uint8) {
		r := &kgo.Record{Topic: names[int(topic)%len(names)], Key: []byte("acme"), Value: []byte("v"), Timestamp: time.UnixMilli(0), Headers: []kgo.RecordHeader{
			{Key: schemas.HeaderOrigin, Value: from}, {Key: schemas.HeaderDue, Value: due},
		}}
		n, err := readNote(r, g.tiers[r.Topic])
		got := g.give(r, now)
		out, to := got.record, got.to
		switch {
		case (err != nil) != (to == toDead):
			t.Fatalf("%v, and goes to %s", err, to)
		case err == nil && n.due > now && r.Topic != topics.Overflow() && to != toRetry:
			t.Fatalf("due at %d, given back to %s at %d", n.due, to, now)
		case err == nil && r.Topic == topics.Overflow() && to != toEvents:
			t.Fatalf("overflow goes to %s", to)
		case string(out.Value) != "v" || string(out.Key) != "acme":
			t.Fatal("key or value changed")
		}
		if to == toEvents {
			if ret, err := schemas.ParseReturn([]byte(header(out, schemas.HeaderReturn)), out.Key, out.Value, func(string) ([]byte, bool) { return secret.Key, true }); err != nil || ret.Origin != n.origin {
				t.Fatalf("%+v, %v", ret, err)
			}
		}
	})
}

func decimal(n int64) []byte { return strconv.AppendInt(nil, n, 10) }
