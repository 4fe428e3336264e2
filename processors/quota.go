package processors

import "github.com/spillway/spillway/schemas"

const msPerDay = 24 * 60 * 60 * 1000

// dayOf is the UTC day of a clock, counted since 1970.
func dayOf(ms int64) int64 { return ms / msPerDay }

// quota asks: is it within the day's budget? What is let through counts; a day
// is one of the event's own time.
func quota(ev *Event, _ *State) Decision {
	if !ev.asksBudget() || ev.policy.Quota <= 0 {
		return Decision{}
	}
	t := ev.tenant
	if dayOf(ev.at) == t.day && t.used >= ev.policy.Quota {
		return dead(schemas.OverQuota, "the tenant's quota of the day is used up")
	}
	return Decision{}
}
