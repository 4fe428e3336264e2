package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// serve runs a control role and returns it with its address.
func serve(t *testing.T, kafka []kgo.Opt, with func(*Config)) (*Control, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Kafka: kafka, Topics: topics, Partitions: 3, Regions: []string{"eu"}, Listener: l, Logger: quiet()}
	if with != nil {
		with(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	run(t, c.Run)
	until(t, "control is ready", func() bool { return c.Ready() == nil })
	return c, "http://" + l.Addr().String()
}

type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) refusal(t *testing.T) Error {
	t.Helper()
	var out struct{ Error Error }
	if err := json.Unmarshal([]byte(r.body), &out); err != nil {
		t.Fatalf("%d %s: %v", r.status, r.body, err)
	}
	return out.Error
}

func ask(t *testing.T, method, url, body string, headers ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(text)}
}

func TestAPITellsOneTenantsLife(t *testing.T) {
	_, url := serve(t, controlTopic(t), nil)
	acme := url + "/v1/tenants/acme"
	if r := ask(t, "GET", acme, ""); r.status != 404 || r.refusal(t).Code != schemas.NotFound {
		t.Errorf("before: %+v", r)
	}
	r := ask(t, "PUT", acme, `{"fast":{"rate":10}}`, "If-None-Match", "*", "X-Correlation-Id", "me-1")
	tag := r.header.Get("ETag")
	if r.status != 200 || tag == "" || r.header.Get("X-Correlation-Id") != "me-1" || !strings.Contains(r.body, `"+ tenant/acme"`) {
		t.Fatalf("create: %+v", r)
	}
	if r := ask(t, "GET", acme, ""); r.header.Get("ETag") != tag || !strings.Contains(r.body, `"spec":{"fast":{"rate":10}}`) {
		t.Errorf("read: %+v", r)
	}
	if r := ask(t, "PUT", acme+"?dry_run=1", `{"fast":{"rate":20}}`); r.status != 200 || !strings.Contains(r.body, "fast.rate 10 → 20") || r.header.Get("ETag") != "" {
		t.Errorf("dry run: %+v", r)
	}
	if r := ask(t, "PUT", acme, `{"fast":{"rate":30}}`, "If-Match", tag); r.status != 200 || r.header.Get("ETag") == tag {
		t.Errorf("change: %+v", r)
	}
	if r := ask(t, "PUT", acme, `{"fast":{"rate":40}}`, "If-Match", tag); r.status != 412 || r.refusal(t).Code != schemas.Conflict {
		t.Errorf("old version: %+v", r)
	}
	if r := ask(t, "PUT", acme, `{"fast":{"rate":-1}}`); r.status != 422 || r.refusal(t).Path != "acme.fast.rate" || r.header.Get("X-Correlation-Id") == "" {
		t.Errorf("bad rate: %+v", r)
	}
	if r := ask(t, "PUT", acme, `{"fast":{"rate":1},"color":"red"}`); r.status != 400 || !strings.Contains(r.refusal(t).Message, "color") {
		t.Errorf("unknown field: %+v", r)
	}
	if r := ask(t, "PUT", acme, `{"fast":{"rate":"many"}}`); r.status != 400 || r.refusal(t).Path != "fast.rate" {
		t.Errorf("wrong type: %+v", r)
	}
	if r := ask(t, "PUT", acme, `{} {}`); r.status != 400 {
		t.Errorf("two values: %+v", r)
	}
	if r := ask(t, "PUT", acme, `{}`, "Content-Type", "text/plain"); r.status != 415 {
		t.Errorf("as a form would: %+v", r)
	}
	if r := ask(t, "POST", acme, `{}`); r.status != 405 || r.header.Get("Allow") != "GET, PUT, DELETE" {
		t.Errorf("POST: %+v", r)
	}
	if r := ask(t, "GET", acme, "", "Host", "evil.example"); r.status != 403 {
		t.Errorf("rebound name: %+v", r)
	}
	if r := ask(t, "POST", url+"/v1/secrets/rotate", ""); r.status != 200 || strings.Contains(r.body, "key") {
		t.Errorf("rotate: %+v", r)
	}
	if r := ask(t, "GET", url+"/v1/tenants", ""); !strings.Contains(r.body, `"name":"*"`) || strings.Contains(r.body, "secret") {
		t.Errorf("list: %+v", r)
	}
	if r := ask(t, "DELETE", acme, ""); r.status != 200 {
		t.Errorf("delete: %+v", r)
	}
	if r := ask(t, "GET", acme, ""); r.status != 404 {
		t.Errorf("after: %+v", r)
	}
}

// verifier lets in "op" as operator and "cl" as client.
type verifier struct{}

func (verifier) Verify(token string) (schemas.Claims, error) {
	switch token {
	case "op":
		return schemas.Claims{Role: schemas.RoleOperator, Subject: "ann", Tenant: "*"}, nil
	case "cl":
		return schemas.Claims{Role: schemas.RoleClient, Tenant: "acme"}, nil
	}
	return schemas.Claims{}, errors.New("no such token")
}

func TestOnlyOperatorsWhereThereAreKeys(t *testing.T) {
	_, url := serve(t, controlTopic(t), func(c *Config) { c.Keys = verifier{} })
	for token, want := range map[string]int{"": 401, "Bearer x": 401, "Bearer cl": 403, "Basic op": 401, "Bearer op": 200} {
		if r := ask(t, "GET", url+"/v1/tenants", "", "Authorization", token); r.status != want {
			t.Errorf("%q: %d, want %d", token, r.status, want)
		}
	}
	if r := ask(t, "GET", url+"/v1/tenants", "", "Authorization", "Bearer cl"); !strings.Contains(r.body, "claim role") {
		t.Errorf("the refusal does not name the claim: %s", r.body)
	}
}

func TestNoForeignAddressWithoutKeys(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := New(Config{Topics: topics, Regions: []string{"eu"}, Listener: l}); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("got %v", err)
	}
	if _, err := New(Config{Topics: topics, Regions: []string{"eu"}, Listener: l, Keys: verifier{}, Kafka: []kgo.Opt{kgo.SeedBrokers("127.0.0.1:1")}}); err != nil {
		t.Errorf("with keys: %v", err)
	}
}

func TestApplyWhatGetPrintsChangesNothing(t *testing.T) {
	_, url := serve(t, controlTopic(t), nil)
	api := &Client{URL: url}
	docs, err := Load([]byte(`
kind: tenant
name: acme
spec:
  quota: 1000
  fast: {rate: 2000, max_backlog: 90s}
  types:
    jobs.Task: {class: slow, endpoint: gpt, channel: "jobs.{id}"}
---
kind: endpoint
name: gpt
spec: {url: "http://127.0.0.1:9/v1", timeout: 1m, capacity: 5}
---
kind: flag
name: beta
spec: {on: true, tenants: [acme], patch: {quota: 5, fast: {rate: 3.5}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := api.Apply(t.Context(), docs, true); err != nil || len(r.Lines) != 3 || !r.DryRun || len(r.Warnings) != 1 {
		t.Fatalf("dry run: %+v, %v", r, err)
	}
	if r, err := api.Apply(t.Context(), docs, false); err != nil || len(r.Lines) != 3 || r.Version == 0 {
		t.Fatalf("apply: %+v, %v", r, err)
	}
	all, err := api.Get(t.Context(), "", "")
	if err != nil || len(all) != 4 {
		t.Fatalf("get: %+v, %v", all, err)
	}
	text, err := Export(all)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if r, err := api.Apply(t.Context(), again, false); err != nil || len(r.Lines) != 0 {
		t.Errorf("apply of get: %+v, %v\n%s", r, err, text)
	}
	again = append(again, Document{Kind: KindTenant, Name: "bad", Spec: schemas.Policy{Quota: -1}})
	again[len(again)-2].Spec = Flag{On: false, Tenants: []string{"acme"}, Patch: schemas.Policy{Quota: 6, Fast: schemas.Rate{Rate: 1}}}
	var refused *Error
	if _, err := api.Apply(t.Context(), again, false); !errors.As(err, &refused) || refused.Path != "bad.quota" {
		t.Errorf("one bad document: %v", err)
	}
	if one, err := api.Get(t.Context(), KindFlag, "beta"); err != nil || !one[0].Spec.(Flag).On {
		t.Errorf("half of a refused apply was written: %+v, %v", one, err)
	}
	if _, err := api.Apply(t.Context(), append(docs, docs[0]), false); !errors.As(err, &refused) || !strings.Contains(refused.Message, "twice") {
		t.Errorf("repeated document: %v", err)
	}
}

func TestSecondControlTakesOver(t *testing.T) {
	kafka := controlTopic(t)
	first, url := serve(t, kafka, nil)
	second, url2 := serve(t, kafka, nil)
	r := ask(t, "PUT", url+"/v1/tenants/acme", `{}`)
	if r.status != 503 || !strings.Contains(r.body, "taken over") {
		t.Fatalf("the fenced one answers %+v", r)
	}
	until(t, "the fenced one says so", func() bool { return errors.Is(first.Ready(), errFenced) })
	if r := ask(t, "PUT", url2+"/v1/tenants/acme", `{}`); r.status != 200 || second.Ready() != nil {
		t.Errorf("the second: %+v, %v", r, second.Ready())
	}
	if r := ask(t, "GET", url2+"/v1/tenants/acme", ""); r.status != 200 {
		t.Errorf("read of the second: %+v", r)
	}
}

func TestControlRefusesAnotherP(t *testing.T) {
	kafka := controlTopic(t)
	if _, err := Bootstrap(t.Context(), boot(kafka, 6)); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Kafka: kafka, Topics: topics, Partitions: 3, Regions: []string{"eu"}, Listener: l, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Run(context.Background()); !errors.Is(err, errPartitions) {
		t.Errorf("got %v", err)
	}
}

func TestLoadSaysWhere(t *testing.T) {
	for text, want := range map[string]string{
		"# x\n---\nkind: tenant\nname: a\nspec: {rate: 1}\n":              `line 5, column 8: unknown field "rate"`,
		"kind: tenant\nname: a\nspec: {fast: {rate: x}}\n":                "line 3, column 21: cannot",
		"kind: tenant\nname: a\nspec: {fast: {max_backlog: 5}}\n":         "duration",
		"---\n---\n---\nkind: planet\nname: a\n":                          `line 3, column 1: kind: must be tenant, endpoint or flag, got "planet"`,
		"kind: tenant\nspec: {}\n":                                        "line 1, column 1: name: is missing",
		"kind: tenant\nname: a\nname: b\n":                                "line 3, column 1: ",
		"kind: tenant\nname: &x a\nspec: {state: *x}\n":                   "line 2: anchors",
		strings.Repeat("[", 60) + "\n":                                    "line 1: nested too deeply",
		strings.Repeat("- ", 60) + "\n":                                   "line 1: nested too deeply",
		"kind: tenant\nname: a\nspec: {open: maybe}\n":                    "line 3, column 14: ",
		`{"kind":"tenant","name":"a","spec":{}} {"kind":"tenant"}` + "\n": "line 1, column",
		"null\n": "line 1, column 1: ",
	} {
		docs, err := Load([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %+v, %v; want %q", text, docs, err, want)
		}
	}
	text := "---\n---\nkind: tenant\nname: a\nspec: {}\n---\n# none\n--- {kind: tenant, name: b, spec: {}}\n...\n---\nkind: tenant\nname: c\nspec: {}\n"
	if docs, err := Load([]byte(text)); err != nil || len(docs) != 3 {
		t.Errorf("empty documents between: %+v, %v", docs, err)
	}
	if docs, err := Load([]byte(`{"kind":"tenant","name":"a","version":3,"spec":{"fast":{"rate":5}}}`)); err != nil || docs[0].Version != 3 || docs[0].Spec.(schemas.Policy).Fast.Rate != 5 {
		t.Errorf("JSON: %+v, %v", docs, err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("kind: tenant\nname: acme\nspec:\n  fast: {rate: 2000, max_backlog: 1m}\n  types:\n    a.B: {class: slow, endpoint: e}\n"))
	f.Add([]byte("kind: endpoint\nname: e\nspec: {url: 'http://x', timeout: 1s}\n---\nkind: flag\nname: f\nspec: {on: true, tenants: [a], patch: {quota: 1}}\n"))
	f.Add([]byte(`{"kind":"tenant","name":"a","spec":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		docs, err := Load(text)
		if err != nil {
			return
		}
		changes := make([]change, 0, len(docs))
		for _, d := range docs {
			changes = append(changes, d.change())
		}
		if _, err := newPlan(nil, changes, nil); err != nil {
			return
		}
		// What the rules let through prints and reads back as it was.
		printed, err := Export(docs)
		if err != nil {
			t.Fatalf("%+v cannot be printed: %v", docs, err)
		}
		again, err := Load(printed)
		if err != nil {
			t.Fatalf("%v in\n%s", err, printed)
		}
		for i := range docs {
			docs[i].Version = 0
		}
		a, _ := json.Marshal(docs)
		b, _ := json.Marshal(again)
		if !bytes.Equal(a, b) && len(docs) > 0 {
			t.Fatalf("%s reads back as %s", a, b)
		}
	})
}
