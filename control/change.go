package control

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/spillway/spillway/schemas"
)

// An Error is a refusal: what a client of the API is told.
type Error struct {
	status  int            // of HTTP; 0: by the code
	Code    schemas.Reason `json:"code"`
	Message string         `json:"message"`
	Path    string         `json:"path,omitempty"` // the field that is wrong: "acme.fast.rate"
}

// Error is "path: message".
func (e *Error) Error() string {
	if e.Path == "" {
		return e.Message
	}
	return e.Path + ": " + e.Message
}

func invalid(path, format string, args ...any) *Error {
	return &Error{Code: schemas.Malformed, Path: path, Message: fmt.Sprintf(format, args...)}
}

// A change is what someone asks of one record.
type change struct {
	key     key
	value   any   // nil deletes
	ifMatch int64 // the version it was made from; anyVersion, noVersion
}

const (
	anyVersion = -1 // it does not matter which
	noVersion  = -2 // it must not exist
)

// A plan is a list of changes that may be written together.
type plan struct {
	changes  []change // those that change something
	entries  map[key]entry
	lines    []string // what changes, for a person
	warnings []string
	offset   int64 // of the last record, once written
}

// newPlan checks changes against what is there. regions are those that exist;
// empty means that they are not known here and any legal name will do.
func newPlan(entries map[key]entry, changes []change, regions []string) (plan, error) {
	p := plan{entries: maps.Clone(entries)}
	if p.entries == nil {
		p.entries = map[key]entry{}
	}
	for _, c := range changes {
		old, exists := p.entries[c.key]
		if err := c.matches(old, exists); err != nil {
			return p, err
		}
		if c.value == nil {
			delete(p.entries, c.key)
		} else {
			p.entries[c.key] = entry{old.version, c.value}
		}
		if !exists || !reflect.DeepEqual(old.value, c.value) {
			p.changes = append(p.changes, c)
		}
	}
	if len(p.entries) > maxEntries {
		return p, &Error{Code: schemas.Overloaded, Message: fmt.Sprintf("control holds %d records at most", maxEntries)}
	}
	rules := rules{entries: p.entries, regions: regions}
	for _, c := range p.changes {
		if err := rules.check(c); err != nil {
			return p, err
		}
	}
	if err := noLimitLifted(entries, p.entries); err != nil {
		return p, err
	}
	for _, c := range p.changes {
		p.lines = append(p.lines, c.describe(entries[c.key])...)
	}
	p.warnings = overbooked(entries, p.entries)
	return p, nil
}

func (c change) matches(old entry, exists bool) error {
	conflict := func(format string, args ...any) error {
		return &Error{Code: schemas.Conflict, Path: c.key.name, Message: fmt.Sprintf(format, args...)}
	}
	switch {
	case c.value == nil && !exists:
		return &Error{Code: schemas.NotFound, Path: c.key.name, Message: fmt.Sprintf("there is no %s of that name", c.key.kind)}
	case c.ifMatch == noVersion && exists:
		return conflict("it exists already, in version %d", old.version)
	case c.ifMatch >= 0 && !exists:
		return conflict("version %d was deleted", c.ifMatch)
	case c.ifMatch >= 0 && old.version != c.ifMatch:
		return conflict("it was made from version %d, the newest is %d", c.ifMatch, old.version)
	}
	return nil
}

// describe says for a person what the change does to old: one line a field.
func (c change) describe(old entry) []string {
	switch {
	case c.value == nil:
		return []string{"- " + c.key.String()}
	case old.value == nil:
		return []string{"+ " + c.key.String()}
	}
	return diff(c.key.String(), old.value, c.value)
}

// noLimitLifted compares every tenant's policy before and after, flags left
// out: a quota or a bound may be changed, but once there it stays. (Rates and
// backlogs are always there: they come from the defaults at last.)
func noLimitLifted(before, after map[key]entry) error {
	oldBase, _ := everyone(before)
	newBase, _ := everyone(after)
	for k, e := range after {
		now, ok := e.value.(schemas.Policy)
		was, existed := before[k].value.(schemas.Policy)
		if !ok || !existed {
			continue
		}
		if k.name == schemas.Everyone {
			was, now = oldBase, newBase
		} else {
			was, now = was.Under(oldBase), now.Under(newBase)
		}
		if was.Quota > 0 && now.Quota == 0 {
			return invalid(k.name+".quota", "a limit may be changed but not lifted: it was %d", was.Quota)
		}
		if was.MaxConnections > 0 && now.MaxConnections == 0 {
			return invalid(k.name+".max_connections", "a limit may be changed but not lifted: it was %d", was.MaxConnections)
		}
	}
	return nil
}

// overbooked warns of endpoints that are promised more than they can take,
// if that figure is new.
func overbooked(before, after map[key]entry) []string {
	was, now := promised(before), promised(after)
	var out []string
	for k, e := range after {
		endpoint, ok := e.value.(schemas.Endpoint)
		if !ok || endpoint.Capacity == 0 || now[k.name] <= endpoint.Capacity {
			continue
		}
		if old, ok := before[k].value.(schemas.Endpoint); ok && old.Capacity == endpoint.Capacity && was[k.name] == now[k.name] {
			continue
		}
		out = append(out, fmt.Sprintf("%s: its capacity is %g/s, tenants are promised %g/s", k, endpoint.Capacity, now[k.name]))
	}
	slices.Sort(out)
	return out
}

// promised adds up the slow rates of all tenants that an endpoint works for.
func promised(entries map[key]entry) map[string]float64 {
	base, _ := everyone(entries)
	out := map[string]float64{}
	for k, e := range entries {
		p, ok := e.value.(schemas.Policy)
		if !ok || k.name == schemas.Everyone {
			continue
		}
		p = p.Under(base)
		seen := map[string]bool{}
		for _, t := range p.Types {
			if t.Class == "slow" && t.Endpoint != "" && !seen[t.Endpoint] {
				seen[t.Endpoint] = true
				out[t.Endpoint] += p.Slow.Rate
			}
		}
	}
	return out
}

// users lists the records that name an endpoint, at most three of them.
func users(entries map[key]entry, endpoint string) string {
	var out []string
	for k, e := range entries {
		var types map[string]schemas.Type
		switch v := e.value.(type) {
		case schemas.Policy:
			types = v.Types
		case Flag:
			types = v.Patch.Types
		}
		for _, t := range types {
			if t.Endpoint == endpoint {
				out = append(out, k.String())
				break
			}
		}
	}
	slices.Sort(out)
	if len(out) > 3 {
		out = append(out[:3], fmt.Sprintf("%d more", len(out)-3))
	}
	return strings.Join(out, ", ")
}
