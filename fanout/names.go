package fanout

import (
	"bytes"
	"errors"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/fanout/tail"
	"github.com/spillway/spillway/schemas"
)

// names turns records into events. It keeps the texts of tenants and channels
// it met, so that an event of a known channel makes none anew; bounded, and
// emptied when full. Safe for concurrent use.
type names struct {
	mu   sync.Mutex
	seen map[string]string
}

const maxNames = 32 << 10

func newNames() *names { return &names{seen: make(map[string]string)} }

func (n *names) text(b []byte) string {
	if s, ok := n.seen[string(b)]; ok {
		return s
	}
	if len(n.seen) >= maxNames {
		clear(n.seen)
	}
	s := string(b)
	n.seen[s] = s
	return s
}

// record reads a record of fanout.<region>. The error says what is wrong with
// one that route has not written.
func (n *names) record(rec *kgo.Record) (tail.Record, error) {
	out := tail.Record{Event: tail.Event{Appended: rec.Timestamp.UnixMilli()}}
	if len(rec.Value) == 0 || len(rec.Key) == 0 {
		return out, errors.New("no key or no value")
	}
	var cursor, channel []byte
	for i := range rec.Headers {
		switch h := &rec.Headers[i]; h.Key {
		case schemas.HeaderCursor:
			cursor = h.Value
		case schemas.HeaderSubject:
			channel = h.Value
		}
	}
	at, err := schemas.ParseCursor(string(cursor))
	if err != nil {
		return out, err
	}
	if channel == nil {
		channel = []byte(schemas.DefaultChannel)
	}
	n.mu.Lock()
	out.Tenant, out.Channel = n.text(rec.Key), n.text(channel)
	n.mu.Unlock()
	out.Epoch, out.Cursor = at.Epoch, at.Offset
	out.JSON = oneLine(rec.Value)
	return out, nil
}

// oneLine copies JSON so that it holds no line break, as SSE needs it; in JSON
// they stand only between tokens. The copy lets go of the batch it came in.
func oneLine(value []byte) []byte {
	out := bytes.Clone(value)
	if bytes.IndexByte(out, '\n') < 0 && bytes.IndexByte(out, '\r') < 0 {
		return out
	}
	for i, c := range out {
		if c == '\n' || c == '\r' {
			out[i] = ' '
		}
	}
	return out
}
