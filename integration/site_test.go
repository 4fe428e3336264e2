//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// trace is the real traffic that runs are made of.
const trace = "load/testdata/azure_llm_inference_conv_2023.csv"

// env is what a person's shell has at this site.
func (s *site) env() []string { return append(os.Environ(), "SPILLWAY_DATA="+s.data) }

// shell runs a line as a person would who has just built the binary: in a
// folder that holds it.
func (s *site) shell(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(s.bin, filepath.Join(dir, "spillway")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "timeout", "60", "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(s.env(), "KAFKA="+s.at().Kafka, "REGISTRY="+s.at().Registry)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s\n%v\n%s", script, err, out)
	}
	t.Logf("$ %s\n%s", script, out)
	return string(out)
}

// run runs the binary as a person would and returns what it printed.
func (s *site) run(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	out, err := s.try(t.Context(), stdin, args...)
	if err != nil {
		t.Fatalf("spillway %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (s *site) try(ctx context.Context, stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.bin, args...)
	cmd.Env = s.env()
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// query asks ClickHouse and returns the answer without the last newline.
func (s *site) query(t testing.TB, sql string) string {
	t.Helper()
	resp, err := http.Post(s.at().ClickHouse, "text/plain", strings.NewReader(sql))
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(string(body), "\n")
}

// eventually waits until ok says so, 60 s at most; then why says more.
func eventually(t testing.TB, what string, ok func() bool, why ...func() string) {
	t.Helper()
	within(t, time.Minute, what, ok, why...)
}

// within waits until ok says so, for a time at most; then why says more.
func within(t testing.TB, most time.Duration, what string, ok func() bool, why ...func() string) {
	t.Helper()
	deadline := time.After(most)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			more := ""
			for _, w := range why {
				more += "\n" + w()
			}
			t.Fatalf("%s: not within %s%s", what, most, more)
		case <-t.Context().Done():
			t.Fatalf("%s: %v", what, t.Context().Err())
		}
	}
}

// after waits for a moment of a run.
func after(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// clickhouseReady waits for ClickHouse and its tables; the embedded engine
// fetches 180 MB at its first start.
func (s *site) clickhouseReady(t testing.TB) {
	t.Helper()
	within(t, 5*time.Minute, "ClickHouse has its tables", func() bool {
		return s.query(t, "SELECT count() >= 0 FROM spillway.events") == "1"
	}, func() string { return s.query(t, "SELECT count() FROM spillway.events") })
}

// playing is a load run in the background.
type playing struct {
	began time.Time
	out   lockedBuffer
	done  chan error
}

// play starts a load that tolerates that a restart delays and has senders send
// again, and nothing else.
func (s *site) play(t *testing.T, args ...string) *playing {
	t.Helper()
	p := &playing{began: time.Now(), done: make(chan error, 1)}
	cmd := exec.CommandContext(t.Context(), s.bin, append([]string{"load", "--trace", trace, "--restarts", "--tenants", "5"}, args...)...)
	cmd.Env = s.env()
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- cmd.Wait() }()
	return p
}

func (p *playing) wait(t *testing.T) {
	t.Helper()
	if err := <-p.done; err != nil {
		t.Errorf("load: %v\n%s", err, p.out.String())
		return
	}
	t.Log(tail(p.out.String()))
}

type loadReport struct {
	Offered   int            `json:"offered"`
	Repeats   int            `json:"repeats_sent"`
	Malformed map[string]int `json:"malformed_sent"`
	Run       string         `json:"run"`
	Failures  []string       `json:"failures"`
}

// load plays the trace; the run must add up, and the second checker must
// agree with it.
func (s *site) load(t *testing.T, args ...string) loadReport {
	t.Helper()
	file := filepath.Join(t.TempDir(), "report.json")
	out := s.run(t, "", append([]string{"load", "--report", file, "--trace", trace}, args...)...)
	t.Log(tail(out))
	return s.agree(t, file)
}

// agree reads a report and has the second checker count the same.
func (s *site) agree(t *testing.T, file string, args ...string) loadReport {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r loadReport
	if err := json.Unmarshal(text, &r); err != nil || len(r.Failures) > 0 || r.Offered == 0 {
		t.Fatalf("%v\n%s", err, text)
	}
	var out []byte
	eventually(t, "the second checker agrees", func() bool { // the audit may be a moment behind
		cmd := exec.CommandContext(t.Context(), "go", append([]string{
			"run", "./check", "--report", file, "--kafka", s.at().Kafka, "--clickhouse", s.at().ClickHouse,
		}, args...)...)
		out, err = cmd.CombinedOutput()
		return err == nil
	}, func() string { return string(out) })
	t.Logf("%s", out)
	return r
}
