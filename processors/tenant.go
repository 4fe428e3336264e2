package processors

import (
	"strings"
	"unsafe"

	"github.com/spillway/spillway/schemas"
)

// tenant asks: is the tenant known and active? What its policy says about the
// event's type is read here: class, and channel and id from the payload.
func (r *rules) tenant(ev *Event, st *State) Decision {
	policy, ok := r.tenants.Policy(ev.Tenant)
	if !ok {
		return ev.await(r.tenants.Age(), schemas.AwaitTenant, schemas.TenantUnknown)
	}
	ev.policy = policy
	t := policy.Types[ev.Type]
	if ev.Class == schemas.NoClass {
		ev.Class, _ = schemas.ParseClass(t.Class) // control admits no other word
	}
	if ev.Class == schemas.NoClass {
		ev.Class = schemas.Fast
	}
	ev.Endpoint = t.Endpoint
	if policy.State != "active" {
		return dead(schemas.TenantSuspended, "")
	}
	if d := ev.fill(t); d.Verdict != Keep {
		return d
	}
	ev.tenant = st.tenantOf(ev.Tenant)
	ev.tenant.follow(policy)
	if ev.asksBudget() {
		ev.at = max(ev.tenant.at, st.clock-ev.late())
		ev.tenant.at = ev.at
	}
	return Decision{}
}

// defaultPolicy says what a limit is where no policy says anything.
var defaultPolicy = schemas.DefaultPolicy(nil)

// follow makes the tenant's limits those of its policy.
func (t *tenant) follow(p *schemas.Policy) {
	if t.policy == p {
		return
	}
	t.policy = p
	t.limits = [2]limit{newLimit(p.Fast, defaultPolicy.Fast), newLimit(p.Slow, defaultPolicy.Slow)}
}

// fill sets channel and id where no header did, from the payload by the
// policy's templates. A template that cannot be filled kills the event: the
// default channel may be open to more people than the one meant.
func (ev *Event) fill(t schemas.Type) Decision {
	ev.text = ev.text[:0]
	if ev.ID == "" && t.ID != "" {
		id, ok := ev.expand(t.ID)
		if !ok || id == "" || len(id) > schemas.MaxID {
			return dead(schemas.AttributeInvalid, "the policy's id template "+t.ID+" cannot be filled from the payload")
		}
		ev.ID = id
	}
	if ev.Channel == "" && t.Channel != "" {
		channel, ok := ev.expand(t.Channel)
		if !ok || !schemas.ValidChannel(channel) {
			return dead(schemas.AttributeInvalid, "the policy's channel template "+t.Channel+" cannot be filled from the payload")
		}
		ev.Channel = channel
	}
	if ev.Channel == "" {
		ev.Channel = schemas.DefaultChannel
	}
	return Decision{}
}

// expand fills a template: {name} stands for a top-level field. The result is
// a view of ev.text and lives as long as ev does.
func (ev *Event) expand(template string) (string, bool) {
	start := len(ev.text)
	for template != "" {
		before, rest, braced := strings.Cut(template, "{")
		ev.text = append(ev.text, before...)
		if !braced {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return "", false
		}
		var ok bool
		if ev.text, ok = ev.schema.AppendField(ev.text, ev.body, name); !ok {
			return "", false
		}
		template = after
	}
	return view(ev.text[start:]), true
}

// view is b as a string without a copy; b is not modified while it is in use.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
