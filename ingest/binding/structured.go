package binding

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"unsafe"

	"github.com/spillway/spillway/schemas"
)

// CheckJSON says where body stops being JSON. ReadStructured and ReadBatch
// rely on it.
func CheckJSON(body []byte) *Refusal {
	if json.Valid(body) {
		return nil
	}
	var raw json.RawMessage
	err := json.Unmarshal(body, &raw)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return Refuse(schemas.Malformed, "", "the body is not JSON: %v, at byte %d", syntax, syntax.Offset)
	}
	return Refuse(schemas.Malformed, "", "the body is not JSON: %v", err)
}

// ReadStructured reads one event in JSON format, which must have passed
// CheckJSON, alone or as part of a batch.
func (d *Draft) ReadStructured(raw []byte) *Refusal {
	if kindOf(raw) != '{' {
		return Refuse(schemas.Malformed, "", "an event is a JSON object, not %s", kindName(raw))
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
func attributeText(name string, raw []byte) (string, *Refusal) {
	switch kindOf(raw) {
	case '"':
		return textOf(raw), nil
	case 't', 'f', '0':
		return view(raw), nil
	case 'n':
		return "", nil
	}
	return "", Refuse(schemas.AttributeInvalid, Clip(name), "attribute %s is %s, want a string, number or boolean", Clip(name), kindName(raw)).
		WithFix("the payload belongs into data")
}

// setData chooses between data and data_base64 (JSON format 1.0, section 3.1).
func (d *Draft) setData(contentType string, data, data64 []byte) (refused *Refusal) {
	media, refused := mediaType(contentType)
	if refused == nil {
		d.Avro, refused = readDataType(media)
	}
	switch {
	case refused != nil:
		refused.Path = "datacontenttype"
		return refused
	case data != nil && data64 != nil:
		return Refuse(schemas.Malformed, "data_base64", "data and data_base64 are both given")
	case data64 != nil:
		if kindOf(data64) != '"' {
			return Refuse(schemas.Malformed, "data_base64", "data_base64 is %s, want a string", kindName(data64))
		}
		decoded, err := base64.StdEncoding.AppendDecode(nil, []byte(textOf(data64)))
		if err != nil {
			return Refuse(schemas.Malformed, "data_base64", "data_base64: %v", err)
		}
		d.Data = decoded
	case d.Avro && data != nil:
		return Refuse(schemas.Malformed, "data", "data of type %s cannot be JSON", schemas.ContentTypeAvro).WithFix("put the bytes into data_base64")
	default:
		d.Data = data
	}
	return nil
}

// A Batch steps over the events of a batch.
type Batch struct {
	walker walker
	n      int
}

// ReadBatch counts the events of a batch, which must have passed CheckJSON.
func ReadBatch(body []byte) (*Batch, *Refusal) {
	if kindOf(body) != '[' {
		return nil, Refuse(schemas.Malformed, "", "a batch is a JSON array of events, not %s", kindName(body))
	}
	b := &Batch{walker: walker{b: body}}
	for w := b.walker; w.nextElement(); {
		b.n++
	}
	return b, nil
}

// Len is the number of events in the whole batch.
func (b *Batch) Len() int { return b.n }

// Next is the next event's JSON, nil after the last.
func (b *Batch) Next() []byte {
	if !b.walker.nextElement() {
		return nil
	}
	return b.walker.value
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
