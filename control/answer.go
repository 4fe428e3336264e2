package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/spillway/spillway/schemas"
)

// precondition reads If-Match and If-None-Match (RFC 9110, section 13.1).
func precondition(r *http.Request) (int64, error) {
	match, none := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	switch {
	case none == "*" && match == "":
		return noVersion, nil
	case none != "":
		return 0, &Error{status: http.StatusBadRequest, Code: schemas.Malformed, Message: "If-None-Match: only * is known"}
	case match == "" || match == "*":
		return anyVersion, nil
	}
	version, err := strconv.ParseInt(strings.Trim(match, `"`), 10, 64)
	if err != nil || version < 0 {
		return 0, &Error{status: http.StatusBadRequest, Code: schemas.Malformed, Message: fmt.Sprintf("If-Match: %.80q is no version", match)}
	}
	return version, nil
}

func decodeSpec(kind Kind, body []byte) (any, error) {
	switch kind {
	case KindTenant:
		return decodeInto[schemas.Policy](body)
	case KindEndpoint:
		return decodeInto[schemas.Endpoint](body)
	}
	return decodeInto[Flag](body)
}

func decodeInto[T any](body []byte) (any, error) {
	var v T
	err := unreadable(strictJSON(body, &v))
	return v, err
}

// unreadable says where JSON is wrong, as far as the library tells.
func unreadable(err error) error {
	if err == nil {
		return nil
	}
	e := &Error{status: http.StatusBadRequest, Code: schemas.Malformed, Message: strings.TrimPrefix(err.Error(), "json: ")}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		e.Path = wrong.Field
	}
	return e
}

func read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if strings.TrimSpace(media) != "application/json" { // so that no foreign page can send it unasked
		return nil, &Error{status: http.StatusUnsupportedMediaType, Code: schemas.Malformed, Message: "Content-Type: application/json is required"}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, &Error{Code: schemas.TooLarge, Message: fmt.Sprintf("the body has more than %d bytes", maxBody)}
	case err != nil:
		return nil, &Error{status: http.StatusBadRequest, Code: schemas.Malformed, Message: "the body ended early"}
	}
	return body, nil
}

var statuses = map[schemas.Reason]int{
	schemas.Malformed: http.StatusUnprocessableEntity, schemas.NotFound: http.StatusNotFound, schemas.Conflict: http.StatusPreconditionFailed,
	schemas.AuthRequired: http.StatusUnauthorized, schemas.AuthFailed: http.StatusUnauthorized, schemas.TokenExpired: http.StatusUnauthorized,
	schemas.Forbidden: http.StatusForbidden, schemas.TooLarge: http.StatusRequestEntityTooLarge, schemas.MethodNotAllowed: http.StatusMethodNotAllowed,
	schemas.KafkaUnavailable: http.StatusServiceUnavailable, schemas.Moved: http.StatusServiceUnavailable, schemas.Overloaded: http.StatusServiceUnavailable,
}

// refusal is err as a client is told it.
func refusal(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, errFenced):
		return &Error{Code: schemas.Moved, Message: err.Error()}
	}
	return &Error{Code: schemas.KafkaUnavailable, Message: err.Error()}
}

func notAllowed(methods string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", methods)
		answerError(w, &Error{Code: schemas.MethodNotAllowed, Message: "takes " + methods})
	}
}

func answerError(w http.ResponseWriter, e *Error) {
	status := e.status
	if status == 0 {
		status = statuses[e.Code]
	}
	if status == 0 {
		status = http.StatusInternalServerError
	}
	switch status {
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	answer(w, status, map[string]*Error{"error": e})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client has gone: nobody to tell
}

func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// clip bounds a name that came from outside.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}
