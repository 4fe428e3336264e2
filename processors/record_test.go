package processors

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/spillway/spillway/schemas"
)

// packed is a log of records, as route.state holds them.
type packed struct {
	heads []Record
	bytes [][]byte
}

func (l *packed) add(r Record, b []byte) {
	l.heads = append(l.heads, r)
	l.bytes = append(l.bytes, slices.Clone(b))
}

// restore applies what a state at the end of the log needs of it.
func (l *packed) restore(t testing.TB, maxKeys int) *State {
	t.Helper()
	start := -1
	for i := range l.heads {
		if h := &l.heads[i]; h.Whole && (start < 0 || !l.heads[start].Needed(l.heads[len(l.heads)-1].Clock)) {
			start = i
		}
	}
	re := NewRestore(maxKeys)
	for _, b := range l.bytes[max(start, 0):] {
		if _, err := re.Apply(b); err != nil {
			t.Fatal(err)
		}
	}
	return re.State()
}

// differs says how two states differ in what they remember; "" if they do not.
func differs(a, b *State) string {
	if a.clock != b.clock || a.appended != b.appended || a.whole != b.whole {
		return fmt.Sprintf("clock %d and %d, append time %d and %d, whole %d and %d", a.clock, b.clock, a.appended, b.appended, a.whole, b.whole)
	}
	if a.ring.len() != b.ring.len() {
		return fmt.Sprintf("%d and %d keys", a.ring.len(), b.ring.len())
	}
	for i := range uint64(a.ring.len()) {
		k := a.ring.at(a.ring.live + i)
		if *k != *b.ring.at(b.ring.live + i) {
			return fmt.Sprintf("key %d", i)
		}
		if !b.ring.has(k) {
			return fmt.Sprintf("key %d is not in the index", i)
		}
	}
	if a, b := a.seconds(), b.seconds(); !slices.Equal(a, b) {
		return fmt.Sprintf("seconds %v and %v", a, b)
	}
	for _, pair := range [2][2]*State{{a, b}, {b, a}} {
		for name, t := range pair[0].tenants {
			if t.idle(a.clock) {
				continue
			}
			other := pair[1].tenants[name]
			if other == nil || other.at != t.at || other.used != t.used || (t.used > 0 && other.day != t.day) || other.classes != t.classes {
				return fmt.Sprintf("tenant %s: %+v and %+v", name, t, other)
			}
		}
	}
	return ""
}

// seconds is when the ring's keys came, as (second, place among the keys).
func (st *State) seconds() (out []uint64) {
	r := &st.ring
	for _, g := range r.groups[min(r.current, len(r.groups)):] {
		out = append(out, uint64(g.second), max(r.wide(g.first), r.live)-r.live)
	}
	return out
}

// TestPackAndApply: at every batch of random traffic over three days, the state
// made of the packed records is the state that decided.
func TestPackAndApply(t *testing.T) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 9))
		tr := newTraffic(t)
		maxKeys := []int{0, 700}[seed%2]
		tr.st = NewState(maxKeys)
		tr.limit(rng)
		var log packed
		offset := int64(100)
		for batch := range 1500 {
			from := offset
			for range rng.IntN(12) {
				if rng.IntN(50) == 0 {
					tr.clock += rng.Int64N(8 * hour)
				}
				tr.clock += rng.Int64N(2*hour/10) - hour/20
				tr.n = rng.Uint64N(5000)
				tr.walk()
				offset++
			}
			limit := 1 << 20
			if batch%7 == 0 {
				limit = 200
			}
			var pending packed
			tr.st.Pack(Mark{From: from, To: offset, Policies: 7, Topic: schemas.TopicID{1, 2}}, limit, pending.add)
			if rng.IntN(5) == 0 {
				tr.st.Rollback()
				offset = from
				continue
			}
			tr.st.Commit()
			log.heads, log.bytes = append(log.heads, pending.heads...), append(log.bytes, pending.bytes...)
			if batch%10 == 0 && len(log.heads) > 0 {
				if why := differs(tr.st, log.restore(t, maxKeys)); why != "" {
					t.Fatalf("seed %d, batch %d: decided and restored differ: %s", seed, batch, why)
				}
			}
		}
		whole, more := 0, 0
		next := int64(100)
		for _, r := range log.heads {
			if r.From != next && !r.Rest {
				t.Fatalf("a record goes on from %d, want %d", r.From, next)
			}
			next = r.To
			if r.Whole {
				whole++
			}
			if r.More {
				more++
			}
			if r.Policies != 7 || (r.Whole && r.Topic != schemas.TopicID{1, 2}) {
				t.Fatalf("a mark came back as %+v", r)
			}
		}
		if whole < 50 || more < 10 {
			t.Errorf("seed %d: %d whole records and %d that go on, want more of both", seed, whole, more)
		}
	}
}

// limit gives the tenants policies of all kinds.
func (tr *traffic) limit(rng *rand.Rand) {
	for i := range tr.keys {
		p := schemas.Policy{Quota: rng.Int64N(3) * 40, Fast: schemas.Rate{Rate: []float64{0.001, 0.3, 1e9}[i%3], Burst: 1 + rng.Int64N(3)}}
		p.Fast.MaxBacklog = schemas.Duration(hour * 1e6 * int64(1+i%5))
		tr.control.set(string(tr.keys[i]), p)
	}
}

// TestPackSize: at most 18 bytes of route.state a key in full batches, the 64
// tenants of each included.
func TestPackSize(t *testing.T) {
	tr := newTraffic(t)
	tr.perKey = 8 * 86
	bytes := 0
	for range 50 {
		for range 2000 {
			tr.walk()
		}
		tr.st.Pack(Mark{From: 1, To: 2001}, 1<<20, func(_ Record, b []byte) { bytes += len(b) })
		tr.st.Commit()
	}
	perKey := float64(bytes) / float64(tr.st.ring.len())
	t.Logf("%.2f bytes of route.state a key", perKey)
	if perKey > 18 {
		t.Errorf("%.2f bytes of route.state a key, want 18 at most", perKey)
	}
}

// FuzzApply: no bytes make a restore panic.
func FuzzApply(f *testing.F) {
	tr := newTraffic(f)
	for range 100 {
		tr.walk()
	}
	tr.st.Pack(Mark{From: 5, To: 105}, 1000, func(_ Record, b []byte) { f.Add(slices.Clone(b)) })
	f.Add([]byte{recordVersion, flagWhole})
	f.Add([]byte{2, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		re := NewRestore(100)
		head, err := ReadRecord(b)
		again, applied := re.Apply(b)
		if err != nil && (applied == nil || !errors.Is(err, ErrRecord)) {
			t.Fatalf("ReadRecord says %v, Apply %v", err, applied)
		}
		if applied == nil && head != again {
			t.Fatalf("heads %+v and %+v", head, again)
		}
		re.State()
	})
}

// BenchmarkApply restores a partition with 1 M keys; ns/op is one key.
func BenchmarkApply(b *testing.B) {
	tr := newTraffic(b)
	tr.perKey = 8 * Window.Milliseconds() / 1_000_000
	var log packed
	for range 2000 {
		for range 500 {
			tr.walk()
		}
		tr.st.Pack(Mark{}, 1<<20, log.add)
		tr.st.Commit()
	}
	b.ResetTimer()
	b.ReportAllocs()
	keys := 0
	for keys < b.N {
		st := log.restore(b, 0)
		keys += st.ring.len()
	}
	b.ReportMetric(float64(keys)/b.Elapsed().Seconds(), "keys/s")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(keys), "ns/key")
}
