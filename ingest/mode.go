package ingest

import (
	"mime"
	"strings"

	"github.com/spillway/spillway/schemas"
)

// Media types of the CloudEvents HTTP binding.
const (
	typeStructured = "application/cloudevents+json"
	typeBatch      = "application/cloudevents-batch+json"
	typeForm       = "application/x-www-form-urlencoded" // what curl -d says of anything
)

// mode is how a request carries events.
type mode uint8

const (
	modeBinary     mode = iota // the body is the data, attributes are headers or query parameters
	modeStructured             // the body is one event
	modeBatch                  // the body is an array of events
)

// readMode tells mode and, in binary mode, whether the data is Avro.
func readMode(contentType string) (m mode, avro bool, refused *refusal) {
	media, refused := mediaType(contentType)
	switch {
	case refused != nil:
		return 0, false, refused
	case media == typeStructured:
		return modeStructured, false, nil
	case media == typeBatch:
		return modeBatch, false, nil
	case media == typeForm:
		return modeBinary, false, nil
	case strings.HasPrefix(media, "application/cloudevents"):
		return 0, false, refuse(schemas.ContentTypeUnsupport, "", "content type %s is not taken", clip(media)).
			withFix("send %s or %s", typeStructured, typeBatch)
	}
	avro, refused = readDataType(media)
	return modeBinary, avro, refused
}

// readDataType tells whether data of this media type is Avro or JSON.
func readDataType(media string) (avro bool, refused *refusal) {
	switch {
	case media == schemas.ContentTypeAvro:
		return true, nil
	case media == "", media == "application/json", media == "text/json", strings.HasSuffix(media, "+json"):
		return false, nil
	}
	return false, refuse(schemas.ContentTypeUnsupport, "datacontenttype", "data of type %s is not taken", clip(media)).
		withFix("send application/json, or %s in the Confluent wire format", schemas.ContentTypeAvro)
}

// mediaType is the type without its parameters, in lower case.
func mediaType(contentType string) (string, *refusal) {
	switch contentType { // as almost all say it
	case "", "application/json", typeStructured, typeBatch, typeForm, schemas.ContentTypeAvro:
		return contentType, nil
	}
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return "", refuse(schemas.ContentTypeUnsupport, "", "content type %q: %v", clip(contentType), err)
	}
	if set := strings.ToLower(params["charset"]); set != "" && set != "utf-8" && set != "us-ascii" {
		return "", refuse(schemas.ContentTypeUnsupport, "", "charset %q is not taken", clip(set)).withFix("send UTF-8")
	}
	return media, nil
}

// clip keeps messages short whatever a client sends.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
