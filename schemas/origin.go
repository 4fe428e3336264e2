package schemas

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
)

// TopicID is Kafka's id of a topic (KIP-516). A topic that is deleted and
// created again has another one.
type TopicID [16]byte

// String is the id as Kafka's own tools print it: base64url without padding.
func (t TopicID) String() string { return base64.RawURLEncoding.EncodeToString(t[:]) }

// ParseTopicID reads what String writes.
func ParseTopicID(s string) (TopicID, error) {
	var t TopicID
	if base64.RawURLEncoding.DecodedLen(len(s)) != len(t) {
		return t, fmt.Errorf("topic id %q: want 22 base64url characters", s)
	}
	if _, err := base64.RawURLEncoding.Decode(t[:], []byte(s)); err != nil {
		return t, fmt.Errorf("topic id %q: %w", s, err)
	}
	return t, nil
}

// Origin is the place of an event's first append to `events`: its identity
// (DESIGN section 3.4).
type Origin struct {
	Topic      TopicID
	Partition  int32
	Offset     int64
	AcceptedAt int64 // append time of that record, Unix milliseconds
}

// AppendTo appends the id form "topic id/partition/offset" to dst.
func (o Origin) AppendTo(dst []byte) []byte {
	dst = base64.RawURLEncoding.AppendEncode(dst, o.Topic[:])
	dst = append(dst, '/')
	dst = strconv.AppendInt(dst, int64(o.Partition), 10)
	dst = append(dst, '/')
	return strconv.AppendInt(dst, o.Offset, 10)
}

// String is the id of an event that was given none: topic id/partition/offset.
func (o Origin) String() string { return string(o.AppendTo(make([]byte, 0, 48))) }

// A Cursor is a place in the log that a client holds: everything up to and
// including the `events` record at Offset of its tenant's home partition has
// been seen. Cursors of one epoch compare like their texts.
type Cursor struct {
	Epoch  uint64 // 48 bits: which log; see Epoch
	Offset int64  // last offset seen; -1 is before the first record
}

// cursorLen is the length of a cursor's text: 'c', 12 hex digits of epoch and
// 12 of offset + 1.
const cursorLen = 1 + 12 + 12

const mask48 = 1<<48 - 1

var errCursor = errors.New(`cursor: want "c" and 24 hex digits`)

// Epoch names one log: a hash of the topic id of `events` and the home
// partition. A topic made anew, or a tenant of another partition, has another.
func Epoch(topic TopicID, home int32) uint64 {
	var in [20]byte
	copy(in[:], topic[:])
	binary.BigEndian.PutUint32(in[16:], uint32(home))
	sum := sha256.Sum256(in[:])
	return binary.BigEndian.Uint64(sum[:8]) & mask48
}

// AppendTo appends the cursor's text to dst: 25 bytes, fixed width.
func (c Cursor) AppendTo(dst []byte) []byte {
	dst = append(dst, 'c')
	dst = appendHex48(dst, c.Epoch)
	return appendHex48(dst, uint64(c.Offset+1))
}

// String is the cursor's text.
func (c Cursor) String() string { return string(c.AppendTo(make([]byte, 0, cursorLen))) }

// ParseCursor reads a cursor's text.
func ParseCursor(s string) (Cursor, error) {
	if len(s) != cursorLen || s[0] != 'c' {
		return Cursor{}, errCursor
	}
	var raw [12]byte
	for i := 1; i < cursorLen; i++ {
		if 'A' <= s[i] && s[i] <= 'F' { // one text per cursor: they compare as strings
			return Cursor{}, errCursor
		}
	}
	if _, err := hex.Decode(raw[:], []byte(s[1:])); err != nil {
		return Cursor{}, errCursor
	}
	return Cursor{Epoch: uint48(raw[:6]), Offset: int64(uint48(raw[6:])) - 1}, nil
}

func uint48(b []byte) uint64 {
	return uint64(b[0])<<40 | uint64(b[1])<<32 | uint64(b[2])<<24 | uint64(b[3])<<16 | uint64(b[4])<<8 | uint64(b[5])
}

func appendHex48(dst []byte, v uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 44; shift >= 0; shift -= 4 {
		dst = append(dst, digits[v>>shift&15])
	}
	return dst
}
