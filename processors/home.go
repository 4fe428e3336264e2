package processors

import (
	"encoding/binary"
	"unsafe"

	"github.com/spillway/spillway/schemas"
)

// home asks: is this the partition this key belongs to? Producers partition
// differently, so a stranger's record may lie anywhere; it is forwarded, once.
// What is signed must be at home, and is taken once. What is malformed is
// judged where it lies: there may be no home for it, or no room to sign it.
func (r *rules) home(ev *Event, st *State) Decision {
	ev.fault = ev.Check()
	atHome := schemas.HomePartition(ev.keyBytes(), r.partitions) == ev.Place.Partition
	switch {
	case ev.signed() && !atHome:
		return dead(schemas.NotHome, "")
	case ev.signed() && !r.take(ev, st):
		return Decision{Verdict: Stale, Reason: schemas.StaleReturn}
	case ev.signed() || atHome || ev.Transactional || ev.fault != "":
		return Decision{}
	}
	return Decision{Verdict: Forward}
}

// take enters the return into the ring. It reports false if it is there
// already.
func (r *rules) take(ev *Event, st *State) bool {
	k := r.returnKey(ev, ev.Return.Kind)
	if st.ring.has(&k) {
		return false
	}
	st.ring.push(&k, st.clock)
	ev.taken = true
	ev.free = ev.Return.Kind == schemas.Release
	if ev.Return.Kind == schemas.Wait { // is it a release that had to wait for its schema?
		k = r.returnKey(ev, schemas.Release)
		ev.free = st.ring.has(&k)
	}
	return true
}

// returnKey is what a return is known by; see the package comment.
func (r *rules) returnKey(ev *Event, kind schemas.ReturnKind) key {
	b := append(ev.work[:0], 'r')
	b = append(append(b, kind...), 0)
	b = ev.appendOrigin(b)
	if kind == schemas.Wait {
		b = append(append(b, ev.Return.Of.Topic...), 0)
		b = binary.BigEndian.AppendUint32(b, uint32(ev.Return.Of.Partition))
		b = binary.BigEndian.AppendUint64(b, uint64(ev.Return.Of.Offset))
	}
	ev.work = b
	return r.hash.sum(b)
}

// appendOrigin appends where the event first arrived, which life of it this is
// and for which job.
func (ev *Event) appendOrigin(b []byte) []byte {
	b = append(b, ev.Origin.Topic[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(ev.Origin.Partition))
	b = binary.BigEndian.AppendUint64(b, uint64(ev.Origin.Offset))
	b = binary.BigEndian.AppendUint32(b, uint32(ev.Return.Generation))
	return append(append(b, ev.Return.Job...), 0)
}

// keyBytes is the record's key, which nobody modifies.
func (ev *Event) keyBytes() []byte {
	return unsafe.Slice(unsafe.StringData(ev.Tenant), len(ev.Tenant))
}
