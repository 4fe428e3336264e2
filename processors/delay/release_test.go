package delay

import (
	"errors"
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
		out, to := newReturner().give(r, now.UnixMilli())
		if to != toRetry || out.Topic != topics.Retry(want) || header(out, schemas.HeaderDue) != string(decimal(due)) || len(out.Headers) != 2 {
			t.Errorf("%s left: %s %s %v", left, to, out.Topic, out.Headers)
		}
	}
}

func TestADeadLetterHasOneReason(t *testing.T) {
	out, to := newReturner().give(&kgo.Record{Topic: topics.Overflow(), Key: []byte("acme"), Headers: []kgo.RecordHeader{
		{Key: schemas.HeaderReason, Value: []byte("old")}, {Key: "mine", Value: []byte("x")}, {Key: schemas.HeaderDue, Value: []byte("soon")},
	}}, 1)
	reasons := 0
	for _, h := range out.Headers {
		if h.Key == schemas.HeaderReason {
			reasons++
		}
	}
	if to != toDead || reasons != 1 || header(out, schemas.HeaderReason) != string(schemas.Internal) || header(out, "mine") != "x" || !strings.Contains(header(out, schemas.HeaderError), "spillway-due") {
		t.Errorf("%s %v", to, out.Headers)
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

func TestAStallIsReportedThenFatal(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	d, err := New(Config{Topics: topics, Partitions: partitions, Secrets: secrets{}, Node: "d", Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	w := &waiting{}
	w.Add(now.UnixMilli(), 4)
	d.owned[partition{topics.Overflow(), 0}] = w
	if got := d.takeDue(); len(got) != 1 || got[0].offset != 4 {
		t.Fatalf("took %+v", got)
	}
	if now = now.Add(notReady); d.Ready() != nil {
		t.Error("not ready too early")
	}
	if now = now.Add(time.Second); d.Ready() == nil || d.stuck() != nil {
		t.Errorf("after a minute: ready %v, stuck %v", d.Ready(), d.stuck())
	}
	if now = now.Add(giveUp); d.stuck() == nil {
		t.Error("Run would wait for ever")
	}
	d.answered(partition{topics.Overflow(), 0}, 4, toEvents, nil)
	if d.stuck() != nil || w.Len() != 0 {
		t.Error("progress is not seen")
	}
	refused := errors.New("too large")
	d.answered(partition{topics.Overflow(), 0}, 5, toEvents, refused)
	if !errors.Is(d.stuck(), refused) || !errors.Is(d.Ready(), refused) {
		t.Errorf("a return that cannot be produced: %v", d.stuck())
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
		out, to := g.give(r, now)
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
