package processors

import (
	"math"
	"math/big"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/spillway/spillway/schemas"
)

// model is the bucket by the book, in rational numbers.
type model struct{ tat, period, burst *big.Rat }

func newModel(rate float64, burst int64) *model {
	r, ok := new(big.Rat).SetString(strconv.FormatFloat(rate, 'e', 8, 64))
	if !ok {
		panic("no number")
	}
	period := new(big.Rat).Quo(big.NewRat(1000, 1), r)
	return &model{new(big.Rat), period, new(big.Rat).Mul(period, big.NewRat(burst, 1))}
}

func (m *model) next(t int64) (after *big.Rat, wait int64) {
	now := big.NewRat(t, 1)
	after = new(big.Rat).Set(m.tat)
	if after.Cmp(now) < 0 {
		after.Set(now)
	}
	after.Add(after, m.period)
	d := new(big.Rat).Sub(new(big.Rat).Sub(after, m.burst), now)
	if d.Sign() <= 0 {
		return after, 0
	}
	q, rem := new(big.Int).QuoRem(d.Num(), d.Denom(), new(big.Int))
	if rem.Sign() > 0 {
		q.Add(q, big.NewInt(1))
	}
	return after, q.Int64()
}

// TestBucketIsExact walks random traffic through bucket and model: they must
// never differ, after any number of events.
func TestBucketIsExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	rates := []float64{0.1, 1.0 / 3, 1, 3, 7, 33.3333333, 99.99, 100, 1000.0 / 7, 2000, 12345.678, 1e6, 999999937, 1e9, 1e-6, 0.000123456}
	for _, rate := range rates {
		for _, burst := range []int64{1, 2, 100, 1_000_000_000} {
			l := newLimit(schemas.Rate{Rate: rate, Burst: burst, MaxBacklog: schemas.Duration(time.Hour)}, defaultPolicy.Fast)
			m := newModel(rate, burst)
			var tat instant
			now := int64(1_790_000_000_000)
			for i := range 2000 {
				if rng.IntN(4) == 0 {
					now += rng.Int64N(1 + int64(3000/math.Max(rate, 0.001)))
				}
				after, wait := l.next(tat, now)
				wantAfter, wantWait := m.next(now)
				if wait != wantWait {
					t.Fatalf("rate %v burst %d event %d: wait %d ms, want %d", rate, burst, i, wait, wantWait)
				}
				got := new(big.Rat).Add(big.NewRat(after.ms, 1), big.NewRat(int64(after.frac), int64(after.den)))
				if got.Cmp(wantAfter) != 0 {
					t.Fatalf("rate %v burst %d event %d: tat %s, want %s", rate, burst, i, got, wantAfter)
				}
				if wait == 0 || rng.IntN(2) == 0 { // a token, or a reservation
					tat, m.tat = after, wantAfter
				}
			}
		}
	}
}

// TestRateChange: a bucket that changes its rate keeps its debt, rounded up by
// less than a millisecond.
func TestRateChange(t *testing.T) {
	slow := newLimit(schemas.Rate{Rate: 3, Burst: 1}, defaultPolicy.Fast)
	fast := newLimit(schemas.Rate{Rate: 7, Burst: 1}, defaultPolicy.Fast)
	const now = 1_790_000_000_000
	tat, _ := slow.next(instant{}, now) // now + 333 1/3
	after, wait := fast.next(tat, now)  // a token at 333 1/3, rounded up to 333 3/7
	if after != (instant{now + 333 + 142 + 1, 2, 7}) || wait != 334 {
		t.Errorf("after %+v wait %d", after, wait)
	}
	if again := after.in(3); again != (instant{now + 476, 1, 3}) {
		t.Errorf("back to thirds: %+v", again)
	}
}

func TestLimitBounds(t *testing.T) {
	for name, r := range map[string]schemas.Rate{
		"absent": {}, "negative": {Rate: -1}, "NaN": {Rate: math.NaN()},
	} {
		if l := newLimit(r, defaultPolicy.Fast); l.period != (instant{10, 0, 1}) || l.backlog != 60_000 {
			t.Errorf("%s: period %+v backlog %d, want the default's 10 ms and 60 s", name, l.period, l.backlog)
		}
	}
	if l := newLimit(schemas.Rate{Rate: math.Inf(1)}, defaultPolicy.Fast); l.period != (instant{0, 1, 1_000_000}) {
		t.Errorf("infinite rate: period %+v, want that of 1e9/s", l.period)
	}
	if l := newLimit(schemas.Rate{Rate: 1e-300, Burst: math.MaxInt64}, defaultPolicy.Fast); l.burst.ms != 1e18 {
		t.Errorf("smallest rate, largest burst: %+v", l.burst)
	}
}
