package processors

import "github.com/spillway/spillway/schemas"

// dedupe asks: is (tenant, idempotency key [, named schema version]) new in
// the window? The key is remembered when the event is let through, so that one
// that was refused may be sent again. Replays and redrives are new by origin
// and job or generation; an event without key and id is always new.
func (r *rules) dedupe(ev *Event, st *State) Decision {
	if ev.free {
		return Decision{}
	}
	b := ev.work[:0]
	switch {
	case ev.Return.Job != "" || ev.Return.Generation > 0:
		b = ev.appendOrigin(append(b, 'o'))
	case ev.HasKey():
		b = append(append(append(b, 'e'), ev.Tenant...), 0) // a tenant has no 0 in it
		b = ev.AppendKey(b)
	default:
		return Decision{}
	}
	ev.work = b
	ev.key, ev.keyed = r.hash.sum(b), true
	if st.ring.has(&ev.key) {
		ev.keyed = false
		return Decision{Verdict: Duplicate, Reason: schemas.Duplicate}
	}
	return Decision{}
}
