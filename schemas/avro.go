package schemas

import (
	"encoding/binary"
	"errors"
	"math"
)

// The system's own records are written and read field by field, in the Avro
// binary encoding of their .avsc files: they are on the hot path, and a test
// holds the two together.

var errAvro = errors.New("avro: record is cut short or out of range")

// AppendWireHeader appends the Confluent wire format's header: byte 0 and the
// schema id, big endian.
func AppendWireHeader(dst []byte, schemaID int32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, 0), uint32(schemaID))
}

// WireHeader splits a value in the Confluent wire format into schema id and
// Avro body. It reports false if value does not begin with such a header.
func WireHeader(value []byte) (schemaID int32, body []byte, ok bool) {
	if len(value) < 5 || value[0] != 0 {
		return 0, nil, false
	}
	return int32(binary.BigEndian.Uint32(value[1:])), value[5:], true
}

func appendLong(dst []byte, v int64) []byte { return binary.AppendVarint(dst, v) }

func appendText(dst []byte, s string) []byte {
	return append(appendLong(dst, int64(len(s))), s...)
}

// reader reads Avro primitives off the front of b; its first failure sticks.
type reader struct {
	b   []byte
	err error
}

func (r *reader) long() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int32() int32 {
	v := r.long()
	if v < math.MinInt32 || v > math.MaxInt32 {
		r.fail()
		return 0
	}
	return int32(v)
}

func (r *reader) text() string { return string(r.take(r.long())) }

func (r *reader) take(n int64) []byte {
	if n < 0 || n > int64(len(r.b)) {
		r.fail()
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) fail() { r.b, r.err = nil, errAvro }

// done is the error of the whole record: all of it must have been read.
func (r *reader) done() error {
	if r.err == nil && len(r.b) > 0 {
		return errors.New("avro: bytes follow the record")
	}
	return r.err
}
