package codec

import (
	"fmt"
	"strconv"

	"github.com/spillway/spillway/schemas"
)

// What the encoder tells a person. While a union tries its branches nobody
// listens, and errNotThis stands for all of it.

// wrongKind: the value is of a JSON kind that the type never takes.
func (e *encoder) wrongKind(n *node, t token) *Error {
	if e.trying > 0 {
		return errNotThis
	}
	err := mismatch("want %s, got %s", n.says, e.got(t))
	switch {
	case t.kind == kindString && (n.json.has(kindNumber) || n.json.has(kindTrue)):
		if s := e.text(t); isNumber(s) || string(s) == "true" || string(s) == "false" {
			err.Fix = "write " + clip(string(s)) + " without quotes"
		}
	case n.wire == opString && t.kind != kindNull && t.kind < kindString:
		err.Fix = "write " + strconv.Quote(clip(string(e.src[t.start:t.end]))) + " in quotes"
	case n.op == opArray && t.kind != kindNull:
		err.Fix = "put it in [ ]"
	case n.json == kinds(kindString) && n.op != opUnion:
		err.Fix = n.example()
	}
	return err
}

// wrongText: the kind is right, the text is not.
func (e *encoder) wrongText(n *node, t token) *Error {
	if e.trying > 0 {
		return errNotThis
	}
	err := mismatch("want %s, got %s", n.says, e.got(t))
	err.Fix = n.example()
	switch n.op {
	case opUnion:
		err.Fix = ""
	case opEnum:
		err.Message = fmt.Sprintf("%s is no symbol of %s", e.got(t), n.says)
		err.Fix = nearest(string(e.text(t)), n.symbols, "symbols")
	case opLong, opFloat, opDouble:
		if s := e.text(t); t.kind == kindString && isNumber(s) {
			err.Fix = "write " + clip(string(s)) + " without quotes"
		}
	}
	return err
}

// example is the fix for a text that does not fit the type.
func (n *node) example() string {
	fraction := "123456789"[:max(n.digits, 1)]
	switch n.op {
	case opInt:
		return "write an integer from -2147483648 to 2147483647"
	case opLong:
		return "write an integer of 64 bits"
	case opFloat, opDouble:
		return `write a number, "NaN", "Infinity" or "-Infinity"`
	case opBytes:
		return "write the bytes in base64 with padding"
	case opFixed:
		return fmt.Sprintf("write %d bytes in base64 with padding", n.size)
	case opDate:
		return `write it as "2006-01-02"`
	case opTime:
		return fmt.Sprintf(`write it as "15:04:05.%s", %d digits after the point at most`, fraction, n.digits)
	case opTimestamp:
		return fmt.Sprintf(`write it as RFC 3339, "2006-01-02T15:04:05.%sZ", %d digits after the point at most`, fraction, n.digits)
	case opLocalTimestamp:
		return fmt.Sprintf(`write it without a zone, "2006-01-02T15:04:05.%s", %d digits after the point at most`, fraction, n.digits)
	case opDecimal:
		return fmt.Sprintf("write a decimal with %d digits at most, %d of them after the point", n.precision, n.scale)
	case opUUID:
		return `write it as "123e4567-e89b-12d3-a456-426614174000"`
	case opDuration:
		return `write it as ISO 8601, "P1M2DT3.004S"`
	}
	return ""
}

// got names the value, with its text where that is short.
func (e *encoder) got(t token) string {
	name := kindNames[t.kind]
	switch t.kind {
	case kindNumber:
		return name + " " + clip(string(e.src[t.start:t.end]))
	case kindString:
		return name + " " + strconv.Quote(clip(string(e.text(t))))
	}
	return name
}

func (e *encoder) inField(err *Error, f *field, slot uint32) *Error {
	if err != errNotThis && err.Path == "" && err.Fix == "" && f.optional && e.toks[slot].kind == kindNull {
		err.Fix = "leave the field out for its default"
	}
	return err.under(f.name)
}

func (e *encoder) unknown(n *node, name string) *Error {
	if e.trying > 0 {
		return errNotThis
	}
	err := mismatch("%s has no such field", n.says)
	err.Fix = nearest(name, n.fieldNames(), "fields")
	return err.underKey(name)
}

func (e *encoder) repeated(name string) *Error {
	if e.trying > 0 {
		return errNotThis
	}
	return (&Error{Reason: schemas.SchemaMismatch, Message: "the key is there twice"}).underKey(name)
}

func (e *encoder) missing(f *field) *Error {
	if e.trying > 0 {
		return errNotThis
	}
	err := mismatch("the field is missing and has no default")
	err.Fix = fmt.Sprintf("add %q: %s", f.name, f.node.says)
	return err.under(f.name)
}
