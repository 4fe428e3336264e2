package binding

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spillway/spillway/schemas"
)

// parameters are the query parameters of the short form.
var parameters = map[string]Attribute{
	"type": Type, "subject": Subject, "id": ID, "source": Source, "time": Time,
	"priority": Priority, "region": Region, "dataschema": DataSchema,
	"key": Key, "idempotencykey": Key, "tenant": Tenant, "tenantid": Tenant,
}

const parameterNames = "type, subject, id, source, time, priority, region, dataschema, key, tenant"

// ReadBinary reads the attributes of an event in binary mode from headers and
// raw query; its data is the body.
func (d *Draft) ReadBinary(header http.Header, query string) *Refusal {
	for key, values := range header {
		name, ok := strings.CutPrefix(key, "Ce-") // net/http has made the case so
		if !ok {
			continue
		}
		name = strings.ToLower(name)
		if len(values) > 1 {
			return givenTwice(name)
		}
		value, refused := decodeHeader(name, values[0])
		if refused == nil {
			refused = d.set(name, value)
		}
		if refused != nil {
			return refused
		}
	}
	slices.SortFunc(d.Extensions, func(a, b schemas.Attribute) int { return strings.Compare(a.Name, b.Name) })
	return d.readQuery(query)
}

func (d *Draft) readQuery(query string) *Refusal {
	if query == "" {
		return nil
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return Refuse(schemas.Malformed, "", "the query cannot be read: %v", Clip(err.Error())).WithFix("write %%25 for %%, and %%26 for &")
	}
	for key, vs := range values {
		a, known := parameters[key]
		if !known {
			return Refuse(schemas.Malformed, Clip(key), "query parameter %s is not known", Clip(key)).WithFix("there are %s", parameterNames)
		}
		for _, v := range vs {
			if refused := d.set(names[a], v); refused != nil {
				return refused
			}
		}
	}
	return nil
}

// decodeHeader reads an attribute's value (CloudEvents HTTP binding 1.0,
// section 3.1.3.2): quoted parts are unquoted, then %XX is decoded once. A %
// without two hex digits stands for itself.
func decodeHeader(name, value string) (string, *Refusal) {
	if strings.IndexByte(value, '"') >= 0 {
		value = unquote(value)
	}
	if strings.IndexByte(value, '%') >= 0 {
		value = decodePercent(value)
	}
	if !utf8.ValidString(value) {
		return "", Refuse(schemas.AttributeInvalid, Clip(name), "header Ce-%s is not UTF-8", Clip(name)).WithFix("percent-encode it as UTF-8")
	}
	return value, nil
}

func unquote(s string) string {
	out := make([]byte, 0, len(s))
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '\\' && quoted && i+1 < len(s):
			i++
			out = append(out, s[i])
		default:
			out = append(out, s[i])
		}
	}
	return string(out)
}

func decodePercent(s string) string {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			hi, lo := hexDigit(s[i+1]), hexDigit(s[i+2])
			if hi >= 0 && lo >= 0 {
				out = append(out, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
