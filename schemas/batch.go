package schemas

import "encoding/binary"

// A Batch is one of Kafka's record batches (magic 2) as it lies in the answer
// to a fetch: offsets [Offset, Next).
type Batch struct {
	Offset, Next int64
	Epoch        int32  // of the leader that took it
	Raw          []byte // nil if the answer does not hold it whole
}

// Offsets into a record batch.
const (
	batchLength     = 8
	batchEpoch      = 12
	batchLastDelta  = 23
	batchHeader     = 27
	batchOverhead   = 12      // base offset and length are not in the length
	mostLastOffsets = 1 << 24 // offsets that one batch can claim; more are garbage
)

// BatchAt finds the batch among raw ones that holds an offset. Where it ends is
// where the next one begins: its own header may be what is corrupt. Its Offset
// is the offset asked for, or its first if that is later.
func BatchAt(raw []byte, offset int64) (Batch, bool) {
	for len(raw) >= batchHeader {
		base := int64(binary.BigEndian.Uint64(raw))
		length := int64(int32(binary.BigEndian.Uint32(raw[batchLength:]))) + batchOverhead
		whole := length >= batchHeader && length <= int64(len(raw))
		next := base + int64(int32(binary.BigEndian.Uint32(raw[batchLastDelta:]))) + 1
		if whole && int64(len(raw)) >= length+batchOverhead {
			next = int64(binary.BigEndian.Uint64(raw[length:]))
		}
		if next <= base || next-base > mostLastOffsets {
			next = base + 1
		}
		if offset < next {
			b := Batch{Offset: max(base, offset), Next: next, Epoch: int32(binary.BigEndian.Uint32(raw[batchEpoch:]))}
			if whole {
				b.Raw = raw[:length]
			}
			return b, true
		}
		if !whole {
			return Batch{}, false
		}
		raw = raw[length:]
	}
	return Batch{}, false
}
