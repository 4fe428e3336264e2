package registry

import "fmt"

// Error codes of the Confluent Schema Registry. The HTTP status is the code's
// first three digits.
const (
	codeBadRequest         = 400
	codeNotFound           = 404
	codeMethodNotAllowed   = 405
	codeIncompatible       = 409
	codeSubjectNotFound    = 40401
	codeVersionNotFound    = 40402
	codeSchemaNotFound     = 40403
	codeSubjectSoftDeleted = 40404
	codeSubjectNotDeleted  = 40405
	codeVersionSoftDeleted = 40406
	codeVersionNotDeleted  = 40407
	codeNoSubjectConfig    = 40408
	codeNoSubjectMode      = 40409
	codeInvalidSchema      = 42201
	codeInvalidVersion     = 42202
	codeInvalidLevel       = 42203
	codeInvalidMode        = 42204
	codeNotPermitted       = 42205
	codeReferenceExists    = 42206
	codeIDDoesNotMatch     = 42207
	codeInvalidSubject     = 42208
	codeSchemaTooLarge     = 42209
	codeInvalidRuleSet     = 42210
	codeStore              = 50001
)

// apiError is an answer that is not 2xx.
type apiError struct {
	Code    int    `json:"error_code"`
	Message string `json:"message"`
}

func (e *apiError) Error() string { return fmt.Sprintf("%d: %s", e.Code, e.Message) }

func (e *apiError) status() int {
	if e.Code >= 10_000 {
		return e.Code / 100
	}
	return e.Code
}

func fail(code int, format string, args ...any) error {
	return &apiError{Code: code, Message: fmt.Sprintf(format, args...)}
}

func noSubject(s string) error { return fail(codeSubjectNotFound, "Subject '%s' not found.", s) }

func noVersion(v int) error { return fail(codeVersionNotFound, "Version %d not found.", v) }

func noSchema() error { return fail(codeSchemaNotFound, "Schema not found") }
