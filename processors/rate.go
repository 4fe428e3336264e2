package processors

import "github.com/spillway/spillway/schemas"

// rate asks: has its class a token now, and is the tenant not behind? An event
// without one reserves the next and goes to overflow until then; from there on
// the tenant is behind, and all it sends in that class follows into overflow,
// token or not, until the last of it has come back: so order is kept by the
// log, not by timing.
func rate(ev *Event, st *State) Decision {
	if !ev.asksBudget() {
		return Decision{}
	}
	i := ev.classIndex()
	c, l := &ev.tenant.classes[i], &ev.tenant.limits[i]
	after, wait := l.next(c.tat, ev.at)
	ev.tat, ev.grace = after, c.graceOf(ev, st)
	switch {
	case wait > 0 && l.drop:
		return Decision{Verdict: Dropped, Reason: schemas.RateLimited}
	case wait > l.backlog+ev.grace:
		return dead(schemas.OverQuota, "its token would come later than max_backlog allows")
	}
	// The token comes at ev.at + wait on the clock, which is at st.clock now.
	left := max(0, ev.at+wait-st.clock)
	if left == 0 && c.behind == 0 {
		return Decision{}
	}
	ev.Due = ev.Appended + left
	why := schemas.RateLimited
	if wait == 0 {
		why = schemas.Behind
	}
	if c.behind > 0 {
		ev.Due = max(ev.Due, c.due)
	}
	return Decision{Verdict: Overflow, Reason: why}
}

// graceOf is how much the pipeline, not the tenant, has added to the wait: the
// largest lateness of the events since the bucket was last full.
func (c *class) graceOf(ev *Event, st *State) int64 {
	excess := ev.at - (st.clock - ev.late())
	if c.tat.ceil() <= ev.at && c.behind == 0 {
		return excess
	}
	return max(c.grace, excess)
}
