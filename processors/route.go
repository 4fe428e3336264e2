package processors

import (
	"slices"

	"github.com/spillway/spillway/schemas"
)

// route asks: fast: which regions? slow: which endpoint? It is the last step
// and always decides.
func route(ev *Event, _ *State) Decision {
	if ev.Class == schemas.SlowClass {
		if ev.Endpoint == "" {
			return dead(schemas.NoRoute, "the policy binds no endpoint to the type "+ev.Type)
		}
		return Decision{Verdict: Work}
	}
	ev.Regions = ev.policy.Regions
	if ev.Region != "" {
		if !slices.Contains(ev.policy.Regions, ev.Region) {
			return dead(schemas.NoRoute, "the policy has no region "+ev.Region)
		}
		ev.one[0] = ev.Region
		ev.Regions = ev.one[:]
	}
	if len(ev.Regions) == 0 {
		return dead(schemas.NoRoute, "the policy names no region")
	}
	return Decision{Verdict: Deliver}
}
