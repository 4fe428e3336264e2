package ingest

import (
	"errors"
	"net/http"
	"time"

	"github.com/spillway/spillway/ingest/binding"
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

// clientGone is what web servers log for a client that went away; nobody sees
// it but the metrics.
const clientGone = 499

// gone says that nobody waits for the answer.
const gone schemas.Reason = ""

func status(code schemas.Reason) int {
	switch s, ok := statuses[code]; {
	case ok:
		return s
	case code == gone:
		return clientGone
	}
	return http.StatusInternalServerError
}

// unavailable says that something this node needs does not work now.
func unavailable(code schemas.Reason, after time.Duration, format string, args ...any) *binding.Refusal {
	r := binding.Refuse(code, "", format, args...)
	r.RetryAfter = after
	return r
}

// A tokenError is what Tokens.Verify returns when it refuses.
type tokenError interface {
	error
	Refused() (reason schemas.Reason, claim string)
}

func fromTokenError(err error) *binding.Refusal {
	var t tokenError
	if !errors.As(err, &t) {
		return binding.Refuse(schemas.AuthFailed, "", "the token cannot be verified")
	}
	code, claim := t.Refused()
	r := binding.Refuse(code, "", "%s", t.Error())
	r.Claim = claim
	if code == schemas.AuthRequired {
		r.WithFix("send the header Authorization: Bearer TOKEN; spillway token TENANT makes one")
	}
	return r
}

func forbidden(claim, format string, args ...any) *binding.Refusal {
	r := binding.Refuse(schemas.Forbidden, "", format, args...)
	r.Claim = claim
	return r
}

// fromCodec is what the codec says about data.
func fromCodec(err error) *binding.Refusal {
	var e *codec.Error
	if !errors.As(err, &e) {
		return binding.Refuse(schemas.Internal, "data", "%v", err)
	}
	e = e.In("data")
	return &binding.Refusal{Code: e.Reason, Path: e.Path, Message: e.Path + ": " + e.Message, Fix: e.Fix, Event: -1}
}
