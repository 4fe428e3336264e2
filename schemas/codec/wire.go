package codec

import (
	"encoding/binary"

	"github.com/spillway/spillway/schemas"
)

// HeaderSize is the length of the Confluent wire format's header: byte 0, then
// the schema id, 4 bytes big-endian, then the Avro body.
const HeaderSize = 5

// AppendHeader appends the header for a schema id to dst.
func AppendHeader(dst []byte, id int) []byte {
	return binary.BigEndian.AppendUint32(append(dst, 0), uint32(id))
}

// ParseHeader splits a record's value into schema id and Avro body, which
// points into value. The error is an *Error with reason not_wire_format. It
// allocates nothing when it succeeds. Ids are positive; 0 and what does not fit
// 31 bits is no id of any registry.
func ParseHeader(value []byte) (id int, body []byte, err error) {
	if len(value) < HeaderSize || value[0] != 0 {
		return 0, nil, notWireFormat(value)
	}
	n := binary.BigEndian.Uint32(value[1:])
	if n == 0 || n > 1<<31-1 {
		return 0, nil, &Error{Reason: schemas.NotWireFormat, Message: "schema id is not positive"}
	}
	return int(n), value[HeaderSize:], nil
}

func notWireFormat(value []byte) *Error {
	e := &Error{Reason: schemas.NotWireFormat, Message: "value does not begin with byte 0 and a schema id"}
	switch {
	case len(value) > 0 && value[0] == 0:
		e.Message = "value ends inside the 5-byte header"
	case len(value) > 0 && (value[0] == '{' || value[0] == '['):
		e.Message = "value looks like JSON"
		e.Fix = "send JSON to POST /v1/events, or encode it with spillway schemas encode"
	case len(value) > 3 && string(value[:4]) == "Obj\x01":
		e.Message = "value is an Avro object container file"
		e.Fix = "send single records in the Confluent wire format"
	}
	return e
}
