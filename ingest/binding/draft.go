package binding

import (
	"slices"

	"github.com/spillway/spillway/schemas"
)

// A Draft is one event as the client wrote it. Its strings and data may point
// into the request's buffer.
type Draft struct {
	Attributes [NumAttributes]string // by Attribute; "" if not given
	Extensions []schemas.Attribute   // in the order given; of headers, by name
	Data       []byte                // JSON, or Avro in the wire format
	Avro       bool                  // which of the two
}

// Attribute numbers the attributes that mean something to Spillway.
type Attribute uint8

// The attributes. They say what the headers of DESIGN section 3.2 say.
const (
	ID Attribute = iota
	Source
	Type
	Subject
	Time
	Tenant
	Region
	Priority
	Key
	DataSchema
	Traceparent
	SpecVersion
	NumAttributes
)

// names are the CloudEvents names of the attributes.
var names = [NumAttributes]string{
	"id", "source", "type", "subject", "time", "tenantid", "region", "priority", "idempotencykey", "dataschema", "traceparent", "specversion",
}

// Has reports whether an attribute was given.
func (d *Draft) Has(a Attribute) bool { return d.Attributes[a] != "" }

// Reset empties the draft; it keeps the memory of Extensions.
func (d *Draft) Reset() { *d = Draft{Extensions: d.Extensions[:0]} }

// set takes one context attribute; an empty one is an error (CloudEvents 1.0:
// "MUST be a non-empty string").
func (d *Draft) set(name, value string) *Refusal {
	if value == "" {
		return Refuse(schemas.AttributeInvalid, Clip(name), "attribute %s is empty", Clip(name)).WithFix("leave it out")
	}
	i := slices.Index(names[:], name)
	if i < 0 {
		return d.setExtension(name, value)
	}
	if d.Attributes[i] != "" {
		return givenTwice(name)
	}
	d.Attributes[i] = value
	if Attribute(i) == SpecVersion && value != "1.0" {
		return Refuse(schemas.AttributeInvalid, name, "specversion %q is not spoken here", Clip(value)).WithFix("send 1.0, or leave it out")
	}
	return nil
}

func (d *Draft) setExtension(name, value string) *Refusal {
	for i := range d.Extensions {
		if d.Extensions[i].Name == name {
			return givenTwice(name)
		}
	}
	if len(d.Extensions) == schemas.MaxExtensions {
		return Refuse(schemas.AttributeInvalid, Clip(name), "more than %d extension attributes", schemas.MaxExtensions)
	}
	d.Extensions = append(d.Extensions, schemas.Attribute{Name: name, Value: value})
	return nil
}

func givenTwice(name string) *Refusal {
	return Refuse(schemas.Malformed, Clip(name), "attribute %s is given twice", Clip(name))
}
