package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// An Event is one event. Its attributes are read from Raw when asked for, so
// an event that is only counted or passed on costs nothing.
type Event struct {
	// Raw is the CloudEvent, JSON; not to be modified. A Handler's is valid only
	// during the call, and so is what Data and Attribute cut from it: copy to
	// keep. One that Events yields stays as it is.
	Raw []byte
	// Cursor is a place to resume from that misses nothing after this event.
	// Of the events that came in one frame all but the last have the place
	// before the frame: those between come again, with the same id.
	Cursor string
}

// ID identifies the event together with Source.
func (e Event) ID() string { return e.text("id") }

// Source says who made the event.
func (e Event) Source() string { return e.text("source") }

// Type is the event's type, the full name of its schema.
func (e Event) Type() string { return e.text("type") }

// Channel is the channel it was published to.
func (e Event) Channel() string { return e.text("subject") }

// Time is when it happened, the zero time if the event says nothing legible.
func (e Event) Time() time.Time {
	t, err := time.Parse(time.RFC3339Nano, e.text("time"))
	if err != nil {
		return time.Time{}
	}
	return t
}

// Data is the payload, JSON; nil if there is none. It is a part of Raw.
func (e Event) Data() json.RawMessage { return e.Attribute("data") }

// Decode stores the payload in v as encoding/json does.
func (e Event) Decode(v any) error {
	if err := json.Unmarshal(e.Data(), v); err != nil {
		return fmt.Errorf("decode the data of event %s: %w", e.ID(), err)
	}
	return nil
}

// Attribute is the JSON of any member of the event, nil if it has none so
// named. It is a part of Raw.
func (e Event) Attribute(name string) json.RawMessage { return member(e.Raw, name) }

func (e Event) text(name string) string { return unquote(member(e.Raw, name)) }

// unquote is the text of a JSON string, "" for anything else.
func unquote(raw []byte) string {
	if len(raw) < 2 || raw[0] != '"' {
		return ""
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// member finds a member of a JSON object by its name as it is written, nil if
// it has none. What is no JSON has no members.
func member(b []byte, name string) []byte {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '{' {
		return nil
	}
	for i++; ; i++ {
		i = skipSpace(b, i)
		if i >= len(b) || b[i] != '"' {
			return nil
		}
		end := skipValue(b, i)
		if end < 0 {
			return nil
		}
		key := b[i+1 : end-1]
		if i = skipSpace(b, end); i >= len(b) || b[i] != ':' {
			return nil
		}
		i = skipSpace(b, i+1)
		if end = skipValue(b, i); end < 0 {
			return nil
		}
		if string(key) == name {
			return b[i:end]
		}
		if i = skipSpace(b, end); i >= len(b) || b[i] != ',' {
			return nil
		}
	}
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skipValue returns where the JSON value at i ends, -1 if it does not. It
// trusts that what comes is JSON and only looks for its end.
func skipValue(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			if i = skipString(b, i); i < 0 {
				return -1
			}
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
			if depth < 0 { // the end of what holds a number or a word
				return -1
			}
		default:
			if depth == 0 {
				return skipWord(b, i)
			}
		}
		i++
	}
	return -1
}

// skipString returns the index after the string that begins at i, -1 if it has
// no end.
func skipString(b []byte, i int) int {
	for i++; ; {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return -1
		}
		end := i + n
		back := end
		for back > i && b[back-1] == '\\' {
			back--
		}
		i = end + 1
		if (end-back)%2 == 0 {
			return i
		}
	}
}

// skipWord returns the index after a number, true, false or null.
func skipWord(b []byte, i int) int {
	start := i
	for i < len(b) && b[i] != ',' && b[i] != '}' && b[i] != ']' && b[i] != ' ' && b[i] != '\n' && b[i] != '\t' && b[i] != '\r' {
		i++
	}
	if i == start {
		return -1
	}
	return i
}

// An evFrame is an `ev` frame, taken apart without decoding its events.
type evFrame struct {
	id     int
	p, c   []byte
	events []byte // what is between the brackets of "e"
}

// parseEv reads an ev frame as nodes write it. ok is false for any other
// frame and for an ev frame that looks different.
func parseEv(b []byte) (f evFrame, ok bool) {
	rest, ok := bytes.CutPrefix(b, []byte(`{"t":"ev","id":`))
	if !ok {
		return f, false
	}
	n := bytes.IndexByte(rest, ',')
	if n < 0 {
		return f, false
	}
	id, err := strconv.Atoi(string(rest[:n]))
	if err != nil {
		return f, false
	}
	f.id, rest = id, rest[n:]
	if f.p, rest, ok = cutCursor(rest, `,"p":"`); !ok {
		return f, false
	}
	if f.c, rest, ok = cutCursor(rest, `,"c":"`); !ok {
		return f, false
	}
	rest, ok = bytes.CutPrefix(rest, []byte(`,"e":[`))
	if !ok {
		return f, false
	}
	f.events, ok = bytes.CutSuffix(rest, []byte(`]}`))
	return f, ok
}

func cutCursor(b []byte, prefix string) (cursor, rest []byte, ok bool) {
	rest, ok = bytes.CutPrefix(b, []byte(prefix))
	if !ok || len(rest) <= cursorLen || rest[cursorLen] != '"' {
		return nil, nil, false
	}
	for _, ch := range rest[:cursorLen] {
		if (ch < '0' || ch > '9') && (ch < 'a' || ch > 'z') {
			return nil, nil, false
		}
	}
	return rest[:cursorLen], rest[cursorLen+1:], true
}

// A cursor's text: 'c', the epoch, the offset.
const (
	cursorLen = 25
	epochLen  = 13 // up to where cursors of the same log are the same
)

// split appends the events of a frame to dst. ok is false if they cannot be
// told apart.
func split(dst [][]byte, list []byte) (_ [][]byte, ok bool) {
	i := skipSpace(list, 0)
	if i == len(list) {
		return dst, true
	}
	for {
		end := skipValue(list, i)
		if end < 0 {
			return dst, false
		}
		dst = append(dst, list[i:end:end])
		if i = skipSpace(list, end); i == len(list) {
			return dst, true
		}
		if list[i] != ',' {
			return dst, false
		}
		i = skipSpace(list, i+1)
	}
}
