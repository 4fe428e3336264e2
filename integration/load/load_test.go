package load

import (
	"os"
	"strings"
	"testing"
	"time"
)

func tracePlan(t *testing.T, c PlanConfig) *Plan {
	t.Helper()
	f, err := os.Open("testdata/azure_llm_inference_conv_2023.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if c.Trace, err = ReadTrace(f); err != nil {
		t.Fatal(err)
	}
	p, err := NewPlan(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var standard = PlanConfig{Speed: 5, Tenants: 20, Duration: time.Minute, NoisyRate: 300, Repeats: 0.02, Malformed: 0.001, Kafka: 0.1, Run: "r1"}

func TestPlanOfTheTrace(t *testing.T) {
	p := tracePlan(t, standard)
	perSecond := float64(p.Offered) / p.Duration.Seconds()
	if perSecond < 5000 || perSecond > 8000 {
		t.Errorf("%.0f events/s offered", perSecond)
	}
	t.Logf("%d requests, %d events (%.0f/s), %d repeats, malformed %v", len(p.Requests), p.Offered, perSecond, p.Repeats, p.Malformed)
	sends, bad, kafka := 0, 0, 0
	for tenant, list := range p.HTTP {
		last := time.Duration(0)
		for _, s := range list {
			if p.Requests[s.Req].Tenant != tenant || s.At < last {
				t.Fatalf("send %+v of %s is out of place", s, tenant)
			}
			last = s.At
			sends++
		}
	}
	for _, s := range p.Kafka {
		if s.Seq < 0 {
			bad++
			continue
		}
		kafka++
		sends++
	}
	if sends != p.Offered+p.Repeats {
		t.Errorf("%d sends, want %d + %d", sends, p.Offered, p.Repeats)
	}
	if share := float64(kafka) / float64(sends); share < 0.08 || share > 0.12 {
		t.Errorf("%.3f go over Kafka, want a tenth", share)
	}
	if want := int(0.001 * float64(p.Offered)); bad != want {
		t.Errorf("%d malformed, want %d", bad, want)
	}
	again := tracePlan(t, standard)
	if again.Offered != p.Offered || again.Repeats != p.Repeats || len(again.Requests) != len(p.Requests) {
		t.Error("the same settings give another plan")
	}
}

func TestReadTraceNamesTheLine(t *testing.T) {
	for _, c := range []struct{ csv, want string }{
		{"", "header"},
		{"TIMESTAMP,ContextTokens,GeneratedTokens\n", "no rows"},
		{"TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n", "line 2"},
		{"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,1,x\n", "line 2: GeneratedTokens"},
	} {
		if _, err := ReadTrace(strings.NewReader(c.csv)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.csv, err, c.want)
		}
	}
}

func TestLedgerSeesWhatWentWrong(t *testing.T) {
	p := tracePlan(t, PlanConfig{Speed: 5, Tenants: 2, Duration: 2 * time.Second, Run: "r1"})
	l := NewLedger(p, "r1")
	req := -1
	for i, r := range p.Requests {
		if r.Events >= 6 {
			req = i
			break
		}
	}
	tenant, channel := p.Requests[req].Tenant, p.Requests[req].Channel
	for _, seq := range []int{0, 1, 1, 4, 3} { // 1 twice, 3 after 4, 2 and 5… never
		if sight := l.Got(tenant, channel, EventID("r1", req, seq), p.Requests[req].Due(seq)+time.Millisecond); sight > Again {
			t.Fatalf("event %d of request %d is %d", seq, req, sight)
		}
	}
	sum := l.Sum(Exact, false)
	if sum.Delivered != 4 || sum.Doubled != 1 || sum.OutOfOrder != 1 || sum.Lost != p.Offered-4 {
		t.Errorf("%+v", sum)
	}
	if l.Sum(Star, false).Delivered != 0 || l.Done(Exact, req) {
		t.Error("what one subscriber saw counts for another")
	}
	for _, id := range []string{"", "r2-0-0", "r1-0", "r1-x-0", "r1-999999-0", "r1-0-999999", EventID("r1", -1, 0)} {
		if sight := l.Got(tenant, channel, id, 0); sight != Stranger {
			t.Errorf("%q is %d, want a stranger", id, sight)
		}
	}
	for _, who := range [][2]string{{"globex", channel}, {"globex", "*"}, {tenant, "another"}} {
		if sight := l.Got(who[0], who[1], EventID("r1", req, 5), 0); sight != Foreign {
			t.Errorf("a subscriber of %v sees %d, want foreign", who, sight)
		}
	}
	if q := l.Quiet.Percentiles(); q.Count != 4 || q.P50 < 0.9 || q.P50 > 1.1 {
		t.Errorf("%+v", q)
	}
}

// A report that is right passes, and each thing that may go wrong fails it.
func TestJudge(t *testing.T) {
	right := func() *Report {
		whole := Tally{Expected: 100, Delivered: 100}
		return &Report{
			Duration: 60, SendSeconds: 60, Repeats: 5, Malformed: map[string]int{"too_large": 2}, Exact: whole, Star: whole,
			NoisyExact: Tally{Expected: 90, Delivered: 80, Lost: 10}, NoisyStar: Tally{Expected: 90, Delivered: 80, Lost: 10},
			Noisy:   Shape{Rate: 1, Burst: 10, InTime: 70, Allowed: 70},
			Verdict: Verdict{Duplicates: 5, Dead: map[string]int{"too_large": 2}, OverQuota: 10},
		}
	}
	r := right()
	if r.judge(false); len(r.Failures) > 0 {
		t.Fatalf("a right report fails: %v", r.Failures)
	}
	for name, spoil := range map[string]func(*Report){
		"lost":                func(r *Report) { r.Star.Lost = 1 },
		"doubled":             func(r *Report) { r.Exact.Doubled = 1 },
		"out of order":        func(r *Report) { r.NoisyStar.OutOfOrder = 1 },
		"duplicate":           func(r *Report) { r.Verdict.Duplicates = 4 },
		"dead too_large":      func(r *Report) { r.Verdict.Dead["too_large"] = 1 },
		"dead internal":       func(r *Report) { r.Verdict.Dead["internal"] = 1 },
		"good events":         func(r *Report) { r.Verdict.DeadGood = map[string]int{"no_route": 1} },
		"noisy: 80 delivered": func(r *Report) { r.Verdict.OverQuota = 9 },
		"more than burst":     func(r *Report) { r.Noisy.MaxExcess = 1.5 },
		"in time":             func(r *Report) { r.Noisy.InTime = 68 },
		"fell behind":         func(r *Report) { r.SendSeconds = 70 },
		"another tenant":      func(r *Report) { r.Foreign = 1 },
	} {
		r := right()
		spoil(r)
		r.judge(false)
		if all := strings.Join(r.Failures, "; "); !strings.Contains(all, name) {
			t.Errorf("%s is not noticed: %q", name, all)
		}
	}
}

// A restart has senders send again, and no copy be let through.
func TestJudgeOfRestarts(t *testing.T) {
	for _, c := range []struct {
		name    string
		doubled int
		retried int64
		decided int
		want    string // "": everything adds up
	}{
		{name: "each second copy is a duplicate", decided: 5},
		{name: "a batch was sent again", retried: 1, decided: 5 + maxBatch},
		{name: "more than was sent again", retried: 1, decided: 6 + maxBatch, want: "duplicate decisions"},
		{name: "a second copy was let through", doubled: 1, decided: 4, want: "1 doubled; 4 duplicate decisions"},
		{name: "one that was sent again was let through", doubled: 1, retried: 1, decided: 5, want: "1 doubled"},
	} {
		r := &Report{Repeats: 5, Retried: c.retried, Star: Tally{Doubled: c.doubled}, Verdict: Verdict{Duplicates: c.decided}}
		r.judge(true)
		if all := strings.Join(r.Failures, "; "); !strings.Contains(all, c.want) || c.want == "" && all != "" {
			t.Errorf("%s: %q, want %q", c.name, all, c.want)
		}
	}
}

// What waited for its schema after a restart may come later, and no more than that.
func TestJudgeOfWhatWaited(t *testing.T) {
	for late, want := range map[int]bool{3: true, 4: false} {
		r := &Report{Exact: Tally{OutOfOrder: late}, Verdict: Verdict{Waited: 3}}
		r.judge(true)
		if ok := len(r.Failures) == 0; ok != want {
			t.Errorf("%d late of 3 that waited: %v", late, r.Failures)
		}
	}
}

func TestShape(t *testing.T) {
	var times []time.Duration
	for k := range 30 { // burst of 10, then one each 100 ms
		times = append(times, time.Duration(max(0, k-9))*100*time.Millisecond)
	}
	s := shape(times, 10, 10, time.Second, 100*time.Millisecond)
	if s.InTime != 20 || s.OnTheWay != 1 || s.Allowed != 20 || s.MaxExcess != 0 {
		t.Errorf("%+v", s)
	}
	times[29] = 0
	if s := shape(times, 10, 10, time.Second, 100*time.Millisecond); s.MaxExcess < 19 {
		t.Errorf("an event that came early is not seen: %+v", s)
	}
}
