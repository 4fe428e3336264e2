package schemas

import (
	"time"
	"unicode/utf8"
)

// AppendCloudEvent appends the event as CloudEvents 1.0 JSON, the form in
// which clients get it; data is the payload as JSON already.
func AppendCloudEvent(dst []byte, ev *Event, data []byte) []byte {
	dst = append(dst, `{"specversion":"1.0","id":`...)
	if ev.ID != "" {
		dst = AppendJSONString(dst, ev.ID)
	} else {
		dst = append(ev.Origin.AppendTo(append(dst, '"')), '"')
	}
	dst = appendMember(dst, "source", ev.SourceText())
	dst = appendMember(dst, "type", ev.Type)
	dst = appendMember(dst, "subject", ev.Channel)
	dst = append(dst, `,"time":"`...)
	if ev.Time != "" {
		dst = append(dst, ev.Time...)
	} else {
		dst = AppendTime(dst, ev.Origin.AcceptedAt)
	}
	dst = append(dst, '"')
	if ev.DataSchema != "" {
		dst = appendMember(dst, "dataschema", ev.DataSchema)
	}
	dst = appendMember(dst, "tenantid", ev.Tenant)
	if ev.Traceparent != "" {
		dst = appendMember(dst, "traceparent", ev.Traceparent)
	}
	for _, a := range ev.Extensions {
		dst = appendMember(dst, a.Name, a.Value)
	}
	if ev.Return.Kind == Replay {
		dst = appendMember(dst, "replayid", ev.Return.Job)
	}
	dst = append(dst, `,"datacontenttype":"application/json","data":`...)
	return append(append(dst, data...), '}')
}

// AppendTime appends ms (Unix milliseconds) as RFC 3339 with milliseconds.
func AppendTime(dst []byte, ms int64) []byte {
	return time.UnixMilli(ms).UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z07:00")
}

func appendMember(dst []byte, name, value string) []byte {
	dst = append(append(dst, `,"`...), name...)
	return AppendJSONString(append(dst, `":`...), value)
}

// AppendJSONString appends s as a JSON string. Bytes that are not UTF-8 become
// U+FFFD.
func AppendJSONString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(append(dst, s[start:i]...), `\ufffd`...)
				start = i + 1
			}
			i += size
			continue
		}
		if c >= 0x20 && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}
