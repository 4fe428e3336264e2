package ingest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"unsafe"

	"github.com/spillway/spillway/schemas"
)

// checkJSON says where body stops being JSON. All that walks it afterwards
// (walk.go) relies on it.
func checkJSON(body []byte) *refusal {
	if json.Valid(body) {
		return nil
	}
	var raw json.RawMessage
	err := json.Unmarshal(body, &raw)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return refuse(schemas.Malformed, "", "the body is not JSON: %v, at byte %d", syntax, syntax.Offset)
	}
	return refuse(schemas.Malformed, "", "the body is not JSON: %v", err)
}

// readStructured reads one event in JSON format, which is valid JSON.
func readStructured(d *draft, raw []byte) *refusal {
	if kindOf(raw) != '{' {
		return refuse(schemas.Malformed, "", "an event is a JSON object, not %s", kindName(raw))
	}
	var data, data64 []byte
	contentType := ""
	for m := (walker{b: raw}); m.nextMember(); {
		key := textOf(m.key)
		switch key {
		case "data":
			if data != nil {
				return givenTwice(key)
			}
			data = m.value
			continue
		case "data_base64":
			if data64 != nil {
				return givenTwice(key)
			}
			data64 = m.value
			continue
		}
		value, refused := attributeText(key, m.value)
		switch {
		case refused != nil:
			return refused
		case value == "" && kindOf(m.value) == 'n': // null: not given (JSON format 1.0, section 2.2)
		case key == "datacontenttype":
			if contentType != "" {
				return givenTwice(key)
			}
			contentType = value
		default:
			if refused := d.set(key, value); refused != nil {
				return refused
			}
		}
	}
	return d.setData(contentType, data, data64)
}

// attributeText is the canonical text of an attribute's value (CloudEvents 1.0,
// "Type System"); "" for null.
func attributeText(name string, raw []byte) (string, *refusal) {
	switch kindOf(raw) {
	case '"':
		return textOf(raw), nil
	case 't', 'f', '0':
		return view(raw), nil
	case 'n':
		return "", nil
	}
	return "", refuse(schemas.AttributeInvalid, clip(name), "attribute %s is %s, want a string, number or boolean", clip(name), kindName(raw)).
		withFix("the payload belongs into data")
}

// setData chooses between data and data_base64 (JSON format 1.0, section 3.1).
func (d *draft) setData(contentType string, data, data64 []byte) (refused *refusal) {
	media, refused := mediaType(contentType)
	if refused == nil {
		d.avro, refused = readDataType(media)
	}
	switch {
	case refused != nil:
		refused.path = "datacontenttype"
		return refused
	case data != nil && data64 != nil:
		return refuse(schemas.Malformed, "data_base64", "data and data_base64 are both given")
	case data64 != nil:
		if kindOf(data64) != '"' {
			return refuse(schemas.Malformed, "data_base64", "data_base64 is %s, want a string", kindName(data64))
		}
		decoded, err := base64.StdEncoding.AppendDecode(nil, []byte(textOf(data64)))
		if err != nil {
			return refuse(schemas.Malformed, "data_base64", "data_base64: %v", err)
		}
		d.data = decoded
	case d.avro && data != nil:
		return refuse(schemas.Malformed, "data", "data of type %s cannot be JSON", schemas.ContentTypeAvro).withFix("put the bytes into data_base64")
	default:
		d.data = data
	}
	return nil
}

// textOf is the text of a JSON string; it points into raw unless raw has
// escapes.
func textOf(raw []byte) string {
	inner := raw[1 : len(raw)-1]
	for _, c := range inner {
		if c == '\\' {
			var s string
			_ = json.Unmarshal(raw, &s) // it is valid
			return s
		}
	}
	return view(inner)
}

// view is b as a string without a copy: nobody writes into a request's buffer
// until the request is answered.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
