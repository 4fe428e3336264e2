package binding

import (
	"mime"
	"strings"

	"github.com/spillway/spillway/schemas"
)

// Media types of the CloudEvents HTTP binding.
const (
	TypeStructured = "application/cloudevents+json"
	TypeBatch      = "application/cloudevents-batch+json"
	TypeForm       = "application/x-www-form-urlencoded" // what curl -d says of anything
)

// Mode is how a request carries events.
type Mode uint8

// The modes.
const (
	Binary     Mode = iota // the body is the data, attributes are headers or query parameters
	Structured             // the body is one event
	Batched                // the body is an array of events
)

// ReadMode tells the mode of a request by its Content-Type and, in binary
// mode, whether the data is Avro.
func ReadMode(contentType string) (m Mode, avro bool, refused *Refusal) {
	media, refused := mediaType(contentType)
	switch {
	case refused != nil:
		return 0, false, refused
	case media == TypeStructured:
		return Structured, false, nil
	case media == TypeBatch:
		return Batched, false, nil
	case media == TypeForm:
		return Binary, false, nil
	case strings.HasPrefix(media, "application/cloudevents"):
		return 0, false, Refuse(schemas.ContentTypeUnsupport, "", "content type %s is not taken", Clip(media)).
			WithFix("send %s or %s", TypeStructured, TypeBatch)
	}
	avro, refused = readDataType(media)
	return Binary, avro, refused
}

// readDataType tells whether data of this media type is Avro or JSON.
func readDataType(media string) (avro bool, refused *Refusal) {
	switch {
	case media == schemas.ContentTypeAvro:
		return true, nil
	case media == "", media == "application/json", media == "text/json", strings.HasSuffix(media, "+json"):
		return false, nil
	}
	return false, Refuse(schemas.ContentTypeUnsupport, "datacontenttype", "data of type %s is not taken", Clip(media)).
		WithFix("send application/json, or %s in the Confluent wire format", schemas.ContentTypeAvro)
}

// mediaType is the type without its parameters, in lower case.
func mediaType(contentType string) (string, *Refusal) {
	switch contentType { // as almost all say it
	case "", "application/json", TypeStructured, TypeBatch, TypeForm, schemas.ContentTypeAvro:
		return contentType, nil
	}
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return "", Refuse(schemas.ContentTypeUnsupport, "", "content type %q: %v", Clip(contentType), err)
	}
	if set := strings.ToLower(params["charset"]); set != "" && set != "utf-8" && set != "us-ascii" {
		return "", Refuse(schemas.ContentTypeUnsupport, "", "charset %q is not taken", Clip(set)).WithFix("send UTF-8")
	}
	return media, nil
}
