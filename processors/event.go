package processors

import "github.com/spillway/spillway/schemas"

// An Event is one record of `events` on its way down the line. Reuse one per
// goroutine: what it holds is valid until the next Reset.
//
// Fill it with Reset, SetHeader for each header, Returned if it carries a
// spillway-return whose hash is valid, and Transactional if its batch is.
type Event struct {
	schemas.Event
	Appended      int64 // append time of this very record, Unix ms
	Transactional bool  // its batch belongs to a producer's transaction

	// What the line finds out.
	JSON     []byte   // the payload as plain JSON; set by valid
	Regions  []string // with Deliver: where it is fanned out
	Endpoint string   // with Work: who works on it
	Due      int64    // with Overflow: Unix ms before which it must not come back

	fault  schemas.Reason // what Check said
	schema Schema
	body   []byte // Avro body, without the wire format's header
	policy *schemas.Policy
	tenant *tenant
	at     int64     // its own time on the partition's clock, ms
	tat    instant   // the bucket, once this event has taken its token
	grace  int64     // see class.grace
	key    key       // what it is remembered by
	keyed  bool      // key is set
	taken  bool      // a return that came for the first time
	free   bool      // dedupe, quota and rate were asked before
	one    [1]string // memory of Regions, for one region
	text   []byte    // memory of channel and id made from templates
	work   []byte    // memory in which keys are put together
}

// Reset makes ev the record at origin, whose AcceptedAt is its append time.
func (ev *Event) Reset(origin schemas.Origin, topic string, key, value []byte) {
	inner := ev.Event
	*ev = Event{Event: inner, Appended: origin.AcceptedAt, JSON: ev.JSON[:0], text: ev.text[:0], work: ev.work[:0]}
	ev.Event.Reset(origin, topic, key, value)
}

// Replayed reports whether an operator's replay job brings the event; such a
// job has a bucket of its own.
func (ev *Event) Replayed() bool { return ev.Return.Job != "" && ev.Return.Generation == 0 }

func (ev *Event) signed() bool { return ev.Return.Kind != "" }

// asksBudget: quota and bucket of its tenant are its business.
func (ev *Event) asksBudget() bool { return !ev.free && !ev.Replayed() }

// late is how long before this record the event was first appended, in ms, if
// only the pipeline kept it since; a Window at most, which is as far as the
// line remembers.
func (ev *Event) late() int64 {
	if ev.Return.Kind != schemas.Forward && ev.Return.Kind != schemas.Wait {
		return 0
	}
	return min(max(0, ev.Appended-ev.Origin.AcceptedAt), Window.Milliseconds())
}

// classIndex is 0 for fast, 1 for slow.
func (ev *Event) classIndex() int {
	if ev.Class == schemas.SlowClass {
		return 1
	}
	return 0
}
