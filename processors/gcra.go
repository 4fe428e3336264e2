package processors

import (
	"math"
	"math/bits"
	"strconv"
	"time"

	"github.com/spillway/spillway/schemas"
)

// Bounds of a bucket. What is beyond them is taken as the bound.
const (
	minRate  = 1e-6 // events a second
	maxRate  = 1e9
	maxBurst = 1_000_000_000
)

// An instant is ms + frac/den milliseconds, frac < den: a time that is exact
// for one rate. With den 0 it is the zero instant, before all others.
type instant struct {
	ms        int64
	frac, den uint32
}

// in expresses t with another denominator, rounded up, for a rate that has
// changed since.
func (t instant) in(den uint32) instant {
	if t.den == den || t.frac == 0 {
		return instant{t.ms, t.frac, den}
	}
	frac := (uint64(t.frac)*uint64(den) + uint64(t.den) - 1) / uint64(t.den)
	if frac == uint64(den) {
		return instant{t.ms + 1, 0, den}
	}
	return instant{t.ms, uint32(frac), den}
}

func (t instant) plus(d instant) instant {
	t.ms += d.ms
	if t.frac += d.frac; t.frac >= d.den { // den <= 1e9: no overflow
		t.frac -= d.den
		t.ms++
	}
	return t
}

func (t instant) minus(d instant) instant {
	t.ms -= d.ms
	if t.frac < d.frac {
		t.frac += d.den
		t.ms--
	}
	t.frac -= d.frac
	return t
}

// ceil is the first whole millisecond at or after t.
func (t instant) ceil() int64 {
	if t.frac > 0 {
		return t.ms + 1
	}
	return t.ms
}

// A limit is the bucket of one class as exact numbers.
type limit struct {
	period  instant // between two tokens
	burst   instant // burst × period
	backlog int64   // ms: a reservation further away is over_quota
	drop    bool    // without a token: dropped rather than late
}

// newLimit turns a policy's rate into exact numbers. The rate counts with its
// first 9 significant decimal digits: 0.1 is one in ten seconds, not the
// binary fraction next to it.
func newLimit(r schemas.Rate, otherwise schemas.Rate) limit {
	perSecond := r.Rate
	if !(perSecond > 0) { // absent, or NaN: control admits neither
		perSecond = otherwise.Rate
	}
	num, den := millisPerToken(min(max(perSecond, minRate), maxRate))
	burst := r.Burst
	if burst <= 0 {
		burst = max(1, int64(perSecond))
	}
	backlog := r.MaxBacklog
	if backlog <= 0 {
		backlog = otherwise.MaxBacklog
	}
	return limit{
		period:  multiple(1, num, den),
		burst:   multiple(uint64(min(burst, maxBurst)), num, den),
		backlog: time.Duration(backlog).Milliseconds(),
		drop:    r.Overflow == "drop",
	}
}

// millisPerToken is 1000/rate as a fraction in lowest terms, den < 1e9.
func millisPerToken(rate float64) (num, den uint64) {
	var buf [32]byte
	s := strconv.AppendFloat(buf[:0], rate, 'e', 8, 64) // d.dddddddde±dd
	var mantissa uint64
	i := 0
	for ; s[i] != 'e'; i++ {
		if s[i] != '.' {
			mantissa = mantissa*10 + uint64(s[i]-'0')
		}
	}
	exp, err := strconv.Atoi(string(s[i+1:]))
	if err != nil || mantissa == 0 {
		panic("processors: strconv wrote no exponent, or a rate of 0 came here")
	}
	exp -= 8
	for mantissa%10 == 0 {
		mantissa /= 10
		exp++
	}
	num, den = 1, mantissa
	for ; exp < 3; exp++ {
		num *= 10 // exp >= -14: at most 1e17
	}
	for ; exp > 3; exp-- {
		den *= 10 // the rate is at most 1e9: den at most 1e6
	}
	g := gcd(num, den)
	return num / g, den / g
}

// multiple is n × num/den milliseconds. For n <= maxBurst and a rate within
// bounds it is at most 1e18.
func multiple(n, num, den uint64) instant {
	hi, lo := bits.Mul64(n, num)
	ms, frac := bits.Div64(hi, lo, den)
	return instant{int64(min(ms, math.MaxInt64/4)), uint32(frac), uint32(den)}
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// next takes the next token of a bucket at time t: its new theoretical arrival
// time, and how many ms after t the token is there; 0: now. This is the
// generic cell rate algorithm (ITU-T I.371) in virtual scheduling form, exact:
// in any window of d, at most burst + rate × d events have a token.
func (l *limit) next(tat instant, t int64) (after instant, wait int64) {
	tat = tat.in(l.period.den)
	if tat.ms < t {
		tat = instant{t, 0, l.period.den}
	}
	after = tat.plus(l.period)
	return after, max(0, after.minus(l.burst).ceil()-t)
}
