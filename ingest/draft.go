package ingest

import (
	"slices"

	"github.com/spillway/spillway/schemas"
)

// A draft is one event as the client wrote it. Its strings and data may point
// into the request's buffer: they are good until the request is answered.
type draft struct {
	attributes [attributes]string
	given      uint16 // bit i: attributes[i] was given
	extensions []schemas.Attribute
	data       []byte // JSON, or Avro in the wire format
	avro       bool
}

// attribute numbers the attributes that mean something to Spillway.
type attribute uint8

const (
	attrID attribute = iota
	attrSource
	attrType
	attrSubject
	attrTime
	attrTenant
	attrRegion
	attrPriority
	attrKey
	attrDataSchema
	attrTraceparent
	attrSpecVersion
	attributes
)

// names are the CloudEvents names, headers the names on Kafka.
var (
	names = [attributes]string{
		"id", "source", "type", "subject", "time", "tenantid", "region", "priority", "idempotencykey", "dataschema", "traceparent", "specversion",
	}
	headers = [attributes]string{
		schemas.HeaderID, schemas.HeaderSource, schemas.HeaderType, schemas.HeaderSubject, schemas.HeaderTime, schemas.HeaderTenant,
		schemas.HeaderRegion, schemas.HeaderPriority, schemas.HeaderIdempotencyKey, schemas.HeaderDataSchema, schemas.HeaderTraceparent, schemas.HeaderSpecVersion,
	}
)

func (d *draft) has(a attribute) bool { return d.given&(1<<a) != 0 }

// reset empties the draft; it keeps the memory of extensions.
func (d *draft) reset() { *d = draft{extensions: d.extensions[:0]} }

// set takes one context attribute. Its format is checked later, by the same
// code that will read it from Kafka.
func (d *draft) set(name, value string) *refusal {
	if value == "" {
		return refuse(schemas.AttributeInvalid, clip(name), "attribute %s is empty", clip(name)).withFix("leave it out")
	}
	i := slices.Index(names[:], name)
	if i < 0 {
		return d.setExtension(name, value)
	}
	a := attribute(i)
	if d.has(a) {
		return givenTwice(name)
	}
	d.given |= 1 << a
	d.attributes[a] = value
	if a == attrSpecVersion && value != "1.0" {
		return refuse(schemas.AttributeInvalid, name, "specversion %q is not spoken here", clip(value)).withFix("send 1.0, or leave it out")
	}
	return nil
}

func (d *draft) setExtension(name, value string) *refusal {
	for i := range d.extensions {
		if d.extensions[i].Name == name {
			return givenTwice(name)
		}
	}
	if len(d.extensions) == schemas.MaxExtensions {
		return refuse(schemas.AttributeInvalid, clip(name), "more than %d extension attributes", schemas.MaxExtensions)
	}
	d.extensions = append(d.extensions, schemas.Attribute{Name: name, Value: value})
	return nil
}

func givenTwice(name string) *refusal {
	return refuse(schemas.Malformed, clip(name), "attribute %s is given twice", clip(name))
}
