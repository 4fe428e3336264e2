//go:build integration

package integration

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func saysText(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// registrySicknesses are what a registry, or what stands before it, answers on
// a bad day; reason is the word of spillway_registry_failures_total.
var registrySicknesses = []sickness{
	{"its own 500", "server_error", saysText(500, `{"error_code":50001,"message":"the store is gone"}`)},
	{"a proxy's 502", "server_error", showsPage(502)},
	{"a page with 200", "not_json", showsPage(200)},
	{"a page with 404", "not_json", showsPage(404)},
	{"404 of a gateway", "wrong_answer", saysText(404, `{"message":"no route matched"}`)},
	{"garbage", "not_json", saysText(200, "\x00\x01{]")},
	{"wrong password", "unauthorized", saysText(401, "")},
	{"a redirect", "redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) }},
	{"no answer", "timeout", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
	{"an answer without end", "too_large", func(w http.ResponseWriter, _ *http.Request) {
		zeros := make([]byte, 64<<10)
		for {
			if _, err := w.Write(zeros); err != nil {
				return
			}
		}
	}},
	{"hangs up", "refused", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
}

// TestSickRegistry: whatever ails the registry, route and ingest say it in
// their log, on /readyz and in a metric; an event of a schema that only the
// registry knows waits and is delivered once, one of a known schema is taken
// meanwhile, none is dead; and they find the registry again by themselves.
func TestSickRegistry(t *testing.T) { onBoth(t, "sickregistry.", testSickRegistry) }

func testSickRegistry(t *testing.T, d *deployment) {
	d.clickhouseReady(t)
	d.mustSetup(t)
	address, sick := newClinic(t, d.at().Registry)
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	d.role(t, "delay")
	w := &ward{deployment: d, address: address, sick: sick, client: d.kafka(t, false), run: time.Now().UnixNano(), ingestAt: web(ports[0])}
	w.route = d.role(t, "route", "--registry-url", address)
	w.ingest = d.role(t, "ingest", "--registry-url", address, "--listen", local(ports[0]))
	w.token = strings.TrimSpace(d.run(t, "", "token", "acme", "--role", "producer"))
	known := fmt.Sprintf("known-%d", w.run)
	w.ids = append(w.ids, known)
	if code := postEvent(t, w.ingestAt, "demo.Message", known, w.token); code != http.StatusAccepted { // since then ingest knows the type
		t.Fatalf("ingest answers %d, want 202", code)
	}
	for i := range registrySicknesses {
		w.through(t, i, &registrySicknesses[i])
	}
	w.nothingLost(t)
	t.Logf("%d events through %d sicknesses of the registry", len(w.ids), len(registrySicknesses))
}

// A ward is a deployment whose registry is sick.
type ward struct {
	*deployment
	address         string // of what stands before the registry
	sick            *atomic.Pointer[sickness]
	route, ingest   *proc
	client          *kgo.Client
	run             int64
	ingestAt, token string
	ids             []string // of events that were sent
}

// through lives through one sickness, with an event over Kafka and one over
// HTTP whose schema nobody knows yet.
func (w *ward) through(t *testing.T, i int, ill *sickness) {
	name := fmt.Sprintf("sick.T%d.R%d", i, w.run)
	id := w.register(t, name, fmt.Sprintf(`{"schema":"{\"type\":\"record\",\"name\":\"%s\",\"fields\":[{\"name\":\"text\",\"type\":\"string\"}]}"}`, name))
	byKafka, byHTTP, known := fmt.Sprintf("kafka-%d-%d", i, w.run), fmt.Sprintf("http-%d-%d", i, w.run), fmt.Sprintf("known-%d-%d", i, w.run)
	w.ids = append(w.ids, byKafka, byHTTP, known)
	said := len(w.route.out.String())
	w.sick.Store(ill)
	if err := w.client.ProduceSync(t.Context(), &kgo.Record{Topic: w.prefix + "events", Key: []byte("acme"), Partition: 0,
		Value: append(wire(id), "\x04hi"...), Headers: []kgo.RecordHeader{{Key: "ce_id", Value: []byte(byKafka)}}}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if code := postEvent(t, w.ingestAt, name, byHTTP, w.token); code != http.StatusServiceUnavailable {
		t.Errorf("%s: ingest answers %d, want 503", ill.name, code)
	}
	for _, p := range []*proc{w.route, w.ingest} {
		w.saysSick(t, p, ill)
	}
	if code := postEvent(t, w.ingestAt, "demo.Message", known, w.token); code != http.StatusAccepted {
		t.Errorf("%s: ingest answers %d to an event of a known type, want 202", ill.name, code)
	}
	if log := w.route.out.String()[said:]; strings.Count(log, "schema registry does not answer") != 1 {
		t.Errorf("%s: the log of route:\n%s", ill.name, log)
	}
	w.sick.Store(nil)
	for _, p := range []*proc{w.route, w.ingest} {
		text := ""
		eventually(t, ill.name+": "+p.name+" is ready again by itself", func() bool {
			var code int
			code, text = askReady(t, p)
			return code == http.StatusOK && !strings.Contains(text, "degraded")
		}, func() string { return text })
	}
	if code := postEvent(t, w.ingestAt, name, byHTTP, w.token); code != http.StatusAccepted {
		t.Errorf("%s: afterwards ingest answers %d, want 202", ill.name, code)
	}
}

// nothingLost waits for every event on the fan-out topic, once; what met a
// sick registry comes back from retry.16s.
func (w *ward) nothingLost(t *testing.T) {
	var found map[string]int
	eventually(t, "every event is let through", func() bool {
		found = map[string]int{}
		w.read(t, w.prefix+"fanout.local", func(r *kgo.Record) {
			for _, id := range w.ids {
				if strings.Contains(string(r.Value), `"`+id+`"`) {
					found[id]++
				}
			}
		})
		return len(found) == len(w.ids)
	}, func() string { return fmt.Sprintf("%d of %d: %v", len(found), len(w.ids), found) })
	for id, n := range found {
		if n != 1 {
			t.Errorf("%s is there %d times", id, n)
		}
	}
	if n := w.count(t, w.prefix+"dead", func(*kgo.Record) bool { return true }); n > 0 {
		t.Errorf("%d events are dead", n)
	}
}

// saysSick expects the reason on /readyz, with the address, and in the metric.
// Ingest stays ready: it takes what it knows.
func (w *ward) saysSick(t *testing.T, p *proc, ill *sickness) {
	t.Helper()
	status, line := http.StatusServiceUnavailable, "registry: "
	if p == w.ingest {
		status, line = http.StatusOK, "degraded: registry: "
	}
	text := ""
	eventually(t, ill.name+": /readyz of "+p.name+" says why", func() bool {
		var code int
		code, text = askReady(t, p)
		return code == status && strings.Contains("\n"+text, "\n"+line) && strings.Contains(text, w.address)
	}, func() string { return fmt.Sprintf("want %d with %q, got %s", status, line, text) })
	_, metrics := get(t, web(p.admin)+"/metrics")
	if want := `spillway_registry_failures_total{reason="` + ill.reason + `"}`; !strings.Contains(metrics, want) {
		t.Errorf("%s: %s has no metric %s", ill.name, p.name, want)
	}
}

// postEvent sends an event and returns the status; a refusal says when to try
// again.
func postEvent(t *testing.T, ingest, name, id, token string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, ingest+"/v1/events?type="+name+"&subject=sick&id="+id, strings.NewReader(`{"text":"hi"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "" {
		t.Errorf("503 without Retry-After: %s", body)
	}
	if resp.StatusCode >= 400 && resp.StatusCode != http.StatusServiceUnavailable {
		t.Logf("%d %s", resp.StatusCode, body)
	}
	return resp.StatusCode
}
