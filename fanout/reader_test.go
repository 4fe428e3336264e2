package fanout

import (
	"bytes"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// FuzzRecord: whatever is on the topic, reading it takes no more than the
// record, and what is taken has a place and is one line.
func FuzzRecord(f *testing.F) {
	f.Add([]byte("acme"), []byte(`{"a":1}`), []byte("c000000000005000000000001"), []byte("jobs.1"))
	f.Add([]byte("acme"), []byte("{\n\"a\":\r1}"), []byte("c000000000005000000000001"), []byte{})
	f.Add([]byte{}, []byte{}, []byte("c"), []byte("\xff"))
	n := newNames()
	f.Fuzz(func(t *testing.T, key, value, cursor, channel []byte) {
		rec := &kgo.Record{Key: key, Value: value, Timestamp: time.UnixMilli(7), Headers: []kgo.RecordHeader{
			{Key: schemas.HeaderCursor, Value: cursor}, {Key: schemas.HeaderSubject, Value: channel},
		}}
		out, err := n.record(rec)
		if err != nil {
			return
		}
		at := schemas.Cursor{Epoch: out.Epoch, Offset: out.Cursor}
		if at.String() != string(cursor) || out.Tenant != string(key) || out.Appended != 7 || len(out.JSON) != len(value) || bytes.ContainsAny(out.JSON, "\r\n") {
			t.Fatalf("read %+v", out)
		}
		if len(n.seen) > maxNames {
			t.Fatalf("%d names are kept", len(n.seen))
		}
	})
}

// TestOldChannelsAreForgotten: the texts that are kept have a bound.
func TestOldChannelsAreForgotten(t *testing.T) {
	n := newNames()
	var b [4]byte
	for i := range 3 * maxNames {
		b[0], b[1], b[2] = byte(i), byte(i>>8), byte(i>>16)
		if got := n.text(b[:]); got != string(b[:]) || len(n.seen) > maxNames {
			t.Fatalf("%q for %q, %d kept", got, b, len(n.seen))
		}
	}
}
