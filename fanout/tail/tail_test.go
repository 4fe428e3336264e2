package tail

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/spillway/spillway/schemas"
)

// counter is a Waker that counts.
type counter struct{ n atomic.Int64 }

func (c *counter) Wake() { c.n.Add(1) }

const epoch = 7

func at(offset int64) schemas.Cursor { return schemas.Cursor{Epoch: epoch, Offset: offset} }

func rec(tenant, channel string, cursor int64, size int) Record {
	j, _ := json.Marshal(map[string]any{"c": cursor, "pad": string(bytes.Repeat([]byte("x"), size))})
	return Record{Tenant: tenant, Epoch: epoch, Event: Event{Cursor: cursor, Channel: channel, JSON: j}}
}

// drain reads a feed from a place until nothing follows, and checks that each
// frame follows and holds what it says.
func drain(t *testing.T, f *Feed, from schemas.Cursor) (cursors []int64, end schemas.Cursor, status Status) {
	t.Helper()
	for {
		frame, status := f.Next(from)
		if status != Ready {
			if status == Idle && f.Pending(from) {
				t.Fatalf("nothing follows %v, and it is pending all the same", from)
			}
			return cursors, from, status
		}
		if frame.P.Offset > from.Offset || frame.C.Offset <= from.Offset || frame.Tenant != f.Tenant {
			t.Fatalf("frame (%v, %v] does not follow %v", frame.P, frame.C, from)
		}
		var head, sent schemas.ServerFrame
		payload := frame.Bytes[bytes.Index(frame.Bytes, []byte(`{"t":`)):]
		if err := json.Unmarshal(payload, &sent); err != nil {
			t.Fatalf("%v in %s", err, payload)
		}
		if want := appendHeader(nil, len(payload)); !bytes.Equal(frame.Bytes[:len(want)], want) {
			t.Fatalf("header % x, want % x", frame.Bytes[:len(want)], want)
		}
		if head = sent; head.P != frame.P.String() || head.C != frame.C.String() || len(sent.E) != len(frame.Events) {
			t.Fatalf("frame says %+v", head)
		}
		if len(payload) > FrameBytes+200 && len(frame.Events) > 1 {
			t.Fatalf("a frame of %d bytes", len(payload))
		}
		for _, e := range frame.Events {
			cursors = append(cursors, e.Cursor)
		}
		from = frame.C
	}
}

func TestFeedsGetWhatMatches(t *testing.T) {
	set := NewSet(1 << 20)
	tl := set.Open(0, epoch, -1)
	w := &counter{}
	feeds := map[string]*Feed{}
	for _, p := range []string{"*", "a.*", "a.b.*", "a.b", "a.b.c"} {
		feeds[p] = tl.Subscribe("acme", p, w)
	}
	channels := []string{"a.b", "a.b.c", "a.x", "b", "a", "a.b.", "a.b.c.d", ".a"}
	for i, c := range channels {
		if skipped := tl.Append([]Record{rec("acme", c, int64(2*i), 10), rec("globex", c, int64(2*i+1), 10)}); skipped != 0 {
			t.Errorf("%d skipped", skipped)
		}
	}
	if skipped := tl.Append([]Record{rec("acme", "b", 3, 10)}); skipped != 1 {
		t.Error("a record that was seen before is not skipped")
	}
	for p, f := range feeds {
		var want []int64
		for i, c := range channels {
			if schemas.Match(p, c) {
				want = append(want, int64(2*i))
			}
		}
		got, _, status := drain(t, f, at(-1))
		if status != Idle || !slices.Equal(got, want) {
			t.Errorf("%s: got %v (status %d), want %v", p, got, status, want)
		}
	}
	if w.n.Load() == 0 {
		t.Error("nobody was woken")
	}
	for _, f := range feeds {
		f.Leave(w)
	}
	if n := len(tl.tenants["acme"].feeds()); n != 0 {
		t.Errorf("%d feeds are left", n)
	}
}

// TestAResumeBehindTheLogRests: a subscriber comes back to a place before the
// log's newest, and nothing of its channel lies between.
func TestAResumeBehindTheLogRests(t *testing.T) {
	tl := NewSet(1<<20).Open(0, epoch, -1)
	tl.Append([]Record{rec("acme", "a", 5, 10), rec("globex", "a", 6, 10), rec("acme", "b", 7, 10)})
	f := tl.Subscribe("acme", "a", &counter{})
	if got, _, status := drain(t, f, at(5)); status != Idle || got != nil {
		t.Errorf("got %v (status %d)", got, status)
	}
	if to, ok := f.Advance(at(5)); !ok || to != at(7) {
		t.Errorf("it is not told that the log is at 7: %v %v", to, ok)
	}
	tl.Append([]Record{rec("acme", "a", 9, 10)})
	if got, _, _ := drain(t, f, at(5)); !slices.Equal(got, []int64{9}) {
		t.Errorf("got %v, want 9", got)
	}
}

func TestFramesAreShared(t *testing.T) {
	set := NewSet(1 << 20)
	tl := set.Open(0, epoch, -1)
	a, b := &counter{}, &counter{}
	f := tl.Subscribe("acme", "a", a)
	if other := tl.Subscribe("acme", "a", b); other != f {
		t.Fatal("two feeds for one channel")
	}
	tl.Append([]Record{rec("acme", "a", 5, 10), rec("acme", "b", 6, 10)})
	one, _ := f.Next(at(-1))
	two, _ := f.Next(at(-1))
	three, _ := f.Next(at(4)) // another place, the same next event
	if one != two || two != three {
		t.Error("subscribers at the same event get different frames")
	}
	tl.Append([]Record{rec("acme", "a", 9, 10)})
	four, _ := f.Next(at(5))
	five, _ := f.Next(at(8)) // was told that nothing is between 5 and 8
	if four != five || four.P != at(5) || four.C != at(9) {
		t.Errorf("frames (%v, %v] and (%v, %v]", four.P, four.C, five.P, five.C)
	}
	set.Sweep()
	if again, _ := f.Next(at(5)); again == four {
		t.Error("a frame outlives the sweep")
	}
}

func TestAFloodPushesOutItself(t *testing.T) {
	set := NewSet(64 << 10)
	tl := set.Open(0, epoch, -1)
	other := set.Open(1, epoch, -1)
	w := &counter{}
	quiet := tl.Subscribe("acme", "*", w)
	far := other.Subscribe("globex", "*", w)
	flood := tl.Subscribe("noisy", "*", w)
	tl.Append([]Record{rec("acme", "a", 1, 100)})
	other.Append([]Record{rec("globex", "a", 1, 100)})
	for i := range 2000 {
		tl.Append([]Record{rec("noisy", "a", int64(2+i), 100)})
	}
	if b := set.Bytes(); b > 64<<10 {
		t.Errorf("%d bytes are held", b)
	}
	for _, f := range []*Feed{quiet, far} {
		if got, _, status := drain(t, f, at(-1)); status != Idle || !slices.Equal(got, []int64{1}) {
			t.Errorf("%s: got %v, status %d", f.Tenant, got, status)
		}
	}
	if _, status := flood.Next(at(5)); status != Lagged {
		t.Errorf("the flood's own reader: status %d", status)
	}
	got, _, status := drain(t, flood, flood.Middle())
	if status != Idle || len(got) == 0 || got[len(got)-1] != 2001 {
		t.Errorf("from the middle: %d events, status %d", len(got), status)
	}
	// A reader of a quiet channel of the flooding tenant has missed nothing.
	still := tl.Subscribe("noisy", "still", w)
	from := tl.Head()
	for i := range 2000 {
		tl.Append([]Record{rec("noisy", "a", int64(3000+i), 100)})
	}
	if _, status := still.Next(from); status != Idle {
		t.Errorf("nothing came on its channel, status %d", status)
	}
	if to, ok := still.Advance(from); !ok || to != at(4999) {
		t.Errorf("advance to %v, %v", to, ok)
	}
	set.Close(tl)
	set.Close(other)
	if set.Bytes() != 0 {
		t.Errorf("%d bytes are held by nothing", set.Bytes())
	}
}

func TestAnotherEpochStartsAnew(t *testing.T) {
	tl := NewSet(1<<20).Open(0, epoch, -1)
	w := &counter{}
	f := tl.Subscribe("acme", "*", w)
	tl.Append([]Record{rec("acme", "a", 1, 10)})
	next := rec("acme", "a", 1, 10)
	next.Epoch = epoch + 1
	tl.Append([]Record{next})
	if !f.Pending(at(1)) {
		t.Error("the change goes unseen")
	}
	if _, status := f.Next(at(1)); status != NewEpoch {
		t.Errorf("status %d", status)
	}
	if got, _, _ := drain(t, f, f.Start()); !slices.Equal(got, []int64{1}) {
		t.Errorf("got %v", got)
	}
	tl.Reset(epoch+2, 100)
	if tl.Events() != 0 || tl.Head() != (schemas.Cursor{Epoch: epoch + 2, Offset: 100}) {
		t.Errorf("after Reset: %d events, head %v", tl.Events(), tl.Head())
	}
}

// TestAgainstAModel appends, evicts, subscribes and reads at random and
// compares with a plain list.
func TestAgainstAModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	set := NewSet(40 << 10)
	tl := set.Open(0, epoch, -1)
	type reader struct {
		f  *Feed
		at schemas.Cursor
		w  *counter
	}
	var log []Record
	var readers []*reader
	next := int64(0)
	for range 20000 {
		switch rng.IntN(8) {
		case 0, 1, 2, 3:
			var batch []Record
			for range 1 + rng.IntN(4) {
				next += 1 + rng.Int64N(3)
				batch = append(batch, rec([]string{"acme", "globex"}[rng.IntN(2)], fmt.Sprintf("c.%d", rng.IntN(3)), next, rng.IntN(300)))
			}
			tl.Append(batch)
			log = append(log, batch...)
		case 4:
			if len(readers) < 12 {
				r := &reader{w: &counter{}}
				r.f = tl.Subscribe([]string{"acme", "globex"}[rng.IntN(2)], []string{"*", "c.*", "c.0", "c.1"}[rng.IntN(4)], r.w)
				r.at = at(max(-1, next-rng.Int64N(400)))
				readers = append(readers, r)
			}
		case 5:
			if len(readers) > 0 && rng.IntN(4) == 0 {
				i := rng.IntN(len(readers))
				readers[i].f.Leave(readers[i].w)
				readers = slices.Delete(readers, i, i+1)
			}
		default:
			if len(readers) == 0 {
				continue
			}
			r := readers[rng.IntN(len(readers))]
			got, end, status := drain(t, r.f, r.at)
			var want []int64
			for _, l := range log {
				if l.Tenant == r.f.Tenant && l.Cursor > r.at.Offset && l.Cursor <= end.Offset && schemas.Match(r.f.Pattern, l.Channel) {
					want = append(want, l.Cursor)
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%s %s from %v: got %v, want %v", r.f.Tenant, r.f.Pattern, r.at, got, want)
			}
			if r.at = end; status == Lagged {
				r.at = r.f.Middle()
			} else if last := lastMatch(log, r.f); last > r.at.Offset {
				t.Fatalf("%s %s: idle at %v, but %d matches", r.f.Tenant, r.f.Pattern, r.at, last)
			}
		}
	}
}

func lastMatch(log []Record, f *Feed) int64 {
	for _, l := range slices.Backward(log) {
		if l.Tenant == f.Tenant && schemas.Match(f.Pattern, l.Channel) {
			return l.Cursor
		}
	}
	return -1
}

// BenchmarkAppend is the cost of an event that two feeds match, among a
// thousand feeds.
func BenchmarkAppend(b *testing.B) {
	tl := NewSet(64<<20).Open(0, epoch, -1)
	w := &counter{}
	for i := range 1000 {
		tl.Subscribe("acme", fmt.Sprintf("jobs.%d", i), w)
	}
	tl.Subscribe("acme", "*", w)
	r := rec("acme", "jobs.1", 0, 400)
	batch := make([]Record, 16)
	b.ReportAllocs()
	for i := range b.N {
		r.Cursor = int64(i)
		batch[i%16] = r
		if i%16 == 15 {
			tl.Append(batch)
		}
	}
}

// BenchmarkNext is the cost of taking a frame that someone else has built.
func BenchmarkNext(b *testing.B) {
	tl := NewSet(64<<20).Open(0, epoch, -1)
	f := tl.Subscribe("acme", "*", &counter{})
	tl.Subscribe("acme", "*", &counter{})
	for i := range 1000 {
		tl.Append([]Record{rec("acme", "a", int64(i), 400)})
	}
	b.ReportAllocs()
	for range b.N {
		if _, status := f.Next(at(998)); status != Ready {
			b.Fatal(status)
		}
	}
}
