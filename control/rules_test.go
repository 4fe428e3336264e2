package control

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/spillway/spillway/schemas"
)

// there is what the table of TestRules changes.
func there() map[key]entry {
	return map[key]entry{
		{KindTenant, "*"}:      {1, schemas.DefaultPolicy([]string{"eu"})},
		{KindTenant, "acme"}:   {2, schemas.Policy{Quota: 5, MaxConnections: 3}},
		{KindTenant, "user"}:   {2, schemas.Policy{Slow: schemas.Rate{Rate: 60}, Types: map[string]schemas.Type{"a.B": {Class: "slow", Endpoint: "used"}}}},
		{KindEndpoint, "gpt"}:  {3, schemas.Endpoint{URL: "http://x", Capacity: 100}},
		{KindEndpoint, "used"}: {3, schemas.Endpoint{URL: "http://x", Capacity: 100}},
	}
}

func TestRules(t *testing.T) {
	fast := func(r schemas.Rate) schemas.Policy { return schemas.Policy{Quota: 5, MaxConnections: 3, Fast: r} }
	typ := func(v schemas.Type) schemas.Policy {
		return schemas.Policy{Quota: 5, MaxConnections: 3, Types: map[string]schemas.Type{"a.B": v}}
	}
	bound := schemas.Policy{Fast: schemas.Rate{Rate: 1}, Quota: 1}
	for _, c := range []struct {
		kind  Kind
		name  string
		value any
		want  string
	}{
		{KindTenant, "acme", fast(schemas.Rate{Rate: -1}), "acme.fast.rate: must be > 0, got -1"},
		{KindTenant, "acme", fast(schemas.Rate{Rate: math.NaN()}), "acme.fast.rate: must be a number, got NaN"},
		{KindTenant, "acme", fast(schemas.Rate{Rate: math.Inf(1)}), "acme.fast.rate: must be a number, got +Inf"},
		{KindTenant, "acme", fast(schemas.Rate{Rate: 1e9}), "acme.fast.rate: must be 0.001 to 1e+06 a second, got 1e+09"},
		{KindTenant, "acme", fast(schemas.Rate{Burst: -3}), "acme.fast.burst: must be 0 (one second of rate) to 10000000, got -3"},
		{KindTenant, "acme", fast(schemas.Rate{Rate: 1, Burst: 86401}), "acme.fast.burst: 86401 at 1 a second take longer than 24h0m0s to come back"},
		{KindTenant, "acme", fast(schemas.Rate{Overflow: "queue"}), `acme.fast.overflow: must be shape or drop, got "queue"`},
		{KindTenant, "acme", fast(schemas.Rate{MaxBacklog: schemas.Duration(73 * time.Hour)}), "acme.fast.max_backlog: must be whole milliseconds up to 72h0m0s, got 73h0m0s"},
		{KindTenant, "acme", schemas.Policy{State: "off"}, `acme.state: must be active or suspended, got "off"`},
		{KindTenant, "acme", schemas.Policy{Open: true}, "acme.open: only the policy of * may be open"},
		{KindTenant, "acme", schemas.Policy{Quota: -1}, "acme.quota: must be 0 (none) to 1000000000000, got -1"},
		{KindTenant, "acme", schemas.Policy{MaxConnections: 3}, "acme.quota: a limit may be changed but not lifted: it was 5"},
		{KindTenant, "acme", schemas.Policy{Quota: 6}, "acme.max_connections: a limit may be changed but not lifted: it was 3"},
		{KindTenant, "acme", schemas.Policy{Regions: []string{"eu", "mars"}}, "acme.regions[1]: there is no region mars; there is [eu us]"},
		{KindTenant, "acme", schemas.Policy{Regions: []string{"eu", "eu"}}, "acme.regions[1]: eu is named twice"},
		{KindTenant, "a/b", schemas.Policy{}, `"a/b": a name is 1 to 64 of A-Z a-z 0-9 . _ -`},
		{KindTenant, "acme", typ(schemas.Type{Class: "medium"}), `acme.types[a.B].class: must be fast or slow, got "medium"`},
		{KindTenant, "acme", typ(schemas.Type{Class: "slow"}), "acme.types[a.B].endpoint: a slow type must name who works on it"},
		{KindTenant, "acme", typ(schemas.Type{Class: "slow", Endpoint: "no"}), "acme.types[a.B].endpoint: there is no endpoint no"},
		{KindTenant, "acme", typ(schemas.Type{Order: "loose"}), `acme.types[a.B].order: must be strict or absent, got "loose"`},
		{KindTenant, "acme", typ(schemas.Type{Class: "fast", Order: "strict"}), "acme.types[a.B].order: is for slow types: a fast one is always in order"},
		{KindTenant, "acme", typ(schemas.Type{Channel: "c.{x"}), "acme.types[a.B].channel: { without } at byte 2"},
		{KindTenant, "acme", typ(schemas.Type{Channel: "c}"}), "acme.types[a.B].channel: } without { at byte 1"},
		{KindTenant, "acme", typ(schemas.Type{ID: "{}"}), "acme.types[a.B].id: {} names no field, at byte 0"},
		{KindTenant, "acme", typ(schemas.Type{ID: "{a.b}"}), "acme.types[a.B].id: a field is letters, digits and _, at byte 2"},
		{KindTenant, "acme", typ(schemas.Type{Class: "slow", Endpoint: "gpt", Order: "strict", Channel: "c.{x}.{y_1}", ID: "{id}"}), ""},
		{KindTenant, "*", nil, "*: the default policy can be changed but not deleted"},
		{KindTenant, "*", schemas.Policy{Fast: schemas.Rate{Rate: 50}}, ""},
		{KindTenant, "acme", nil, ""},
		{KindTenant, "ghost", nil, "ghost: there is no tenant of that name"},
		{KindEndpoint, "gpt", nil, ""},
		{KindEndpoint, "used", nil, "used: it is still used by tenant/user"},
		{KindEndpoint, "gpt", schemas.Endpoint{URL: "ftp://x"}, `gpt.url: must be http://host… or https://host…, got "ftp://x"`},
		{KindEndpoint, "gpt", schemas.Endpoint{URL: "http://u:p@x"}, "gpt.url: must hold no password and no fragment"},
		{KindEndpoint, "gpt", schemas.Endpoint{URL: "http://x", Timeout: schemas.Duration(time.Hour)}, "gpt.timeout: must be whole milliseconds up to 30m0s, got 1h0m0s"},
		{KindEndpoint, "gpt", schemas.Endpoint{URL: "http://x", MaxConcurrency: -1}, "gpt.max_concurrency: must be 0 (default) to 100000, got -1"},
		{KindEndpoint, "gpt", schemas.Endpoint{URL: "http://x", Capacity: -1}, "gpt.capacity: must be 0 (unknown) to 1e+06 a second, got -1"},
		{KindEndpoint, "gpt", schemas.Endpoint{URL: "http://x", Format: "soap"}, `gpt.format: must be openai or absent, got "soap"`},
		{KindFlag, "f", Flag{Patch: bound}, "f.tenants: must name 1 to 1000 tenants, got 0"},
		{KindFlag, "f", Flag{Tenants: []string{"acme", "nobody"}, Patch: bound}, `f.tenants[1]: there is no tenant "nobody"`},
		{KindFlag, "f", Flag{Tenants: []string{"acme"}, Patch: schemas.Policy{Quota: 1}}, "f.patch: a flag must bind what it lets in: fast.rate or slow.rate is missing"},
		{KindFlag, "f", Flag{Tenants: []string{"acme"}, Patch: schemas.Policy{Fast: schemas.Rate{Rate: 1}}}, "f.patch.quota: a flag must bind what it lets in: a quota is missing"},
		{KindFlag, "f", Flag{Tenants: []string{"*"}, Patch: schemas.Policy{Fast: schemas.Rate{Rate: 1}, Quota: 1, Types: map[string]schemas.Type{"x": {Class: "slow"}}}}, "f.patch.types[x].endpoint: a slow type must name who works on it"},
		{KindFlag, "f", Flag{Tenants: []string{"acme"}, Patch: bound}, ""},
	} {
		_, err := newPlan(there(), []change{{key{c.kind, c.name}, c.value, anyVersion}}, []string{"eu", "us"})
		got := ""
		if err != nil {
			got = err.Error()
			var refused *Error
			if !errors.As(err, &refused) || refused.Code == "" {
				t.Errorf("%s: no code", got)
			}
		}
		if got != c.want {
			t.Errorf("%s/%s %+v:\n got %s\nwant %s", c.kind, c.name, c.value, got, c.want)
		}
	}
}

func TestChangesAreCheckedTogether(t *testing.T) {
	p, err := newPlan(there(), []change{
		{key{KindEndpoint, "new"}, schemas.Endpoint{URL: "http://x"}, noVersion},
		{key{KindTenant, "beta"}, schemas.Policy{Types: map[string]schemas.Type{"a": {Class: "slow", Endpoint: "new"}}}, noVersion},
		{key{KindTenant, "user"}, nil, anyVersion},
		{key{KindEndpoint, "used"}, nil, anyVersion},
	}, nil)
	if err != nil || len(p.changes) != 4 {
		t.Errorf("%+v, %v", p.changes, err)
	}
}

func TestOverbookingIsAWarning(t *testing.T) {
	book := schemas.Policy{Slow: schemas.Rate{Rate: 60}, Types: map[string]schemas.Type{
		"a": {Class: "slow", Endpoint: "used"}, "b": {Class: "slow", Endpoint: "used"},
	}}
	p, err := newPlan(there(), []change{{key{KindTenant, "beta"}, book, anyVersion}}, nil)
	if want := "endpoint/used: its capacity is 100/s, tenants are promised 120/s"; err != nil || strings.Join(p.warnings, "\n") != want {
		t.Errorf("%q, %v", p.warnings, err)
	}
	again, err := newPlan(p.entries, []change{{key{KindTenant, "acme"}, schemas.Policy{Quota: 6, MaxConnections: 3}, anyVersion}}, nil)
	if err != nil || again.warnings != nil {
		t.Errorf("warned again for what is not new: %q, %v", again.warnings, err)
	}
}
