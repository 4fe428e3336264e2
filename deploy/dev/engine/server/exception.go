package server

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// An exception is an error of ClickHouse: code and text as its clients expect
// them ("Code: 60. DB::Exception: … (UNKNOWN_TABLE)").
type exception struct {
	code int
	text string
}

func (e *exception) Error() string { return e.text }

// Codes this server raises itself; the rest come from the engine.
const (
	codeBadArguments     = 36
	codeNotImplemented   = 48
	codeSyntaxError      = 62
	codeQueryTooLarge    = 223
	codeCannotDecompress = 271
	codeUnknown          = 1002
)

var exceptionCode = regexp.MustCompile(`Code: (\d+)\. `)

// parseException makes an exception of the engine's text, which may carry a
// prefix before its code.
func parseException(text string) *exception {
	text = strings.TrimSpace(text)
	m := exceptionCode.FindStringSubmatchIndex(text)
	if m == nil {
		return newException(codeUnknown, "UNKNOWN_EXCEPTION", text)
	}
	code, err := strconv.Atoi(text[m[2]:m[3]])
	if err != nil {
		code = codeUnknown
	}
	return &exception{code: code, text: text[m[0]:]}
}

func newException(code int, name, text string) *exception {
	return &exception{code: code, text: "Code: " + strconv.Itoa(code) + ". DB::Exception: " + text + ". (" + name + ")"}
}

// statuses are the HTTP statuses of error codes, as ClickHouse gives them
// (exceptionCodeToHTTPStatus in its HTTP handler).
var statuses = map[int]int{
	194: http.StatusUnauthorized, // REQUIRED_PASSWORD

	164: http.StatusForbidden, // READONLY
	192: http.StatusForbidden, // UNKNOWN_USER
	497: http.StatusForbidden, // ACCESS_DENIED
	516: http.StatusForbidden, // AUTHENTICATION_FAILED

	6:                http.StatusBadRequest, // CANNOT_PARSE_TEXT
	26:               http.StatusBadRequest, // CANNOT_PARSE_QUOTED_STRING
	27:               http.StatusBadRequest, // CANNOT_PARSE_INPUT_ASSERTION_FAILED
	38:               http.StatusBadRequest, // CANNOT_PARSE_DATE
	41:               http.StatusBadRequest, // CANNOT_PARSE_DATETIME
	42:               http.StatusBadRequest, // NUMBER_OF_ARGUMENTS_DOESNT_MATCH
	43:               http.StatusBadRequest, // ILLEGAL_TYPE_OF_ARGUMENT
	44:               http.StatusBadRequest, // ILLEGAL_COLUMN
	53:               http.StatusBadRequest, // TYPE_MISMATCH
	69:               http.StatusBadRequest, // ARGUMENT_OUT_OF_BOUND
	70:               http.StatusBadRequest, // CANNOT_CONVERT_TYPE
	72:               http.StatusBadRequest, // CANNOT_PARSE_NUMBER
	117:              http.StatusBadRequest, // INCORRECT_DATA
	456:              http.StatusBadRequest, // UNKNOWN_QUERY_PARAMETER
	457:              http.StatusBadRequest, // BAD_QUERY_PARAMETER
	codeBadArguments: http.StatusBadRequest,
	codeSyntaxError:  http.StatusBadRequest,

	46:  http.StatusNotFound, // UNKNOWN_FUNCTION
	47:  http.StatusNotFound, // UNKNOWN_IDENTIFIER
	50:  http.StatusNotFound, // UNKNOWN_TYPE
	56:  http.StatusNotFound, // UNKNOWN_STORAGE
	60:  http.StatusNotFound, // UNKNOWN_TABLE
	63:  http.StatusNotFound, // UNKNOWN_AGGREGATE_FUNCTION
	73:  http.StatusNotFound, // UNKNOWN_FORMAT
	78:  http.StatusNotFound, // UNKNOWN_TYPE_OF_QUERY
	81:  http.StatusNotFound, // UNKNOWN_DATABASE
	115: http.StatusNotFound, // UNKNOWN_SETTING

	159:                http.StatusRequestTimeout, // TIMEOUT_EXCEEDED
	codeQueryTooLarge:  http.StatusRequestEntityTooLarge,
	codeNotImplemented: http.StatusNotImplemented,
	202:                http.StatusServiceUnavailable, // TOO_MANY_SIMULTANEOUS_QUERIES
	209:                http.StatusServiceUnavailable, // SOCKET_TIMEOUT
}

// status is the HTTP status of an error code; what ClickHouse does not list is 500.
func status(code int) int {
	if s, ok := statuses[code]; ok {
		return s
	}
	return http.StatusInternalServerError
}
