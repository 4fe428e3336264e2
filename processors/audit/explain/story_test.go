package explain

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spillway/spillway/schemas"
)

var rewrite = flag.Bool("rewrite", false, "write testdata anew; read the diff")

var (
	topic  = schemas.TopicID{1, 2, 3, 4}
	origin = schemas.Origin{Topic: topic, Partition: 3, Offset: 4711, AcceptedAt: 1_790_000_000_000}
)

func accepted() Accepted {
	return Accepted{Origin: origin, Tenant: "acme", ID: "ev-1", Type: "demo.Message", Channel: "chat.1", Source: "/shop", SchemaID: 7, Bytes: 123, TraceID: "4bf92f3577b34da6a3ce929d0e0e4736"}
}

// said is a transition of the event, ms after it was accepted.
func said(ms int64, status schemas.Status, path string, reason schemas.Reason) schemas.Transition {
	return schemas.Transition{
		Tenant: "acme", Origin: origin, EventID: "ev-1", Status: status, Path: path, Reason: reason, At: origin.AcceptedAt + ms, LatencyUS: ms*1000 + 250,
		Node: "r1", Home: 3, Cursor: -1,
	}
}

func through(ms, cursor int64) schemas.Transition {
	t := said(ms, schemas.Processing, "fast", "")
	t.Cursor = cursor
	return t
}

func receipt(node string, cursor int64, sessions int32, us int64) Receipt {
	return Receipt{
		Tenant: "acme", Home: 3, Epoch: schemas.Epoch(topic, 3), Cursor: cursor, Region: "eu", Node: node, Appended: origin.AcceptedAt, At: origin.AcceptedAt + 900,
		Sessions: sessions, LatencyUS: us,
	}
}

func work(ms int64, status schemas.Status, attempt int32, reason schemas.Reason) schemas.Transition {
	t := said(ms, status, "slow", reason)
	t.Attempt, t.Node = attempt, "w1"
	return t
}

const later = 120_000 // ms after which a story is asked for

func stories() map[string]Facts {
	duplicate := accepted()
	duplicate.Origin.Offset, duplicate.Origin.AcceptedAt = 4720, origin.AcceptedAt+2000
	again := said(0, schemas.Dup, "", schemas.Duplicate)
	again.Origin, again.At = duplicate.Origin, duplicate.Origin.AcceptedAt
	redriven := work(7000, schemas.Delivered, 0, "")
	redriven.Generation, redriven.Replay = 1, "redrive-9"
	late := receipt("f1", 4802, 1, 3000)
	late.Appended = origin.AcceptedAt + 1200
	replayed := through(50_000, 5000)
	replayed.Replay = "replay-3"
	clock := accepted()
	clock.Time = "9999-12-31T23:59:59Z"
	stale := said(1300, schemas.Dup, "", schemas.StaleReturn)
	return map[string]Facts{
		"accepted":   {Accepted: []Accepted{accepted()}},
		"delivered":  {Accepted: []Accepted{accepted()}, Transitions: []schemas.Transition{through(1, 4711)}, Receipts: []Receipt{receipt("f2", 4711, 1, 9100), receipt("f1", 4711, 2, 6400), receipt("f1", 9999, 7, 1)}},
		"unclaimed":  {Accepted: []Accepted{accepted()}, Transitions: []schemas.Transition{through(1, 4711)}, Now: origin.AcceptedAt + later},
		"just now":   {Accepted: []Accepted{accepted()}, Transitions: []schemas.Transition{through(1, 4711)}, Now: origin.AcceptedAt + 300},
		"again":      {Accepted: []Accepted{accepted()}, Transitions: []schemas.Transition{through(1, 4711)}, Receipts: []Receipt{receipt("f1", 4711, 2, 6400), receipt("f1", 4711, 1, 3_600_000_000)}},
		"came later": {Accepted: []Accepted{accepted()}, Transitions: []schemas.Transition{through(1, 4711)}, Receipts: []Receipt{receipt("f1", 4711, 1, 3_600_000_000)}},
		"odd clock":  {Accepted: []Accepted{clock}, Transitions: []schemas.Transition{through(1, 4711)}, Receipts: []Receipt{receipt("f1", 4711, 2, 6400)}},
		"no payload": {Transitions: []schemas.Transition{through(1, 4711)}, Receipts: []Receipt{receipt("f1", 4711, 2, 6400)}},
		"overflow": {Accepted: []Accepted{accepted()}, Transitions: []schemas.Transition{said(0, schemas.Pending, "overflow", schemas.RateLimited), through(1200, 4802), stale},
			Receipts: []Receipt{late}},
		"waiting":   {Accepted: []Accepted{accepted()}, Transitions: []schemas.Transition{said(0, schemas.Pending, "wait", schemas.AwaitSchema), said(16_100, schemas.Pending, "overflow", schemas.Behind)}},
		"duplicate": {Accepted: []Accepted{accepted(), duplicate}, Transitions: []schemas.Transition{again, through(1, 4711)}, Receipts: []Receipt{receipt("f1", 4711, 2, 6400)}},
		"dropped":   {Accepted: []Accepted{accepted()}, Transitions: []schemas.Transition{said(0, schemas.Dropped, "", schemas.RateLimited)}},
		"worker": {Accepted: []Accepted{accepted()}, Transitions: []schemas.Transition{
			said(0, schemas.Pending, "slow", ""), work(5, schemas.Processing, 0, ""), work(900, schemas.Failed, 0, "timeout"), work(1900, schemas.Processing, 1, ""), work(2300, schemas.DeadStatus, 1, "endpoint_refused"), redriven},
			Letters: []Letter{{Origin: origin, Tenant: "acme", ID: "ev-1", Attempt: 1, Reason: "endpoint_refused", Error: "422 from the endpoint", Step: "work", At: origin.AcceptedAt + 2301}}},
		"replayed":  {Accepted: []Accepted{accepted()}, Transitions: []schemas.Transition{through(1, 4711), replayed}, Receipts: []Receipt{receipt("f1", 4711, 1, 6400)}},
		"cancelled": {Accepted: []Accepted{accepted()}, Transitions: []schemas.Transition{said(60, schemas.Cancelled, "", "")}},
		"hostile":   {Letters: []Letter{{Origin: origin, Tenant: "\x1b[2J", ID: strings.Repeat("x", 500), Reason: schemas.TenantIllegal, Error: "key \x00\xff", Step: "valid", At: origin.AcceptedAt + 2}}},
	}
}

func TestStoriesGolden(t *testing.T) {
	var out strings.Builder
	all := stories()
	for _, name := range sorted(all) {
		fmt.Fprintf(&out, "# %s\n%s\n", name, tell(all[name]))
	}
	golden(t, "stories.txt", out.String())
}

// TestReasonsGolden tells the story of an event for each reason that an event
// can have; none may be without a sentence, and none that is final without
// advice.
func TestReasonsGolden(t *testing.T) {
	var out strings.Builder
	for _, reason := range sorted(schemas.Reasons()) {
		if advice[reason] == "" {
			continue // a request's or a connection's: TestReasonsAreWhole
		}
		f := Facts{Accepted: []Accepted{accepted()}, Now: origin.AcceptedAt + later}
		switch reason {
		case schemas.RateLimited, schemas.Behind:
			f.Transitions = []schemas.Transition{said(0, schemas.Pending, "overflow", reason)}
		case schemas.AwaitSchema, schemas.AwaitTenant:
			f.Transitions = []schemas.Transition{said(0, schemas.Pending, "wait", reason)}
		case schemas.Duplicate:
			f.Transitions = []schemas.Transition{said(0, schemas.Dup, "", reason)}
		default:
			f.Transitions = []schemas.Transition{said(0, schemas.DeadStatus, "", reason)}
			f.Letters = []Letter{{Origin: origin, Tenant: "acme", ID: "ev-1", Reason: reason, Error: "what was wrong", Step: "valid", At: origin.AcceptedAt + 2}}
		}
		fmt.Fprintf(&out, "# %s\n%s\n", reason, tell(f))
	}
	golden(t, "reasons.txt", out.String())
}

// TestReasonsAreWhole holds advice and the vocabulary together: what kills an
// event or makes it wait has advice.
func TestReasonsAreWhole(t *testing.T) {
	requests := []schemas.Reason{
		schemas.StaleReturn, schemas.ForgedReturn, schemas.Malformed, schemas.AuthRequired, schemas.AuthFailed, schemas.TokenExpired, schemas.Forbidden,
		schemas.NotFound, schemas.MethodNotAllowed, schemas.Conflict, schemas.KafkaUnavailable, schemas.RegistryDown, schemas.AuditUnavailable,
		schemas.Overloaded, schemas.BadFrame, schemas.VersionUnknown, schemas.ChannelIllegal, schemas.ChannelLimit, schemas.CursorIllegal,
		schemas.ConnectionLimit, schemas.Draining, schemas.Moved, schemas.Slow, schemas.Idle, schemas.Internal,
	}
	for reason, text := range schemas.Reasons() {
		if text == "" {
			t.Errorf("%s has no sentence", reason)
		}
		if slices.Contains(requests, reason) == (advice[reason] != "") {
			t.Errorf("%s: advice %q; either it is a reason of requests, or it has advice", reason, advice[reason])
		}
	}
	for reason := range advice {
		if reason.Text() == "" {
			t.Errorf("advice about %q, which is no reason", reason)
		}
	}
}

// TestOrderAndRepeatsDoNotMatter: facts come from tables and topics in any
// order, and more than once after a crash.
func TestOrderAndRepeatsDoNotMatter(t *testing.T) {
	for name, f := range stories() {
		want := tell(f).String()
		for seed := range uint64(20) {
			r := rand.New(rand.NewPCG(seed, 1))
			g := Facts{
				Now: f.Now, Accepted: shuffledTwice(r, f.Accepted), Transitions: shuffledTwice(r, f.Transitions),
				Letters: shuffledTwice(r, f.Letters), Receipts: shuffledTwice(r, f.Receipts),
			}
			if got := tell(g).String(); got != want {
				t.Fatalf("%s, seed %d:\n%s\nwant:\n%s", name, seed, got, want)
			}
		}
	}
}

func shuffledTwice[T any](r *rand.Rand, in []T) []T {
	out := append(slices.Clone(in), in...)
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func sorted[K ~string, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run with -rewrite and read the diff. Got:\n%s", path, got)
	}
}

func TestParseOrigin(t *testing.T) {
	if o, ok := parseOrigin(origin.String()); !ok || placeOf(o) != placeOf(origin) {
		t.Errorf("%v %v", o, ok)
	}
	for _, s := range []string{"", "ev-1", origin.String() + " ", origin.String() + "/1", "AQIDBAAAAAAAAAAAAAAAAA/1", "AQIDBAAAAAAAAAAAAAAAAA/01/1", "AQIDBAAAAAAAAAAAAAAAAA/1/99999999999999999999"} {
		if o, ok := parseOrigin(s); ok {
			t.Errorf("%q is %v", s, o)
		}
	}
}
