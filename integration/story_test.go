//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testStory publishes an event and expects its story in ClickHouse within 2 s
// of its delivery, for clickhouse-go (explain) and for curl alike.
func testStory(t *testing.T) {
	s := sharedDev(t)
	id := fmt.Sprintf("story-%d", time.Now().UnixNano())
	s.run(t, "", "pub", "acme", "story.1", `{"text":"once upon a time"}`, "--id", id)
	s.run(t, "", "sub", "acme", "story.1", "--from", "begin", "--count", "1")
	delivered := time.Now()
	eventually(t, "the story", func() bool {
		return s.query(t, "SELECT count() >= 2 FROM spillway.v_event_timeline WHERE tenant = 'acme' AND event_id = '"+id+"'") == "1"
	})
	if took := time.Since(delivered); took > 2*time.Second {
		t.Errorf("the story is in ClickHouse %s after delivery, want 2 s at most", took)
	}
	out := s.run(t, "", "explain", id)
	for _, want := range []string{id, "acme", "story.1", "demo.Message"} {
		if !strings.Contains(out, want) {
			t.Errorf("explain does not say %q:\n%s", want, out)
		}
	}
}

// testIsolation: a token of acme, with every channel allowed, never sees a
// byte of globex; one with few channels is refused the others by name.
func testIsolation(t *testing.T) {
	s := sharedDev(t)
	secret := fmt.Sprintf("secret-%d", time.Now().UnixNano())
	s.run(t, "", "pub", "globex", "hidden.1", `{"text":"`+secret+`"}`)
	narrow := strings.TrimSpace(s.run(t, "", "token", "acme", "--channels", "chat.*"))
	for i := range 50 {
		channel := []string{"hidden.1", "hidden.*", "globex", "globex.*", "*"}[i%5]
		if i >= 5 {
			channel = strings.Replace(channel, "hidden", fmt.Sprintf("hidden%d", i), 1)
		}
		out, err := s.try(t.Context(), "", "sub", "acme", channel, "--from", "begin", "--count", "1", "--token", narrow, "--timeout", "5s")
		if err == nil || !strings.Contains(out, "forbidden") || !strings.Contains(out, "channels") {
			t.Fatalf("sub %s with a token for chat.*: %v\n%s", channel, err, out)
		}
	}
	wide := strings.TrimSpace(s.run(t, "", "token", "acme", "--channels", "*"))
	out, _ := s.try(t.Context(), "", "sub", "acme", "*", "--from", "begin", "--token", wide, "--timeout", "3s", "--output", "json")
	if strings.Contains(out, secret) || strings.Contains(out, `"tenantid":"globex"`) {
		t.Errorf("acme sees globex:\n%s", out)
	}
}

type report struct {
	Offered   int            `json:"offered"`
	Repeats   int            `json:"repeats_sent"`
	Malformed map[string]int `json:"malformed_sent"`
	Run       string         `json:"run"`
	Failures  []string       `json:"failures"`
}

// load plays the trace and returns the report; the run must add up.
func (s *stack) load(t *testing.T, args ...string) report {
	t.Helper()
	out := s.run(t, "", append([]string{"load", "--json", "--trace", "load/testdata/azure_llm_inference_conv_2023.csv"}, args...)...)
	var r report
	if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &r); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(t.TempDir(), "report.json"), []byte(out), 0o644); err != nil {
		t.Fatal(err)
	}
	if len(r.Failures) > 0 || r.Offered == 0 {
		t.Fatalf("%s", out)
	}
	t.Log(out)
	return r
}

func testLoad(t *testing.T) {
	s := sharedDev(t)
	r := s.load(t, "--speed", "2", "--tenants", "20", "--duration", "20s")
	explainSome(t, s, r.Run)
}

// explainSome asks for the stories of events of a run, one at least for each
// reason that it has.
func explainSome(t *testing.T, s *stack, run string) {
	t.Helper()
	like := "event_id LIKE '" + run + "-%'"
	sample := s.query(t, `SELECT DISTINCT id FROM (
  (SELECT anyLast(event_id) AS id FROM spillway.transitions WHERE `+like+` GROUP BY reason, status)
  UNION ALL (SELECT event_id AS id FROM spillway.events WHERE `+like+` ORDER BY rand() LIMIT 100)) FORMAT TSV`)
	ids := strings.Fields(sample)
	if len(ids) < 50 {
		t.Fatalf("only %d ids: %s", len(ids), sample)
	}
	for _, id := range ids {
		if out := s.run(t, "", "explain", id); !strings.Contains(out, id) {
			t.Errorf("explain %s:\n%s", id, out)
		}
	}
}
