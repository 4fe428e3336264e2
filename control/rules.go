package control

import (
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spillway/spillway/schemas"
)

// Bounds of what may be written.
const (
	minRate        = 0.001 // events a second: one in a quarter of an hour
	maxRate        = 1e6
	maxBurst       = 10_000_000
	maxFill        = 24 * time.Hour // burst / rate: what the line remembers
	maxBacklog     = 72 * time.Hour // well within the 7 days that overflow keeps a record
	maxQuota       = 1_000_000_000_000
	maxConnections = 1_000_000
	maxTypes       = 1000
	maxRegions     = 64
	maxTenants     = 1000 // that one flag names
	maxTemplate    = 256
	maxTimeout     = 30 * time.Minute
	maxConcurrency = 100_000
)

// rules check one change against everything that will be there with it.
type rules struct {
	entries map[key]entry
	regions []string
}

func (r rules) check(c change) error {
	name := c.key.name
	if _, err := parseKey([]byte(c.key.String())); err != nil {
		return invalid(fmt.Sprintf("%.80q", name), "a name is 1 to 64 of A-Z a-z 0-9 . _ -")
	}
	switch v := c.value.(type) {
	case nil:
		return r.deletion(c.key)
	case schemas.Policy:
		if err := r.policy(name, v, name == schemas.Everyone); err != nil || name != schemas.Everyone {
			return err
		}
		return r.inherited(v)
	case schemas.Endpoint:
		return endpoint(name, v)
	case Flag:
		return r.flag(name, v)
	}
	return nil // settings and secrets are made here
}

func (r rules) deletion(k key) error {
	switch {
	case k == key{KindTenant, schemas.Everyone}:
		return invalid(k.name, "the default policy can be changed but not deleted")
	case k.kind == KindEndpoint:
		if who := users(r.entries, k.name); who != "" {
			return invalid(k.name, "it is still used by %s", who)
		}
	}
	return nil
}

func (r rules) policy(path string, p schemas.Policy, isEveryone bool) error {
	switch {
	case p.State != "" && p.State != "active" && p.State != "suspended":
		return invalid(path+".state", "must be active or suspended, got %q", p.State)
	case p.Open && !isEveryone:
		return invalid(path+".open", "only the policy of %s may be open", schemas.Everyone)
	case p.Quota < 0 || p.Quota > maxQuota:
		return invalid(path+".quota", "must be 0 (none) to %d, got %d", int64(maxQuota), p.Quota)
	case p.MaxConnections < 0 || p.MaxConnections > maxConnections:
		return invalid(path+".max_connections", "must be 0 (none) to %d, got %d", maxConnections, p.MaxConnections)
	}
	if err := r.regionsExist(path+".regions", p.Regions); err != nil {
		return err
	}
	base, _ := everyone(r.entries)
	full := p.Under(base)
	if err := rate(path+".fast", p.Fast, full.Fast); err != nil {
		return err
	}
	if err := rate(path+".slow", p.Slow, full.Slow); err != nil {
		return err
	}
	return r.types(path+".types", p.Types)
}

// inherited checks what every other policy comes to under a new default.
func (r rules) inherited(own schemas.Policy) error {
	base := own.Under(schemas.DefaultPolicy(nil))
	for k, e := range r.entries {
		p, ok := e.value.(schemas.Policy)
		if !ok {
			continue
		}
		full := p.Under(base)
		if err := rate(k.name+".fast", p.Fast, full.Fast); err != nil {
			return err
		}
		if err := rate(k.name+".slow", p.Slow, full.Slow); err != nil {
			return err
		}
	}
	return nil
}

func (r rules) regionsExist(path string, regions []string) error {
	if len(regions) > maxRegions {
		return invalid(path, "%d at most, got %d", maxRegions, len(regions))
	}
	for i, region := range regions {
		at := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case !schemas.ValidTenant(region):
			return invalid(at, "%.80q is no region's name", region)
		case slices.Contains(regions[:i], region):
			return invalid(at, "%s is named twice", region)
		case len(r.regions) > 0 && !slices.Contains(r.regions, region):
			return invalid(at, "there is no region %s; there is %v", region, r.regions)
		}
	}
	return nil
}

// rate checks what was written, r, and what it comes to with the defaults.
func rate(path string, r, full schemas.Rate) error {
	d := time.Duration(r.MaxBacklog)
	switch {
	case math.IsNaN(r.Rate) || math.IsInf(r.Rate, 0):
		return invalid(path+".rate", "must be a number, got %v", r.Rate)
	case r.Rate < 0:
		return invalid(path+".rate", "must be > 0, got %v", r.Rate)
	case r.Rate != 0 && (r.Rate < minRate || r.Rate > maxRate):
		return invalid(path+".rate", "must be %v to %v a second, got %v", minRate, maxRate, r.Rate)
	case r.Burst < 0 || r.Burst > maxBurst:
		return invalid(path+".burst", "must be 0 (one second of rate) to %d, got %d", maxBurst, r.Burst)
	case r.Overflow != "" && r.Overflow != "shape" && r.Overflow != "drop":
		return invalid(path+".overflow", "must be shape or drop, got %.80q", r.Overflow)
	case d < 0 || d > maxBacklog || d%time.Millisecond != 0:
		return invalid(path+".max_backlog", "must be whole milliseconds up to %s, got %s", maxBacklog, d)
	case float64(full.Burst) > full.Rate*maxFill.Seconds():
		return invalid(path+".burst", "%d at %v a second take longer than %s to come back", full.Burst, full.Rate, maxFill)
	}
	return nil
}

func (r rules) types(path string, types map[string]schemas.Type) error {
	if len(types) > maxTypes {
		return invalid(path, "%d at most, got %d", maxTypes, len(types))
	}
	for _, name := range slices.Sorted(maps.Keys(types)) {
		t, at := types[name], path+"["+name+"]"
		if len(name) == 0 || len(name) > schemas.MaxAttribute || !printable(name) {
			return invalid(fmt.Sprintf("%s[%.80q]", path, name), "is no event type")
		}
		if err := r.eventType(at, t); err != nil {
			return err
		}
	}
	return nil
}

func (r rules) eventType(path string, t schemas.Type) error {
	if _, ok := schemas.ParseClass(t.Class); !ok {
		return invalid(path+".class", "must be fast or slow, got %.80q", t.Class)
	}
	_, exists := r.entries[key{KindEndpoint, t.Endpoint}]
	switch {
	case t.Class == "slow" && t.Endpoint == "":
		return invalid(path+".endpoint", "a slow type must name who works on it")
	case t.Endpoint != "" && !exists:
		return invalid(path+".endpoint", "there is no endpoint %.80s", t.Endpoint)
	case t.Order != "" && t.Order != "strict":
		return invalid(path+".order", "must be strict or absent, got %.80q", t.Order)
	case t.Order == "strict" && t.Class == "fast":
		return invalid(path+".order", "is for slow types: a fast one is always in order")
	}
	if err := template(path+".channel", t.Channel); err != nil {
		return err
	}
	return template(path+".id", t.ID)
}

// template checks text with {field} in it, fields being top-level fields of
// the payload: names as Avro has them.
func template(path, s string) error {
	if len(s) > maxTemplate || !printable(s) {
		return invalid(path, "must be up to %d bytes of printable text", maxTemplate)
	}
	open := -1
	for i := range len(s) {
		switch c := s[i]; {
		case open < 0 && c == '}':
			return invalid(path, "} without { at byte %d", i)
		case open < 0 && c == '{':
			open = i
		case open < 0:
		case c == '}' && i == open+1:
			return invalid(path, "{} names no field, at byte %d", open)
		case c == '}':
			open = -1
		case c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9' || i == open+1):
			return invalid(path, "a field is letters, digits and _, at byte %d", i)
		}
	}
	if open >= 0 {
		return invalid(path, "{ without } at byte %d", open)
	}
	return nil
}

func endpoint(path string, e schemas.Endpoint) error {
	u, err := url.Parse(e.URL)
	d := time.Duration(e.Timeout)
	switch {
	case err != nil || len(e.URL) > 2048 || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "":
		return invalid(path+".url", "must be http://host… or https://host…, got %.80q", e.URL)
	case u.User != nil || u.Fragment != "":
		return invalid(path+".url", "must hold no password and no fragment")
	case d < 0 || d > maxTimeout || d%time.Millisecond != 0:
		return invalid(path+".timeout", "must be whole milliseconds up to %s, got %s", maxTimeout, d)
	case e.MaxConcurrency < 0 || e.MaxConcurrency > maxConcurrency:
		return invalid(path+".max_concurrency", "must be 0 (default) to %d, got %d", maxConcurrency, e.MaxConcurrency)
	case !finite(e.Capacity) || e.Capacity > maxRate:
		return invalid(path+".capacity", "must be 0 (unknown) to %v a second, got %v", float64(maxRate), e.Capacity)
	case e.Format != "" && e.Format != "openai":
		return invalid(path+".format", "must be openai or absent, got %.80q", e.Format)
	}
	return nil
}

func (r rules) flag(path string, f Flag) error {
	if len(f.Tenants) == 0 || len(f.Tenants) > maxTenants {
		return invalid(path+".tenants", "must name 1 to %d tenants, got %d", maxTenants, len(f.Tenants))
	}
	_, open := everyone(r.entries)
	for i, tenant := range f.Tenants {
		_, exists := r.entries[key{KindTenant, tenant}]
		if !exists && tenant != schemas.Everyone && !(open && schemas.ValidTenant(tenant)) {
			return invalid(fmt.Sprintf("%s.tenants[%d]", path, i), "there is no tenant %.80q", tenant)
		}
	}
	switch {
	case f.Patch.Fast.Rate == 0 && f.Patch.Slow.Rate == 0:
		return invalid(path+".patch", "a flag must bind what it lets in: fast.rate or slow.rate is missing")
	case f.Patch.Quota == 0:
		return invalid(path+".patch.quota", "a flag must bind what it lets in: a quota is missing")
	}
	return r.policy(path+".patch", f.Patch, false)
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, c := range s {
		if !unicode.IsPrint(c) {
			return false
		}
	}
	return true
}
