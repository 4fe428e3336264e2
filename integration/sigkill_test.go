//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestSigkillRounds kills a random role with SIGKILL at a random moment, again
// and again, on Apache Kafka and under load: over HTTP, from Kafka producers
// that partition right and wrong, with repeats, malformed events and a tenant
// that is over its rate. Meanwhile subscribers of load runs check what they get.
// At each round both must be at work still.
//
// At the end audit_records compares every record: what was acknowledged,
// events, decisions, fan-out, dead letters and ClickHouse.
//
// SPILLWAY_SIGKILL_ROUNDS (50) and SPILLWAY_SIGKILL_SEED choose the run.
func TestSigkillRounds(t *testing.T) {
	t.Run("containers", func(t *testing.T) {
		on(t, "containers")
		testSigkillRounds(t, own(t, "containers", func(data string) (stack, error) { return newContainers(data, containersConfig{}) }))
	})
}

var killable = []string{"route", "delay", "audit", "fanout", "ingest", "control"}

func testSigkillRounds(t *testing.T, s *site) {
	rounds, seed := number(t, "SPILLWAY_SIGKILL_ROUNDS", 50), number(t, "SPILLWAY_SIGKILL_SEED", time.Now().UnixNano())
	t.Logf("%d rounds, SPILLWAY_SIGKILL_SEED=%d", rounds, seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	dir := t.TempDir()
	s.run(t, "kind: tenant\nname: kill-slow\nspec:\n  fast: {rate: 10, burst: 10}\n", "apply", "-f", "-")
	var loads relay
	load := startSending(t, s, filepath.Join(dir, "ledger"))
	began := time.Now()
	for n := range rounds {
		loads.carryOn(t, s)
		acked, ackedHTTP := load.acked.Load(), load.ackedHTTP.Load()
		after(t, 200*time.Millisecond+time.Duration(random.Int64N(int64(2500*time.Millisecond))))
		role := killable[random.IntN(len(killable))]
		killed := time.Now()
		if err := s.Kill(role); err != nil {
			t.Fatal(err)
		}
		if err := s.Start(role); err != nil {
			t.Fatal(err)
		}
		t.Logf("round %d: %s is ready again after %s", n+1, role, time.Since(killed).Round(time.Millisecond))
		eventually(t, fmt.Sprintf("round %d: events are acknowledged, over HTTP too", n+1), func() bool {
			return load.acked.Load() > acked && load.ackedHTTP.Load() > ackedHTTP
		})
	}
	t.Logf("%d rounds in %s", rounds, time.Since(began).Round(time.Second))
	loads.end(t)
	load.stop(t)
	s.compareRecords(t, filepath.Join(dir, "ledger"))
}

// A relay is load runs one of which is always at work:
//
//	├── 1: sends ──── settles ┤
//	              ├── 2: sends ──── settles ┤
//	                            ├── 3: …
type relay struct {
	running []*playing // the oldest first
	ended   int
}

const (
	legSends = 30 * time.Second // how long a load run sends; all in all it takes about 5 s more
	legAlone = 15 * time.Second // after this the next one begins: a round may take the rest
)

// carryOn is called between two rounds, when every role is there: a load run
// begins with a request to control. It expects a run to be at work, and has the
// next one begin in time.
func (r *relay) carryOn(t *testing.T, s *site) {
	t.Helper()
	r.running = slices.DeleteFunc(r.running, func(p *playing) bool {
		over := len(p.done) > 0
		if over {
			r.ended++
			p.wait(t)
		}
		return over
	})
	if r.ended > 0 && len(r.running) == 0 {
		t.Error("no load run is at work: a round was without subscribers")
	}
	if n := len(r.running); n > 0 && time.Since(r.running[n-1].began) < legAlone {
		return
	}
	p := s.play(t, "--speed", "0.5", "--duration", legSends.String(), "--no-noisy")
	r.running = append(r.running, p)
	eventually(t, "the next load run begins", func() bool { return strings.Contains(p.out.String(), " offered ") || len(p.done) > 0 }, p.out.String)
}

// end waits for the load runs that are at work.
func (r *relay) end(t *testing.T) {
	t.Helper()
	for _, p := range r.running {
		p.wait(t)
	}
	r.ended += len(r.running)
	t.Logf("%d load runs", r.ended)
}

// compareRecords waits until every record is where it must be.
func (s *site) compareRecords(t *testing.T, ledger string) {
	t.Helper()
	checker := filepath.Join(t.TempDir(), "audit_records")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", checker, "./audit_records").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() {
		if c, ok := s.stack.(*containersStack); ok && t.Failed() {
			for _, p := range c.roles.procs {
				t.Logf("%s printed:\n%s", p.name, tail(p.out.String()))
			}
		}
	})
	var out []byte
	within(t, 3*time.Minute, "every record is accounted for", func() (ok bool) { // what was killed last has a little to catch up
		cmd := exec.CommandContext(t.Context(), checker, "--kafka", s.at().Kafka, "--clickhouse", s.at().ClickHouse, "--ledger", ledger, "--every")
		var err error
		out, err = cmd.CombinedOutput()
		return err == nil
	}, func() string { return string(out) })
	t.Logf("%s", out)
}

func number(t *testing.T, variable string, usual int64) int64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return usual
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// A journal is a file of JSON objects, one a line.
type journal struct{ file *os.File }

func create(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// write appends one line; a short line is written whole, also by several at
// once.
func (j journal) write(t testing.TB, v any) {
	line, err := json.Marshal(v)
	if err == nil {
		_, err = j.file.Write(append(line, '\n'))
	}
	if err != nil {
		t.Error(err)
	}
}
