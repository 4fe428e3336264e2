// Package codec turns Avro bodies into plain JSON and back, without a value
// tree in between: a schema is compiled once into a program of nodes, and the
// program walks the bytes.
//
//	schema text ──Compile──▶ Codec (program of nodes, immutable)
//	                           │
//	  Avro body ──AppendJSON───┤──▶ plain JSON      decode.go
//	  plain JSON ──AppendAvro──┘──▶ Avro body       scan.go (tokens), encode.go
//
// Plain JSON (DESIGN 3.3), by Avro type:
//
//	null boolean int float double string   as in JSON; NaN, Infinity and -Infinity as those strings
//	long                     number up to ±2^53, beyond as a decimal string; both are read
//	bytes, fixed             standard base64 with padding
//	enum                     its symbol
//	record, map              object; unknown fields and repeated keys are errors
//	union                    the bare value; the first branch that accepts it is written
//	decimal                  string with exactly scale digits after the point; numbers are read too
//	date                     "2006-01-02"
//	time-millis, -micros     "15:04:05.000", "15:04:05.000000"
//	timestamp-*              RFC 3339 in UTC with 3, 6 or 9 digits; any offset is read
//	local-timestamp-*        the same without a zone
//	uuid                     8-4-4-4-12 hexadecimal digits
//	duration                 ISO 8601, "P1M2DT3.004S": months, days, seconds; PT0S is none
//
// A missing field takes its default, else null if it is nullable, else it is
// an error. What cannot be said in this form (a year past 9999, text that is not
// UTF-8, a map with a key twice) is an error in both directions.
//
// Everything here is safe for concurrent use, and all work and memory is
// bounded by the size limit that the caller gives and by MaxDepth.
//
// The package is larger than others because nodes, tokens and texts know each
// other and nobody else needs them.
package codec

import (
	"fmt"

	"github.com/spillway/spillway/schemas"
	"github.com/twmb/avro"
)

// Bounds. They hold in both directions, so that what one accepts the other does.
const (
	MaxDepth      = 256     // nested records, arrays and maps of a value
	MaxSchemaText = 1 << 20 // bytes of a schema's text
	DefaultMax    = 1 << 20 // bytes, where the caller gives no limit (DESIGN 3.2: max_event)
	maxLimit      = 1 << 30 // bytes; a larger limit is taken as this one
)

// A Codec is one compiled schema. It is immutable.
type Codec struct {
	text string
	name string
	root *node
}

// Compile parses and compiles the text of a schema that needs no other schema.
// The error is an *Error with reason schema_unsupported.
func Compile(schemaJSON string) (*Codec, error) {
	if len(schemaJSON) > MaxSchemaText {
		return nil, unsupported("schema text of %d bytes, at most %d are read", len(schemaJSON), MaxSchemaText)
	}
	parsed, err := avro.Parse(schemaJSON)
	if err != nil {
		return nil, unsupported("schema: %v", err)
	}
	c := compiler{named: map[string]*node{}, sources: map[*node]*fieldSource{}}
	root, err := c.compile(parsed.Root(), "")
	if err != nil {
		return nil, err
	}
	measure(root)
	if err := c.defaults(); err != nil {
		return nil, err
	}
	codec := &Codec{text: schemaJSON, root: root}
	if root.op == opRecord {
		codec.name = root.name
	}
	return codec, nil
}

// Name is the full name of the record, "" if the schema is not a record.
func (c *Codec) Name() string { return c.name }

// Text is the schema as it was given to Compile.
func (c *Codec) Text() string { return c.text }

// AppendJSON appends the plain JSON of an Avro body (without the wire format's
// header) to dst. Neither the body nor the JSON may exceed max bytes; max <= 0
// means DefaultMax. On error dst is returned as it was, with an *Error of
// reason schema_mismatch or too_large. It allocates nothing but dst, except
// for decimals of more than 8 bytes and maps of more than 32 keys.
func (c *Codec) AppendJSON(dst, body []byte, max int) ([]byte, error) {
	max = bound(max)
	if len(body) > max {
		return dst, tooLarge("Avro body", max)
	}
	d := decoder{src: body, dst: dst, limit: len(dst) + max, max: max}
	if err := d.value(c.root); err != nil {
		return dst, err
	}
	if d.pos != len(body) {
		return dst, mismatch("%d bytes after the end of the value", len(body)-d.pos)
	}
	if len(d.dst) > d.limit {
		return dst, tooLarge("JSON", max)
	}
	return d.dst, nil
}

// AppendAvro appends the Avro body of a plain JSON value to dst. Neither the
// JSON nor the body may exceed max bytes; max <= 0 means DefaultMax. On error
// dst is returned as it was, with an *Error of reason schema_mismatch,
// malformed (not JSON) or too_large; its Path names the field.
func (c *Codec) AppendAvro(dst, json []byte, max int) ([]byte, error) {
	e := encoders.Get().(*encoder)
	defer e.release()
	return e.encode(c.root, dst, json, bound(max))
}

// Skip reports whether body is one whole value of the schema, without making
// JSON of it. It checks lengths and indices, not text.
func (c *Codec) Skip(body []byte) error {
	d := decoder{src: body}
	if err := d.skip(c.root); err != nil {
		return err
	}
	if d.pos != len(body) {
		return mismatch("%d bytes after the end of the value", len(body)-d.pos)
	}
	return nil
}

func bound(max int) int {
	if max <= 0 {
		return DefaultMax
	}
	return min(max, maxLimit)
}

func unsupported(format string, args ...any) *Error {
	return &Error{Reason: schemas.SchemaUnsupported, Message: fmt.Sprintf(format, args...)}
}

func mismatch(format string, args ...any) *Error {
	return &Error{Reason: schemas.SchemaMismatch, Message: fmt.Sprintf(format, args...)}
}

func tooLarge(what string, max int) *Error {
	return &Error{Reason: schemas.TooLarge, Message: fmt.Sprintf("%s exceeds %d bytes", what, max)}
}
