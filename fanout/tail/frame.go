package tail

import (
	"encoding/binary"
	"strconv"
	"sync/atomic"

	"github.com/spillway/spillway/schemas"
)

// FrameBytes is where a frame is split: small enough that a slow client's
// other channels do not wait long behind it. One event always fits.
const FrameBytes = 64 << 10

// A Frame is an `ev` frame, ready to be written: some consecutive events of a
// feed. Nothing in it belongs to one connection.
type Frame struct {
	Tenant string
	Home   int32          // partition
	P, C   schemas.Cursor // place before, place after
	Events []Event
	Bytes  []byte // WebSocket text frame, header included

	// Kept by those who write it.
	Sessions atomic.Int32 // connections it was written to and not accounted for yet
	Written  atomic.Int64 // last time it was written, Unix µs

	first uint64 // number of the first event among the tenant's
}

// NewFrame makes the frame of consecutive events of a feed. events must not be
// empty.
func NewFrame(id int, p schemas.Cursor, events []Event) *Frame {
	c := schemas.Cursor{Epoch: p.Epoch, Offset: events[len(events)-1].Cursor}
	size := len(`{"t":"ev","id":,"p":"","c":"","e":[]}`) + 20 + 2*25
	for i := range events {
		size += len(events[i].JSON) + 1
	}
	const room = 10 // longest frame header
	b := make([]byte, room, room+size)
	b = append(b, `{"t":"ev","id":`...)
	b = strconv.AppendInt(b, int64(id), 10)
	b = p.AppendTo(append(b, `,"p":"`...))
	b = c.AppendTo(append(b, `","c":"`...))
	b = append(b, `","e":[`...)
	for i := range events {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, events[i].JSON...)
	}
	b = append(b, `]}`...)
	var header [room]byte
	h := appendHeader(header[:0], len(b)-room)
	return &Frame{P: p, C: c, Events: events, Bytes: append(b[room-len(h):room-len(h)], h...)[:len(b)-room+len(h)]}
}

// AppendText appends a WebSocket text frame, as a server sends it, to dst.
func AppendText(dst, payload []byte) []byte {
	return append(appendHeader(dst, len(payload)), payload...)
}

// appendHeader appends the header of an unmasked, final text frame (RFC 6455
// section 5.2).
func appendHeader(dst []byte, size int) []byte {
	const finText = 0x81
	switch {
	case size < 126:
		return append(dst, finText, byte(size))
	case size < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, finText, 126), uint16(size))
	}
	return binary.BigEndian.AppendUint64(append(dst, finText, 127), uint64(size))
}
