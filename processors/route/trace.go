package route

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"unsafe"
)

// newTrace makes the traceparent of an event that came without one: its ids
// are a hash of the origin, so that every record of the event has the same.
func (s *session) newTrace() string {
	var in [28]byte
	o := s.ev.Origin
	copy(in[:], o.Topic[:])
	binary.BigEndian.PutUint32(in[16:], uint32(o.Partition))
	binary.BigEndian.PutUint64(in[20:], uint64(o.Offset))
	sum := sha256.Sum256(in[:])
	b := append(s.out.buffer(64), "00-"...)
	b = hex.AppendEncode(b, sum[:16])
	b = append(b, '-')
	b = hex.AppendEncode(b, sum[16:24])
	b = s.out.keep(append(b, "-00"...))
	return unsafe.String(unsafe.SliceData(b), len(b))
}
