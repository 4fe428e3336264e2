//go:build integration

package integration

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestStory publishes an event and expects its story in ClickHouse within 2 s
// of its delivery, for clickhouse-go (explain) and for curl alike.
func TestStory(t *testing.T) { onEach(t, testStory) }

func testStory(t *testing.T, s *site) {
	s.clickhouseReady(t)
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

// TestIsolation: a token of acme, with every channel allowed, never sees a
// byte of globex, not with globex's cursors either; one with few channels is
// refused the others by name.
func TestIsolation(t *testing.T) { onEach(t, testIsolation) }

func testIsolation(t *testing.T, s *site) {
	s.clickhouseReady(t)
	secret, own := fmt.Sprintf("secret-%d", time.Now().UnixNano()), fmt.Sprintf("own-%d", time.Now().UnixNano())
	s.run(t, "", "pub", "globex", "hidden.1", `{"text":"`+secret+`"}`, "--id", secret)
	s.run(t, "", "pub", "acme", "hidden.1", `{"text":"`+own+`"}`)
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
	foreign := cursor.FindString(s.run(t, "", "explain", secret))
	if foreign == "" {
		t.Fatal("explain names no cursor of globex's event")
	}
	wide := strings.TrimSpace(s.run(t, "", "token", "acme", "--channels", "*"))
	for _, from := range []string{"begin", foreign, "last:1000", time.Now().Add(-time.Hour).Format(time.RFC3339)} {
		out, _ := s.try(t.Context(), "", "sub", "acme", "*", "--from", from, "--token", wide, "--timeout", "2s", "--output", "json")
		if strings.Contains(out, secret) || strings.Contains(out, `"tenantid":"globex"`) {
			t.Errorf("acme sees globex from %s:\n%s", from, out)
		}
		if from == "begin" && !strings.Contains(out, own) {
			t.Errorf("acme does not see its own event, so nothing was tested:\n%s", out)
		}
	}
}

var cursor = regexp.MustCompile(`c[0-9a-f]{24}`)

// TestLoad is the main job: the trace goes through, everything adds up, and a
// hundred stories of it are whole.
func TestLoad(t *testing.T) { onEach(t, testLoad) }

func testLoad(t *testing.T, s *site) {
	s.clickhouseReady(t)
	r := s.load(t, "--speed", "4", "--tenants", "20", "--duration", "10s", "--malformed", "0.003")
	explainSome(t, s, r.Run)
}

// explainSome asks for the stories of a hundred events of a run and of one at
// least for each reason that it has: each must say how it began and ended.
func explainSome(t *testing.T, s *site, run string) {
	t.Helper()
	like := "event_id LIKE '" + run + "-%'"
	sample := s.query(t, `SELECT DISTINCT id, reason FROM (
  (SELECT anyLast(event_id) AS id, toString(reason) AS reason FROM spillway.transitions WHERE `+like+` GROUP BY reason, status)
  UNION ALL (SELECT event_id AS id, '' AS reason FROM spillway.events WHERE `+like+` ORDER BY rand() LIMIT 100)) FORMAT TSV`)
	lines := strings.Split(sample, "\n")
	if len(lines) < 100 {
		t.Fatalf("only %d ids: %s", len(lines), sample)
	}
	texts := map[string]string{}
	for _, line := range strings.Split(s.query(t, "SELECT reason, text FROM spillway.reasons FORMAT TSVRaw"), "\n") {
		reason, text, _ := strings.Cut(line, "\t")
		texts[reason] = text
	}
	reasons := map[string]bool{}
	for _, line := range lines {
		id, reason, _ := strings.Cut(line, "\t")
		out := s.run(t, "", "explain", id)
		for _, want := range []string{id, "accepted"} {
			if !strings.Contains(out, want) {
				t.Errorf("explain %s does not say %q:\n%s", id, want, out)
			}
		}
		if text := texts[reason]; !strings.Contains(out, reason) && (text == "" || !strings.Contains(out, text)) {
			t.Errorf("explain %s does not say %q:\n%s", id, reason, out)
		}
		if !decided.MatchString(out) {
			t.Errorf("explain %s does not say what was decided:\n%s", id, out)
		}
		reasons[reason] = true
	}
	t.Logf("%d stories, %d reasons", len(lines), len(reasons)-1)
}

var decided = regexp.MustCompile(`let through|dead|duplicate|waits`)
