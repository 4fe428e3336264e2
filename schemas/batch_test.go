package schemas

import (
	"encoding/binary"
	"testing"
)

// Batches are found by offset, also where a header is garbage.
func TestBatchAt(t *testing.T) {
	batch := func(base int64, delta int32, size int) []byte {
		b := make([]byte, size)
		binary.BigEndian.PutUint64(b, uint64(base))
		binary.BigEndian.PutUint32(b[batchLength:], uint32(size-batchOverhead))
		binary.BigEndian.PutUint32(b[batchLastDelta:], uint32(delta))
		return b
	}
	for _, c := range []struct {
		name         string
		raw          []byte
		offset       int64
		from, behind int64
		size         int // of the batch, 0 if it is cut
		found        bool
	}{
		{"the only one", batch(7, 2, 80), 8, 8, 10, 80, true},
		{"the second", append(batch(0, 4, 80), batch(5, 4, 90)...), 5, 5, 10, 90, true},
		{"between two", append(batch(0, 4, 80), batch(9, 0, 90)...), 6, 6, 9, 80, true},
		{"before all", batch(7, 2, 80), 3, 7, 10, 80, true},
		{"its last offset is garbage, the next one's is not", append(batch(0, -9, 80), batch(5, 4, 90)...), 0, 0, 5, 80, true},
		{"its last offset is garbage, and it is the last", batch(3, 1<<30, 80), 3, 3, 4, 80, true},
		{"its end is cut", batch(3, 1, 80)[:60], 3, 3, 5, 0, true},
		{"behind all", batch(0, 4, 80), 5, 0, 0, 0, false},
		{"cut", batch(0, 4, 80)[:20], 0, 0, 0, 0, false},
		{"length is garbage", append(batch(0, 4, 40)[:8], make([]byte, 40)...), 9, 0, 0, 0, false},
	} {
		got, found := BatchAt(c.raw, c.offset)
		if found != c.found || found && (got.Offset != c.from || got.Next != c.behind || len(got.Raw) != c.size) {
			t.Errorf("%s: %d to %d, %d bytes, %t", c.name, got.Offset, got.Next, len(got.Raw), found)
		}
	}
}
