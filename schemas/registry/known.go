package registry

import (
	"time"

	"github.com/spillway/spillway/schemas/codec"
	"github.com/twmb/franz-go/pkg/sr"
)

// Answer is what is known about an id.
type Answer uint8

// The three answers.
const (
	Unknown Answer = iota // not asked, being asked, or forgotten
	Known
	Absent // the registry said that it has no such id
)

// State is an answer with its time.
type State struct {
	Answer Answer
	Asked  time.Time // Absent: when the registry was last asked; it held at or after this time
}

// denial is the registry's "no" about an id or a name.
type denial struct {
	asked time.Time
	again time.Time     // it may be asked again from then on
	pause time.Duration // between asked and again; doubles to maxPause
}

// How often the registry is asked again about what it does not have. maxPause
// is below the 16 s that an event of an unknown id waits (DESIGN 3.3), so that
// each wait can end with a fresh "no".
const (
	minPause = time.Second
	maxPause = 8 * time.Second
)

func (d denial) next(asked time.Time) denial {
	pause := min(max(2*d.pause, minPause), maxPause)
	return denial{asked: asked, again: asked.Add(pause), pause: pause}
}

// ByID says what is known about an id. It never blocks on the registry and
// asks it nothing: see Ask.
func (c *Client) ByID(id int) (*Schema, State) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if s := c.known[id]; s != nil {
		return s, State{Answer: Known}
	}
	if d, ok := c.absent[id]; ok {
		return nil, State{Answer: Absent, Asked: d.asked}
	}
	if id <= 0 || id > maxID {
		return nil, State{Answer: Absent, Asked: c.cfg.Now()} // no registry gives such an id
	}
	return nil, State{}
}

const maxID = 1<<31 - 1

// keep makes s known. An id never changes its meaning, so the first one stays,
// except that a later one may say the subject.
func (c *Client) keep(s *Schema) *Schema {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keepLocked(s)
}

func (c *Client) keepLocked(s *Schema) *Schema {
	delete(c.absent, s.ID)
	if have := c.known[s.ID]; have != nil {
		if have.Subject != "" || s.Subject == "" {
			return have
		}
		c.forgetLocked(have)
	}
	for id, old := range c.known {
		if len(c.known) < c.cfg.MaxSchemas && c.textSize+len(s.Text) <= c.cfg.MaxText {
			break
		}
		if id != s.ID {
			c.forgetLocked(old)
			c.metrics.forgotten.Inc()
		}
	}
	c.known[s.ID] = s
	c.textSize += len(s.Text)
	c.metrics.known.Set(float64(len(c.known)))
	return s
}

func (c *Client) forgetLocked(s *Schema) {
	delete(c.known, s.ID)
	c.textSize -= len(s.Text)
}

func (c *Client) deny(id int, asked time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, have := c.absent[id]; !have && len(c.absent) >= c.cfg.MaxAbsent {
		for other := range c.absent {
			delete(c.absent, other)
			break
		}
	}
	c.absent[id] = c.absent[id].next(asked)
}

// compile makes a Schema of what the registry sent.
func compile(ss sr.SubjectSchema) *Schema {
	s := &Schema{ID: ss.ID, Text: ss.Schema.Schema, Subject: ss.Subject, Version: ss.Version, HasReferences: len(ss.References) > 0}
	switch {
	case ss.Type != sr.TypeAvro:
		s.Unsupported = unsupported("the schema is " + ss.Type.String() + ", not Avro")
	case s.HasReferences:
		s.Unsupported = unsupported("the schema has references to other subjects")
	default:
		compiled, err := codec.Compile(s.Text)
		switch {
		case err != nil:
			s.Unsupported = err
		case compiled.Name() == "":
			s.Unsupported = unsupported("the schema is not a record")
		default:
			s.Codec, s.Name = compiled, compiled.Name()
		}
	}
	return s
}
