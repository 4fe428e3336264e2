package client

import (
	"bytes"
	"encoding/json"
	"time"
)

// A Message is an Event, a Gap or a Resumed.
type Message interface{ message() }

// An Event is one CloudEvent.
type Event struct {
	Pattern string          // the subscription it came for
	ID      string          // its id, unique within its source
	Cursor  string          // place to resume after, once this event is dealt with
	Raw     json.RawMessage // the CloudEvent as JSON
}

// A Gap says that events between two cursors were not and will not be sent.
type Gap struct {
	Pattern  string
	From, To string // cursors
	Why      string // "lag", "retention", "epoch"
	Replay   string // address that has the rest, "" if none
}

// Resumed says that the connection broke and goes on where it was.
type Resumed struct {
	Node string
	Err  error // what broke it
}

func (Event) message()   {}
func (Gap) message()     {}
func (Resumed) message() {}

// CloudEvent is an event's attributes and data.
type CloudEvent struct {
	ID      string          `json:"id"`
	Source  string          `json:"source"`
	Type    string          `json:"type"`
	Subject string          `json:"subject"` // the channel
	Time    time.Time       `json:"time"`
	Data    json.RawMessage `json:"data"`
}

// Decode reads the event's attributes.
func (e Event) Decode() (CloudEvent, error) {
	var c CloudEvent
	err := json.Unmarshal(e.Raw, &c)
	return c, err
}

// idPrefix is how a node begins every event; others are read in full.
var idPrefix = []byte(`{"specversion":"1.0","id":"`)

// eventID reads the id out of a CloudEvent without reading all of it, if it can.
func eventID(raw []byte) string {
	if rest, ok := bytes.CutPrefix(raw, idPrefix); ok {
		if end := bytes.IndexByte(rest, '"'); end >= 0 && bytes.IndexByte(rest[:end], '\\') < 0 {
			return string(rest[:end])
		}
	}
	var c struct {
		ID string `json:"id"`
	}
	if json.Unmarshal(raw, &c) != nil {
		return ""
	}
	return c.ID
}

// recent remembers the last ids of a subscription, to drop what a resume sends
// again.
type recent struct {
	ring [256]string
	next int
	set  map[string]struct{}
}

// add reports whether id is new among the last 256.
func (r *recent) add(id string) bool {
	if r.set == nil {
		r.set = make(map[string]struct{}, len(r.ring))
	}
	if _, ok := r.set[id]; ok {
		return false
	}
	delete(r.set, r.ring[r.next])
	r.ring[r.next] = id
	r.set[id] = struct{}{}
	r.next = (r.next + 1) % len(r.ring)
	return true
}
