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
	for _, seq := range []int{0, 1, 1, 4, 3} { // 1 twice, 3 after 4, 2 and 5… never
		if !l.Got(Exact, EventID("r1", req, seq), p.Requests[req].Due(seq)+time.Millisecond) {
			t.Fatalf("event %d of request %d is not known", seq, req)
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
		if l.Got(Exact, id, 0) {
			t.Errorf("%q is taken for an event of this run", id)
		}
	}
	if q := l.Quiet.Percentiles(); q.Count != 4 || q.P50 < 0.9 || q.P50 > 1.1 {
		t.Errorf("%+v", q)
	}
}
