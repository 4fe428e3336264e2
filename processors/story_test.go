package processors

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spillway/spillway/schemas"
)

var rewrite = flag.Bool("rewrite", false, "write what happened into testdata; read the diff")

// TestStories plays testdata/*.txt: lines of commands and records, each record
// followed by the decision on it.
//
//	# a comment
//	partitions 4                 of events; 1 unless told
//	policy acme {"fast":…}       under the policy of *, which is active in region eu
//	forget acme                  control knows no such tenant any more
//	age 5s                       control was read to its end so long ago (never: -1s)
//	schema 7 demo.Message        the registry's cache has it
//	absent 9 3s                  the registry answered 3 s ago that there is none
//	keys 100                     begins a new state with this bound
//	begin, commit, rollback      a batch
//	1.5s acme id=a channel=c     a record: append time, key, attributes
//	deliver eu                   the decision
//
// A record lies on its key's home partition, unless p=N, at the next offset.
// Its value is schema 1 and the body {}, unless schema=, data= or value= say
// else. return=KIND makes it a signed return: of the event at offset N of this
// story (back=N), or of an older one (origin=P/OFFSET@TIME).
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { playFile(t, file) })
	}
}

func playFile(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p := newPlayer(t)
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	var out bytes.Buffer
	for i := 0; i < len(lines); i++ {
		if isDecision(lines[i]) {
			if !*rewrite {
				t.Errorf("%s:%d: a decision on nothing: %s", file, i+1, lines[i])
			}
			continue
		}
		fmt.Fprintln(&out, lines[i])
		got := p.line(lines[i])
		if got == "" {
			continue
		}
		fmt.Fprintln(&out, got)
		if next := i + 1; next < len(lines) && isDecision(lines[next]) {
			if i = next; lines[i] != got && !*rewrite {
				t.Errorf("%s:%d: %s\n got  %s\n want %s", file, next, lines[next-1], got, lines[next])
			}
		} else if !*rewrite {
			t.Errorf("%s:%d: no decision follows; got %s", file, next, got)
		}
	}
	if *rewrite {
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func isDecision(line string) bool {
	word, _, _ := strings.Cut(line, " ")
	for _, v := range verdictNames {
		if word == v {
			return true
		}
	}
	return false
}

// storyStart is the time 0s of all stories: midnight, UTC.
var storyStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(t testing.TB, d string) int64 {
	v, err := time.ParseDuration(d)
	if err != nil {
		t.Fatal(err)
	}
	return storyStart.Add(v).UnixMilli()
}

// A player is one line, one state a partition, and what they consult.
type player struct {
	t          testing.TB
	steps      Line
	states     map[int32]*State
	control    *fakeTenants
	registry   fakeSchemas
	maxKeys    int
	ev         Event
	offset     int64
	origins    []schemas.Origin
	partitions int32
}

func newPlayer(t testing.TB) *player {
	p := &player{
		t: t, control: &fakeTenants{policies: map[string]*schemas.Policy{}}, registry: fakeSchemas{},
		states: map[int32]*State{}, partitions: 1,
	}
	p.control.everyone = schemas.DefaultPolicy([]string{"eu"})
	p.control.set("acme", schemas.Policy{})
	p.registry[1] = fakeAnswer{schema: fakeSchema("demo.Message")}
	p.rebuild()
	return p
}

func (p *player) rebuild() {
	line, err := New(Config{Partitions: p.partitions, Key: []byte("0123456789abcdef"), Tenants: p.control, Schemas: p.registry})
	if err != nil {
		p.t.Fatal(err)
	}
	p.steps = line
}

// line plays one line and returns the decision if it was a record.
func (p *player) line(s string) string {
	f := strings.Fields(s)
	if len(f) == 0 || f[0] == "#" {
		return ""
	}
	switch f[0] {
	case "partitions":
		p.partitions = int32(p.number(f[1]))
		p.rebuild()
	case "policy":
		var policy schemas.Policy
		if err := json.Unmarshal([]byte(strings.Join(f[2:], " ")), &policy); err != nil {
			p.t.Fatal(s, err)
		}
		p.control.set(f[1], policy)
	case "forget":
		delete(p.control.policies, f[1])
	case "age":
		p.control.age = at(p.t, f[1]) - at(p.t, "0s")
	case "schema":
		p.registry[int32(p.number(f[1]))] = fakeAnswer{schema: fakeSchema(f[2])}
	case "absent":
		p.registry[int32(p.number(f[1]))] = fakeAnswer{noAge: at(p.t, f[2]) - at(p.t, "0s")}
	case "keys":
		p.maxKeys, p.states = int(p.number(f[1])), map[int32]*State{}
	case "begin", "commit":
		for _, st := range p.states {
			st.Commit()
		}
	case "rollback":
		for _, st := range p.states {
			st.Rollback()
		}
	default:
		return p.record(f)
	}
	return ""
}

func (p *player) number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// headersOf maps the stories' short attribute names to headers.
var headersOf = map[string]string{
	"id": schemas.HeaderID, "source": schemas.HeaderSource, "type": schemas.HeaderType, "channel": schemas.HeaderSubject,
	"time": schemas.HeaderTime, "tenant": schemas.HeaderTenant, "region": schemas.HeaderRegion, "class": schemas.HeaderPriority,
	"key": schemas.HeaderIdempotencyKey, "dataschema": schemas.HeaderDataSchema, "content": schemas.HeaderContentType,
}

func (p *player) record(f []string) string {
	attrs := map[string]string{}
	for _, a := range f[2:] {
		k, v, _ := strings.Cut(a, "=")
		attrs[k] = v
	}
	key := []byte(strings.TrimPrefix(f[1], "-")) // "-" is no key
	part := schemas.HomePartition(key, p.partitions)
	if v, ok := attrs["p"]; ok {
		part = int32(p.number(v))
	}
	origin := schemas.Origin{Topic: schemas.TopicID{1}, Partition: part, Offset: p.offset, AcceptedAt: at(p.t, f[0])}
	p.offset++
	p.ev.Reset(origin, "events", key, p.value(attrs))
	for k, v := range attrs {
		if header, ok := headersOf[k]; ok {
			p.ev.SetHeader(header, []byte(v))
		} else if strings.HasPrefix(k, "ce_") {
			p.ev.SetHeader(k, []byte(v))
		}
	}
	_, p.ev.Transactional = attrs["transactional"]
	if kind := attrs["return"]; kind != "" {
		p.ev.Returned(p.returned(kind, attrs))
	}
	p.origins = append(p.origins, p.ev.Origin)
	st := p.states[part]
	if st == nil {
		st = NewState(p.maxKeys)
		p.states[part] = st
	}
	return describe(&p.ev, p.steps.Walk(&p.ev, st), p.partitions)
}

func (p *player) value(attrs map[string]string) []byte {
	if v, ok := attrs["value"]; ok {
		return []byte(v)
	}
	if n, ok := attrs["size"]; ok {
		return append([]byte{0, 0, 0, 0, 1}, bytes.Repeat([]byte(" "), int(p.number(n))-5)...)
	}
	id := int64(1)
	if v, ok := attrs["schema"]; ok {
		id = p.number(v)
	}
	body := "{}"
	if v, ok := attrs["data"]; ok {
		body = v
	}
	return append(schemas.AppendWireHeader(nil, int32(id)), body...)
}

func (p *player) returned(kind string, attrs map[string]string) schemas.Return {
	r := schemas.Return{Kind: schemas.ReturnKind(kind), Job: attrs["job"]}
	if v, ok := attrs["back"]; ok {
		r.Origin = p.origins[p.number(v)]
	} else {
		var when string
		if _, err := fmt.Sscanf(strings.ReplaceAll(attrs["origin"], "@", " "), "%d/%d %s", &r.Origin.Partition, &r.Origin.Offset, &when); err != nil {
			p.t.Fatalf("origin %q: %v", attrs["origin"], err)
		}
		r.Origin.Topic, r.Origin.AcceptedAt = schemas.TopicID{1}, at(p.t, when)
	}
	if v, ok := attrs["generation"]; ok {
		r.Generation = int(p.number(v))
	}
	r.Of = schemas.Place{Topic: "overflow", Offset: r.Origin.Offset}
	if v, ok := attrs["of"]; ok {
		r.Of.Offset = p.number(v)
	}
	return r
}

// describe prints a decision: verdict, step and reason, and what goes with it.
func describe(ev *Event, d Decision, partitions int32) string {
	var b strings.Builder
	b.WriteString(d.Verdict.String())
	switch d.Verdict {
	case Deliver:
		fmt.Fprintf(&b, " %s", strings.Join(ev.Regions, ","))
	case Work:
		fmt.Fprintf(&b, " %s", ev.Endpoint)
	case Forward:
		fmt.Fprintf(&b, " to %d", schemas.HomePartition([]byte(ev.Tenant), partitions))
	case Overflow:
		fmt.Fprintf(&b, " %s due %s", d.Reason, time.UnixMilli(ev.Due).UTC().Sub(storyStart))
	default:
		fmt.Fprintf(&b, " %s %s", d.Step, d.Reason)
	}
	if (d.Verdict == Deliver || d.Verdict == Work) && ev.Channel != schemas.DefaultChannel {
		fmt.Fprintf(&b, " channel=%s", ev.Channel)
	}
	if d.Detail != "" {
		fmt.Fprintf(&b, ": %s", d.Detail)
	}
	return b.String()
}

type fakeTenants struct {
	everyone schemas.Policy
	policies map[string]*schemas.Policy
	age      int64
}

func (f *fakeTenants) set(name string, p schemas.Policy) {
	if name == schemas.Everyone {
		f.everyone = p.Under(f.everyone)
		return
	}
	p = p.Under(f.everyone)
	f.policies[name] = &p
}

func (f *fakeTenants) Policy(tenant string) (*schemas.Policy, bool) {
	p, ok := f.policies[tenant]
	return p, ok
}
func (f *fakeTenants) Age() int64 { return f.age }

type fakeAnswer struct {
	schema Schema
	noAge  int64
}

type fakeSchemas map[int32]fakeAnswer

func (f fakeSchemas) Schema(id int32) (Schema, int64) {
	a, ok := f[id]
	if !ok {
		return nil, -1
	}
	return a.schema, a.noAge
}

// fakeSchema is a schema of this name whose bodies are JSON objects already.
type fakeSchema string

func (s fakeSchema) Name() string { return strings.TrimPrefix(string(s), "-") }

func (s fakeSchema) AppendJSON(dst, body []byte, max int) ([]byte, schemas.Reason, string) {
	switch {
	case len(body) > max:
		return dst, schemas.TooLarge, "JSON exceeds the bound"
	case !json.Valid(body):
		return dst, schemas.SchemaMismatch, "text: want string, got the end of the value"
	}
	return append(dst, body...), "", ""
}

func (s fakeSchema) AppendField(dst, body []byte, name string) ([]byte, bool) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return dst, false
	}
	v := strings.Trim(string(fields[name]), `"`)
	if v == "" || v == "null" {
		return dst, false
	}
	return append(dst, v...), true
}
