package load

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Report is a run's outcome. Failures is empty if everything added up.
type Report struct {
	Run          string         `json:"run"`
	StartedAt    int64          `json:"started_at"` // Unix ms
	Duration     float64        `json:"duration_s"`
	Speed        float64        `json:"speed"`
	Offered      int            `json:"offered"`       // events, each counted once
	OfferedRate  float64        `json:"offered_per_s"` //
	SendSeconds  float64        `json:"send_s"`        // how long offering took; longer than duration: the generator fell behind
	Repeats      int            `json:"repeats_sent"`  // second copies
	Retried      int64          `json:"batches_retried"`
	Malformed    map[string]int `json:"malformed_sent"` // by reason they must die with
	Exact        Tally          `json:"exact"`          // quiet tenants, exact subscribers
	Star         Tally          `json:"star"`           // quiet tenants, "*" subscribers
	NoisyExact   Tally          `json:"noisy_exact"`
	NoisyStar    Tally          `json:"noisy_star"`
	Noisy        Shape          `json:"noisy_shape"`
	Verdict      Verdict        `json:"verdict"`
	Foreign      int            `json:"foreign"` // events that reached a subscriber of another tenant or channel
	Gaps         int            `json:"gaps"`    // gap frames that subscribers were sent
	Reconnects   int            `json:"reconnects"`
	QuietLatency Percentiles    `json:"quiet_latency"`
	HTTPLatency  Percentiles    `json:"http_latency"` // those of them that came over HTTP
	BareLatency  Percentiles    `json:"bare_latency"` // produce → consume of the same broker in the same run; see bare
	NoisyLatency Percentiles    `json:"noisy_latency"`
	Stall        float64        `json:"stall_ms"` // longest time for which the generator itself did not run
	Failures     []string       `json:"failures"`
}

// A Shape says how a limited tenant's events left.
type Shape struct {
	Rate      float64 `json:"rate"`
	Burst     float64 `json:"burst"`
	InTime    int     `json:"in_time"`    // delivered by the end of the run
	OnTheWay  int     `json:"on_the_way"` // delivered so soon after it that they were on the way; see wayToSocket
	Allowed   float64 `json:"allowed"`    // burst + rate × time
	MaxExcess float64 `json:"max_excess"` // most that was ever delivered above the allowance of its moment
}

// shape measures the delivery times of a limited tenant, since its first event
// was due, against burst + rate × time.
func shape(times []time.Duration, rate, burst float64, run, way time.Duration) Shape {
	s := Shape{Rate: rate, Burst: burst, Allowed: burst + rate*run.Seconds()}
	for k, at := range times {
		switch {
		case at <= run:
			s.InTime++
		case at <= run+way:
			s.OnTheWay++
		}
		s.MaxExcess = max(s.MaxExcess, float64(k+1)-burst-rate*at.Seconds())
	}
	return s
}

// wayToSocket is how much later than its token an event may arrive, for the way
// from the log to the socket: the limiter is not to blame for what takes as
// long as the slowest event of a quiet tenant did in the same run.
func wayToSocket(quiet Percentiles) time.Duration {
	return max(100*time.Millisecond, time.Duration(quiet.Max*float64(time.Millisecond)))
}

// judge fills in Failures. restarts is for a run in which Spillway was
// stopped or killed: a sender waits and sends again, and what needs a schema
// comes later. Nothing is delivered twice all the same.
func (r *Report) judge(restarts bool) {
	fail := func(format string, a ...any) { r.Failures = append(r.Failures, fmt.Sprintf(format, a...)) }
	if r.SendSeconds > r.Duration*1.02+1 && !restarts {
		fail("the generator fell behind: %.1f s to offer what is due in %.0f s", r.SendSeconds, r.Duration)
	}
	for _, q := range []struct {
		name string
		Tally
	}{{"exact", r.Exact}, {"*", r.Star}} {
		if q.Lost != 0 {
			fail("quiet tenants, %s subscribers: %d of %d lost", q.name, q.Lost, q.Expected)
		}
	}
	for _, q := range []struct {
		name string
		Tally
	}{{"quiet exact", r.Exact}, {"quiet *", r.Star}, {"noisy exact", r.NoisyExact}, {"noisy *", r.NoisyStar}} {
		if q.Doubled != 0 {
			fail("%s subscribers: %d doubled", q.name, q.Doubled)
		}
		later := 0 // a route that was just restarted may have to ask for a schema or tenant first
		if restarts {
			later = r.Verdict.Waited
		}
		if q.OutOfOrder > later {
			fail("%s subscribers: %d out of order, at most %d may be", q.name, q.OutOfOrder, later)
		}
	}
	if r.Foreign != 0 {
		fail("%d events reached a subscriber of another tenant or channel", r.Foreign)
	}
	r.judgeDecisions(restarts, fail)
	r.judgeNoisy(restarts, fail)
}

func (r *Report) judgeDecisions(restarts bool, fail func(string, ...any)) {
	least, most := r.Repeats, r.Repeats
	if restarts { // what was written and not answered comes again
		most += int(r.Retried) * maxBatch
	}
	if d := r.Verdict.Duplicates; d < least || d > most {
		fail("%d duplicate decisions, want %d to %d", d, least, most)
	}
	for _, reason := range slices.Sorted(maps.Keys(r.Malformed)) {
		if got, want := r.Verdict.Dead[reason], r.Malformed[reason]; got != want {
			fail("dead %s: %d, want %d", reason, got, want)
		}
	}
	for reason, n := range r.Verdict.Dead {
		if r.Malformed[reason] == 0 {
			fail("dead %s: %d, want none", reason, n)
		}
	}
	for reason, n := range r.Verdict.DeadGood {
		fail("%d good events are dead: %s", n, reason)
	}
}

func (r *Report) judgeNoisy(restarts bool, fail func(string, ...any)) {
	n := r.NoisyExact
	if n.Expected == 0 {
		return
	}
	for _, t := range []Tally{r.NoisyExact, r.NoisyStar} {
		if t.Delivered+r.Verdict.OverQuota != t.Expected {
			fail("noisy: %d delivered + %d over quota, want %d", t.Delivered, r.Verdict.OverQuota, t.Expected)
		}
	}
	if r.Noisy.MaxExcess > 1 {
		fail("noisy: %.1f events more than burst + rate × time were delivered", r.Noisy.MaxExcess)
	}
	if float64(r.Noisy.InTime+r.Noisy.OnTheWay) < r.Noisy.Allowed-1 && !restarts {
		fail("noisy: %d in time, want burst + rate × time = %.0f", r.Noisy.InTime, r.Noisy.Allowed)
	}
}

// Write prints the report for a person.
func (r *Report) Write(w io.Writer) error {
	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	p("run %s: %d events offered in %.1f s (%.0f/s), %d of them twice, %d batches retried", r.Run, r.Offered, r.SendSeconds, r.OfferedRate, r.Repeats, r.Retried)
	p("%-26s %9s %9s %6s %8s %13s", "subscribers", "expected", "delivered", "lost", "doubled", "out of order")
	for _, q := range []struct {
		name string
		Tally
	}{{"quiet, one channel", r.Exact}, {"quiet, *", r.Star}, {"noisy, one channel", r.NoisyExact}, {"noisy, *", r.NoisyStar}} {
		p("%-26s %9d %9d %6d %8d %13d", q.name, q.Expected, q.Delivered, q.Lost, q.Doubled, q.OutOfOrder)
	}
	p("%-26s %9s %9s %9s %9s", "from due to socket, ms", "p50", "p99", "p99.9", "max")
	for _, q := range []struct {
		name string
		Percentiles
	}{{"quiet", r.QuietLatency}, {"quiet, over HTTP", r.HTTPLatency}, {"noisy", r.NoisyLatency}, {"broker alone", r.BareLatency}} {
		p("%-26s %9.1f %9.1f %9.1f %9.1f", q.name, q.P50, q.P99, q.P999, q.Max)
	}
	if r.Noisy.Rate > 0 {
		p("noisy: %d in time of burst + rate × time = %.0f (most above it at any moment: %.1f), %d over quota",
			r.Noisy.InTime, r.Noisy.Allowed, r.Noisy.MaxExcess, r.Verdict.OverQuota)
	}
	p("duplicates decided: %d of %d repeats; gaps: %d; reconnects: %d; the generator stood still for %.1f ms at most",
		r.Verdict.Duplicates, r.Repeats, r.Gaps, r.Reconnects, r.Stall)
	p("dead, by reason (got/sent):")
	for _, reason := range slices.Sorted(maps.Keys(r.Malformed)) {
		p("  %-26s %d/%d", reason, r.Verdict.Dead[reason], r.Malformed[reason])
	}
	if len(r.Failures) == 0 {
		p("everything adds up")
	}
	for _, f := range r.Failures {
		p("FAILED: %s", f)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteJSON prints the report for a program.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}
