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

func (m *model) span() int64 {
	for _, r := range m.records {
		if !r.done {
			return m.next - r.offset
		}
	}
	return 0
}

func (m *model) at(offset int64) *modelRecord {
	for i := range m.records {
		if m.records[i].offset == offset {
			return &m.records[i]
		}
	}
	return nil
}

func TestLookaheadAgainstModel(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		var l Lookahead
		var m model
		var taken []int64
		offset, now := int64(0), int64(0)
		for range 600 {
			switch rnd.IntN(5) {
			case 0, 1:
				offset += 1 + rnd.Int64N(3) // control records leave holes
				due := now + rnd.Int64N(50)
				if rnd.IntN(50) == 0 {
					due += 5000 // pins the front
				}
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
				r := m.at(taken[i])
				if rnd.IntN(4) == 0 {
					if !l.PutBack(r.due, r.offset) {
						t.Fatalf("seed %d: PutBack(%d) does not know it", seed, r.offset)
					}
					r.taken = false
				} else {
					if !l.Finish(r.offset) {
						t.Fatalf("seed %d: Finish(%d) does not know it", seed, r.offset)
					}
					r.done = true
				}
				taken = slices.Delete(taken, i, i+1)
			case 4:
				offset++ // a marker
				l.Skip(offset)
				m.next = offset + 1
			}
			checkAgainst(t, &l, &m, seed)
		}
	}
}

func checkAgainst(t *testing.T, l *Lookahead, m *model, seed uint64) {
	t.Helper()
	got, ok := l.Committable()
	if want, wantOK := m.committable(); got != want || ok != wantOK {
		t.Fatalf("seed %d: Committable = %d %v, want %d %v", seed, got, ok, want, wantOK)
	}
	if l.Span() != m.span() || l.Next() != m.next {
		t.Fatalf("seed %d: Span %d Next %d, want %d %d", seed, l.Span(), l.Next(), m.span(), m.next)
	}
	unfinished, waiting := 0, 0
	for _, r := range m.records {
		if !r.done {
			unfinished++
		}
		if !r.taken {
			waiting++
		}
	}
	if l.Len() != unfinished || l.Waiting() != waiting {
		t.Fatalf("seed %d: %d unfinished, %d wait, want %d, %d", seed, l.Len(), l.Waiting(), unfinished, waiting)
	}
	for _, r := range m.records[max(0, len(m.records)-20):] {
		if due, ok := l.Due(r.offset); ok == r.taken || ok && due != r.due {
			t.Fatalf("seed %d: Due(%d) = %d %v", seed, r.offset, due, ok)
		}
	}
}

func TestLookaheadRefusesWhatItDoesNotHold(t *testing.T) {
	var l Lookahead
	l.Add(5, 10)
	if l.Finish(9) || l.Finish(11) {
		t.Error("an offset that was never added is known")
	}
	if _, ok := l.Take(4); ok {
		t.Error("taken before it was due")
	}
	if due, ok := l.NextDue(); due != 5 || !ok {
		t.Errorf("NextDue = %d %v", due, ok)
	}
	if l.Finish(10) || l.PutBack(5, 10) {
		t.Error("what was not taken is finished or put back")
	}
	if offset, ok := l.Take(5); offset != 10 || !ok || !l.Finish(10) || l.Finish(10) || l.PutBack(5, 10) {
		t.Error("what was taken is not finished once")
	}
	if at, ok := l.Committable(); at != 11 || !ok || l.Waiting() != 0 {
		t.Errorf("Committable = %d %v", at, ok)
	}
}

// One record that is due in a day does not keep those behind it in memory.
func TestLookaheadForgetsFinishedOnesBehindAFarOne(t *testing.T) {
	var l Lookahead
	l.Add(1<<40, 0)
	for i := int64(1); i <= 100_000; i++ {
		l.Add(i, i)
		if offset, ok := l.Take(i); !ok || !l.Finish(offset) {
			t.Fatal("not given back")
		}
	}
	if l.Len() != 1 || l.Span() != 100_001 || len(l.records) > 2*compactAt || len(l.heap) != 1 {
		t.Errorf("Len %d, Span %d, %d records and %d heap entries kept", l.Len(), l.Span(), len(l.records), len(l.heap))
	}
	if at, _ := l.Committable(); at != 0 {
		t.Errorf("Committable = %d", at)
	}
}

// A partition full of records that wait, due in another order than they came,
// costs at most 40 bytes for each.
func TestLookaheadOfAMillion(t *testing.T) {
	const n = 1 << 20
	var l Lookahead
	for i := range int64(n) {
		l.Add(i*7919%n, i)
	}
	if per := (cap(l.records)*16 + cap(l.heap)*4) / n; per > 40 || l.Waiting() != n {
		t.Errorf("%d wait, %d bytes for each", l.Waiting(), per)
	}
	for due := range int64(n) {
		offset, ok := l.Take(due)
		if !ok || offset*7919%n != due || !l.Finish(offset) {
			t.Fatalf("due at %d: offset %d, %v", due, offset, ok)
		}
	}
	if at, _ := l.Committable(); at != n || l.Len() != 0 || cap(l.records) > n/8 {
		t.Errorf("Committable = %d, Len %d, %d records kept", at, l.Len(), cap(l.records))
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
	b.ReportMetric(float64(cap(l.records)*16+cap(l.heap)*4)/float64(l.Len()), "B/record")
}
