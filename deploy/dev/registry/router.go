package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	contentType  = "application/vnd.schemaregistry.v1+json"
	maxBodyBytes = 4 << 20 // a schema of maxSchemaBytes, escaped into JSON
)

// A route is one line of the API. In path, * stands for one segment.
type route struct {
	method, path string
	answer       func(*Registry, *request) (any, error)
}

// routes is the API of the Confluent Schema Registry 8, as far as it is served.
// https://docs.confluent.io/platform/current/schema-registry/develop/api.html
var routes = []route{
	{"GET", "", (*Registry).about},
	{"GET", "subjects", (*Registry).listSubjects},
	{"POST", "subjects/*", (*Registry).lookUp},
	{"DELETE", "subjects/*", (*Registry).deleteSubject},
	{"GET", "subjects/*/versions", (*Registry).listVersions},
	{"POST", "subjects/*/versions", (*Registry).register},
	{"GET", "subjects/*/versions/*", (*Registry).getVersion},
	{"DELETE", "subjects/*/versions/*", (*Registry).deleteVersion},
	{"GET", "subjects/*/versions/*/schema", (*Registry).getVersionText},
	{"GET", "subjects/*/versions/*/referencedby", (*Registry).referencedBy},
	{"GET", "schemas", (*Registry).listSchemas},
	{"GET", "schemas/types", (*Registry).listTypes},
	{"GET", "schemas/ids/*", (*Registry).getSchema},
	{"GET", "schemas/ids/*/schema", (*Registry).getSchemaText},
	{"GET", "schemas/ids/*/subjects", (*Registry).schemaSubjects},
	{"GET", "schemas/ids/*/versions", (*Registry).schemaVersions},
	{"GET", "schemas/guids/*", (*Registry).getByGUID},
	{"GET", "schemas/guids/*/ids", (*Registry).idsOfGUID},
	{"GET", "contexts", (*Registry).listContexts},
	{"POST", "compatibility/subjects/*/versions", (*Registry).checkAll},
	{"POST", "compatibility/subjects/*/versions/*", (*Registry).checkVersion},
	{"GET", "config", (*Registry).getLevel},
	{"PUT", "config", (*Registry).putLevel},
	{"DELETE", "config", (*Registry).resetLevel},
	{"GET", "config/*", (*Registry).getLevel},
	{"PUT", "config/*", (*Registry).putLevel},
	{"DELETE", "config/*", (*Registry).resetLevel},
	{"GET", "mode", (*Registry).getMode},
	{"PUT", "mode", (*Registry).putMode},
	{"DELETE", "mode", (*Registry).resetMode},
	{"GET", "mode/*", (*Registry).getMode},
	{"PUT", "mode/*", (*Registry).putMode},
	{"DELETE", "mode/*", (*Registry).resetMode},
}

// request is a routed request. Its body has been read whole.
type request struct {
	args  []string // what the * of the path stand for, unescaped
	query url.Values
	body  []byte
}

// raw is an answer that goes out as it is.
type raw string

// ServeHTTP answers one request of the API.
func (r *Registry) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	status, out, code := http.StatusOK, any(nil), 0
	out, err := r.dispatch(w, hr)
	var bad *apiError
	if errors.As(err, &bad) {
		status, out, code = bad.status(), bad, bad.Code
	} else if err != nil { // none of ours: the request's own context or connection
		bad = &apiError{Code: http.StatusInternalServerError, Message: err.Error()}
		status, out, code = bad.Code, bad, bad.Code
	}
	r.requests.WithLabelValues(strconv.Itoa(code)).Inc()
	body, err := encode(out)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error_code":500,"message":"answer does not encode"}`)
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone needs no answer
}

func encode(v any) ([]byte, error) {
	if text, ok := v.(raw); ok {
		return []byte(text), nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if _, ok := v.(*about); ok {
		enc.SetIndent("", "  ")
	}
	err := enc.Encode(v)
	return b.Bytes(), err
}

func (r *Registry) dispatch(w http.ResponseWriter, hr *http.Request) (any, error) {
	answer, args, err := match(hr.Method, hr.URL.EscapedPath())
	if err != nil {
		var bad *apiError
		if errors.As(err, &bad) && bad.Code == codeMethodNotAllowed {
			w.Header().Set("Allow", strings.Join(allowed(hr.URL.EscapedPath()), ", "))
		}
		return nil, err
	}
	query, err := url.ParseQuery(hr.URL.RawQuery)
	if err != nil {
		return nil, fail(codeBadRequest, "query: %v", err)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, hr.Body, maxBodyBytes))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, fail(codeSchemaTooLarge, "The body is larger than %d bytes", maxBodyBytes)
	}
	if err != nil {
		return nil, fail(codeBadRequest, "read body: %v", err)
	}
	return answer(r, &request{args: args, query: query, body: body})
}

// match finds the route of a method and an escaped path.
func match(method, path string) (func(*Registry, *request) (any, error), []string, error) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	segments, err := split(path)
	if err != nil {
		return nil, nil, fail(codeBadRequest, "path: %v", err)
	}
	known := false
	for _, rt := range routes {
		args, ok := rt.match(segments)
		if ok && rt.method == method {
			return rt.answer, args, nil
		}
		known = known || ok
	}
	if known {
		return nil, nil, fail(codeMethodNotAllowed, "HTTP 405 Method Not Allowed")
	}
	return nil, nil, fail(codeNotFound, "HTTP 404 Not Found")
}

func split(path string) ([]string, error) {
	path = strings.Trim(path, "/")
	if path == "" {
		return nil, nil
	}
	segments := strings.Split(path, "/")
	for i, s := range segments {
		var err error
		if segments[i], err = url.PathUnescape(s); err != nil {
			return nil, err
		}
	}
	return segments, nil
}

func (rt route) match(segments []string) (args []string, ok bool) {
	if rt.path == "" {
		return nil, len(segments) == 0
	}
	want := strings.Split(rt.path, "/")
	if len(want) != len(segments) {
		return nil, false
	}
	for i, w := range want {
		switch {
		case w == "*":
			args = append(args, segments[i])
		case w != segments[i]:
			return nil, false
		}
	}
	return args, true
}

// allowed lists the methods of a path.
func allowed(path string) []string {
	segments, err := split(path)
	if err != nil {
		return nil
	}
	var methods []string
	for _, rt := range routes {
		if _, ok := rt.match(segments); ok && !slices.Contains(methods, rt.method) {
			methods = append(methods, rt.method)
		}
	}
	return methods
}

// decode reads the body's one JSON object into v.
func (q *request) decode(v any) error {
	dec := json.NewDecoder(bytes.NewReader(q.body))
	if err := dec.Decode(v); err != nil {
		return fail(codeBadRequest, "The body is no JSON object of the right shape: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fail(codeBadRequest, "The body holds more than one JSON value")
	}
	return nil
}

// is reads a boolean parameter; what does not read as one is false, as in
// Java.
func (q *request) is(name string) bool { return strings.EqualFold(q.query.Get(name), "true") }

// number reads an integer parameter.
func (q *request) number(name string, absent int) (int, error) {
	v := q.query.Get(name)
	if v == "" {
		return absent, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		return 0, fail(codeBadRequest, "Parameter %s=%q is no number", name, v)
	}
	return n, nil
}

// arg is the i-th variable part of the path, or "".
func (q *request) arg(i int) string {
	if i < len(q.args) {
		return q.args[i]
	}
	return ""
}
