package delay

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// model does what a Lookahead does, slowly.
type model struct {
	records []modelRecord
	next    int64
}

type modelRecord struct {
	due, offset int64
	taken, done bool
}

func (m *model) take(now int64) (int64, bool) {
	best := -1
	for i, r := range m.records {
		if !r.taken && r.due <= now && (best < 0 || r.due < m.records[best].due) {
			best = i
		}
	}
	if best < 0 {
		return 0, false
	}
	m.records[best].taken = true
	return m.records[best].offset, true
}

func (m *model) committable() (int64, bool) {
	for _, r := range m.records {
		if !r.done {
			return r.offset, true
		}
	}
	return m.next, m.next > 0
}

func TestLookaheadAgainstModel(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		var l Lookahead
		var m model
		l.first, l.base = 1<<33+seed*31, 1<<33-1<<31+200 // soon to be rebased
		var taken []int64
		offset, now := int64(0), int64(0)
		for range 600 {
			switch rnd.IntN(4) {
			case 0, 1:
				offset += 1 + rnd.Int64N(3) // control records leave holes
				due := now + rnd.Int64N(50)
				l.Add(due, offset)
				m.records, m.next = append(m.records, modelRecord{due: due, offset: offset}), offset+1
			case 2:
				now += rnd.Int64N(10)
				for {
					got, ok := l.Take(now)
					want, wantOK := m.take(now)
					if got != want || ok != wantOK {
						t.Fatalf("seed %d: Take(%d) = %d %v, want %d %v", seed, now, got, ok, want, wantOK)
					}
					if !ok {
						break
					}
					taken = append(taken, got)
				}
			case 3:
				if len(taken) == 0 {
					continue
				}
				i := rnd.IntN(len(taken))
				if !l.Finish(taken[i]) {
					t.Fatalf("seed %d: Finish(%d) does not know it", seed, taken[i])
				}
				for j := range m.records {
					m.records[j].done = m.records[j].done || m.records[j].offset == taken[i]
				}
				taken = slices.Delete(taken, i, i+1)
			}
			got, ok := l.Committable()
			if want, wantOK := m.committable(); got != want || ok != wantOK {
				t.Fatalf("seed %d: Committable = %d %v, want %d %v", seed, got, ok, want, wantOK)
			}
			for _, r := range m.records[max(0, len(m.records)-20):] {
				if l.Holds(r.offset) == r.done {
					t.Fatalf("seed %d: Holds(%d) = %v", seed, r.offset, !r.done)
				}
			}
		}
	}
}

func TestLookaheadRefusesWhatItDoesNotHold(t *testing.T) {
	var l Lookahead
	l.Add(5, 10)
	if l.Finish(9) || l.Finish(11) || l.Holds(9) {
		t.Error("an offset that was never added is known")
	}
	if _, ok := l.Take(4); ok {
		t.Error("taken before it was due")
	}
	if due, ok := l.NextDue(); due != 5 || !ok {
		t.Errorf("NextDue = %d %v", due, ok)
	}
}

func BenchmarkLookahead(b *testing.B) {
	var l Lookahead
	for i := range 1_000_000 {
		l.Add(int64(i), int64(i))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		offset, _ := l.Take(int64(i))
		l.Finish(offset)
		l.Add(int64(i)+1_000_000, int64(i)+1_000_000)
	}
	b.ReportMetric(float64(cap(l.records)*16+cap(l.heap)*4+cap(l.done)*8)/float64(l.Len()), "B/record")
}
