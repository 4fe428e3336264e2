package schemas

import (
	"cmp"
	"time"
)

// Everyone is the name of the policy from which absent fields come.
const Everyone = "*"

// A Policy is the settings of one tenant: data in `control`, never flags. A
// field at its zero value is absent and comes from the policy of Everyone; see
// Under. JSON names are those of `spillway get` and `apply`.
type Policy struct {
	State          string          `json:"state,omitempty"`           // "active" or "suspended"
	Open           bool            `json:"open,omitempty"`            // only on "*": tenants without a policy are admitted
	Regions        []string        `json:"regions,omitempty"`         // where its events are fanned out
	Fast           Rate            `json:"fast,omitzero"`             //
	Slow           Rate            `json:"slow,omitzero"`             //
	Quota          int64           `json:"quota,omitempty"`           // events a UTC day; 0 = no quota
	MaxConnections int             `json:"max_connections,omitempty"` // sockets at once; 0 = the node's bound alone
	Types          map[string]Type `json:"types,omitempty"`           // by event type
}

// A Rate is the bucket of one class.
type Rate struct {
	Rate       float64  `json:"rate,omitempty"`        // events a second
	Burst      int64    `json:"burst,omitempty"`       // events at once; 0 = one second of rate
	Overflow   string   `json:"overflow,omitempty"`    // "shape" (late, in order) or "drop"
	MaxBacklog Duration `json:"max_backlog,omitempty"` // a reservation further away is over_quota
}

// A Type is what a policy says of one event type.
type Type struct {
	Class    string `json:"class,omitempty"`    // "fast" or "slow"
	Endpoint string `json:"endpoint,omitempty"` // who works on it, if slow
	Order    string `json:"order,omitempty"`    // "" or "strict"
	Channel  string `json:"channel,omitempty"`  // template over top-level fields: "chat.{chat_id}"
	ID       string `json:"id,omitempty"`       // template: "{message_id}"
}

// An Endpoint is an AI service that workers call.
type Endpoint struct {
	URL            string   `json:"url"`
	Timeout        Duration `json:"timeout,omitempty"`         // of one call
	MaxConcurrency int      `json:"max_concurrency,omitempty"` // calls at once
	Capacity       float64  `json:"capacity,omitempty"`        // calls a second it can take
	Format         string   `json:"format,omitempty"`          // "" = CloudEvents, "openai" = chat completions
}

// Duration is a time.Duration that reads and writes as "60s" in JSON.
type Duration time.Duration

// MarshalText writes the duration as time.Duration prints it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// DefaultPolicy is the policy of Everyone where none was written.
func DefaultPolicy(regions []string) Policy {
	return Policy{
		State: "active", Regions: regions,
		Fast: Rate{Rate: 100, Overflow: "shape", MaxBacklog: Duration(time.Minute)},
		Slow: Rate{Rate: 10, Overflow: "shape", MaxBacklog: Duration(24 * time.Hour)},
	}
}

// Under fills p's absent fields from base and returns the result. Types are
// merged by name, p's entry winning whole. A burst that is absent in both is
// one second of rate, at least 1.
func (p Policy) Under(base Policy) Policy {
	out := p
	out.State = cmp.Or(p.State, base.State, "active")
	out.Open = p.Open
	if len(p.Regions) == 0 {
		out.Regions = base.Regions
	}
	out.Fast, out.Slow = p.Fast.under(base.Fast), p.Slow.under(base.Slow)
	out.Quota = cmp.Or(p.Quota, base.Quota)
	out.MaxConnections = cmp.Or(p.MaxConnections, base.MaxConnections)
	if len(base.Types) > 0 {
		out.Types = make(map[string]Type, len(base.Types)+len(p.Types))
		for name, t := range base.Types {
			out.Types[name] = t
		}
		for name, t := range p.Types {
			out.Types[name] = t
		}
	}
	return out
}

func (r Rate) under(base Rate) Rate {
	out := Rate{
		Rate:       cmp.Or(r.Rate, base.Rate),
		Burst:      r.Burst,
		Overflow:   cmp.Or(r.Overflow, base.Overflow, "shape"),
		MaxBacklog: cmp.Or(r.MaxBacklog, base.MaxBacklog),
	}
	if out.Burst == 0 && r.Rate == 0 { // base's burst belongs to base's rate
		out.Burst = base.Burst
	}
	if out.Burst == 0 {
		out.Burst = max(1, int64(out.Rate))
	}
	return out
}
