package ingest

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/codec"
)

// statuses is the HTTP status of each reason that ingest answers with; any
// other is 500 internal.
var statuses = map[schemas.Reason]int{
	schemas.Malformed:            http.StatusBadRequest,
	schemas.AttributeInvalid:     http.StatusBadRequest,
	schemas.ValueEmpty:           http.StatusBadRequest,
	schemas.NotWireFormat:        http.StatusBadRequest,
	schemas.AuthRequired:         http.StatusUnauthorized,
	schemas.AuthFailed:           http.StatusUnauthorized,
	schemas.TokenExpired:         http.StatusUnauthorized,
	schemas.TenantIllegal:        http.StatusBadRequest,
	schemas.Forbidden:            http.StatusForbidden,
	schemas.TenantUnknown:        http.StatusForbidden,
	schemas.TenantSuspended:      http.StatusForbidden,
	schemas.NotFound:             http.StatusNotFound,
	schemas.MethodNotAllowed:     http.StatusMethodNotAllowed,
	schemas.TooLarge:             http.StatusRequestEntityTooLarge,
	schemas.ContentTypeUnsupport: http.StatusUnsupportedMediaType,
	schemas.SchemaUnknown:        http.StatusUnprocessableEntity,
	schemas.SchemaMismatch:       http.StatusUnprocessableEntity,
	schemas.SchemaUnsupported:    http.StatusUnprocessableEntity,
	schemas.OverQuota:            http.StatusTooManyRequests,
	schemas.HeadersTooLarge:      http.StatusRequestHeaderFieldsTooLarge,
	schemas.Overloaded:           http.StatusServiceUnavailable,
	schemas.KafkaUnavailable:     http.StatusServiceUnavailable,
	schemas.RegistryDown:         http.StatusServiceUnavailable,
	schemas.Draining:             http.StatusServiceUnavailable,
	schemas.Internal:             http.StatusInternalServerError,
}

// A refusal is why a request is not taken, and the cure.
type refusal struct {
	code       schemas.Reason
	message    string        // a sentence for a person
	path       string        // attribute, or field inside data: "data.items[3].price"
	fix        string        // what would make it right, "" if nothing is obvious
	claim      string        // claim of the token that was missing or wrong
	event      int           // index in a batch, -1 if the request is no batch
	retryAfter time.Duration // > 0: when to try again; rounded up to seconds
	gone       bool          // the client went away: nobody reads the answer
}

func refuse(code schemas.Reason, path, format string, args ...any) *refusal {
	return &refusal{code: code, path: path, message: fmt.Sprintf(format, args...), event: -1}
}

func (r *refusal) withFix(format string, args ...any) *refusal {
	r.fix = fmt.Sprintf(format, args...)
	return r
}

func (r *refusal) inEvent(index int) *refusal {
	r.event = index
	return r
}

// clientGone is what web servers log for a client that went away; nobody sees
// it but the metrics.
const clientGone = 499

func (r *refusal) status() int {
	if r.gone {
		return clientGone
	}
	if s, ok := statuses[r.code]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// appendJSON appends the body of the answer; a line of its own, so that curl
// shows it well.
func (r *refusal) appendJSON(dst []byte) []byte {
	dst = schemas.AppendJSONString(append(dst, `{"error":{"code":`...), string(r.code))
	dst = schemas.AppendJSONString(append(dst, `,"message":`...), r.message)
	for _, m := range [...]struct{ name, value string }{{"path", r.path}, {"fix", r.fix}, {"claim", r.claim}} {
		if m.value != "" {
			dst = append(append(append(dst, `,"`...), m.name...), `":`...)
			dst = schemas.AppendJSONString(dst, m.value)
		}
	}
	if r.event >= 0 {
		dst = strconv.AppendInt(append(dst, `,"event":`...), int64(r.event), 10)
	}
	return append(dst, "}}\n"...)
}

// unavailable says that something this node needs does not work now.
func unavailable(code schemas.Reason, after time.Duration, format string, args ...any) *refusal {
	r := refuse(code, "", format, args...)
	r.retryAfter = after
	return r
}

// A tokenError is what Tokens.Verify returns when it refuses.
type tokenError interface {
	error
	Refused() (reason schemas.Reason, claim string)
}

func fromTokenError(err error) *refusal {
	var t tokenError
	if !errors.As(err, &t) {
		return refuse(schemas.AuthFailed, "", "the token cannot be verified")
	}
	code, claim := t.Refused()
	r := refuse(code, "", "%s", t.Error())
	r.claim = claim
	if code == schemas.AuthRequired {
		r.withFix("send the header Authorization: Bearer TOKEN; spillway token TENANT makes one")
	}
	return r
}

func forbidden(claim, format string, args ...any) *refusal {
	r := refuse(schemas.Forbidden, "", format, args...)
	r.claim = claim
	return r
}

// fromCodec is what the codec says about data.
func fromCodec(err error) *refusal {
	var e *codec.Error
	if !errors.As(err, &e) {
		return refuse(schemas.Internal, "data", "%v", err)
	}
	e = e.In("data")
	return &refusal{code: e.Reason, path: e.Path, message: e.Path + ": " + e.Message, fix: e.Fix, event: -1}
}
