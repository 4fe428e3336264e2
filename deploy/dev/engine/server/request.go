package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	// headBytes is how much of a request is searched for the place where its
	// rows start: ClickHouse's own max_query_size.
	headBytes = 256 << 10
	// maxQueryBytes bounds a query that must be in memory as a whole, such as
	// INSERT … VALUES with its values. Beyond it: code 223, HTTP 413. Rows
	// after FORMAT have no bound, they are streamed.
	maxQueryBytes = 64 << 20
)

// param is one server-side query parameter, {name:Type} in the query.
type param struct{ name, value string }

// request is one query of a client, read off the HTTP request.
type request struct {
	statement
	database      string // "" for default
	defaultFormat string
	params        []param
	settings      []param // in the order of their names
	readonly      bool
	compress      bool   // frame the answer in ClickHouse's compressed blocks
	method        string // of those blocks: LZ4, ZSTD or NONE
	encoding      string // Content-Encoding of the answer, "" for none
	waitEnd       bool   // answer only once the query has ended
	protocol      int    // client_protocol_version, 0 if not given
	rows          io.Reader
}

// notSettings are the URL parameters that mean something to the HTTP interface
// itself; every other one is a setting of the query.
var notSettings = map[string]bool{
	"query": true, "database": true, "default_format": true, "compress": true, "decompress": true, "query_id": true,
	"user": true, "password": true, "quota_key": true, "role": true, "client_protocol_version": true,
	"wait_end_of_query": true, "buffer_size": true, "stacktrace": true,
	"session_id": true, "session_timeout": true, "session_check": true, "close_session": true,
}

// readRequest takes a request apart. Its errors are exceptions for the client.
func readRequest(r *http.Request) (*request, error) {
	args := r.URL.Query()
	if args.Get("session_id") != "" {
		return nil, newException(codeNotImplemented, "NOT_IMPLEMENTED",
			"session_id: this engine has no HTTP sessions, each request stands alone; use a ClickHouse server for them")
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/form-data") {
		return nil, newException(codeNotImplemented, "NOT_IMPLEMENTED",
			"external tables (multipart/form-data) are not supported by this engine; use a ClickHouse server for them")
	}
	q := &request{
		database:      first(args.Get("database"), r.Header.Get("X-ClickHouse-Database")),
		defaultFormat: first(args.Get("default_format"), r.Header.Get("X-ClickHouse-Format"), "TabSeparated"),
		readonly:      r.Method == http.MethodGet || r.Method == http.MethodHead,
		compress:      isTrue(args.Get("compress")),
		method:        strings.ToUpper(first(args.Get("network_compression_method"), "LZ4")),
		waitEnd:       isTrue(args.Get("wait_end_of_query")),
	}
	q.protocol, _ = strconv.Atoi(args.Get("client_protocol_version"))
	if v := args.Get("enable_http_compression"); v == "" || isTrue(v) {
		q.encoding = chooseEncoding(r.Header.Get("Accept-Encoding"))
	}
	q.addArguments(args)
	body, err := decodeBody(r, isTrue(args.Get("decompress")))
	if err != nil {
		return nil, err
	}
	return q, q.readQuery(args.Get("query"), body)
}

// addArguments sorts the URL's arguments into parameters and settings.
func (q *request) addArguments(args url.Values) {
	for name, values := range args {
		value := values[len(values)-1]
		if p, ok := strings.CutPrefix(name, "param_"); ok {
			q.params = append(q.params, param{p, value})
		} else if !notSettings[name] {
			q.settings = append(q.settings, param{name, value})
		}
	}
	byName := func(a, b param) int { return strings.Compare(a.name, b.name) }
	slices.SortFunc(q.params, byName)
	slices.SortFunc(q.settings, byName)
}

// readQuery reads the query, which is that of the URL followed by the body,
// and leaves the rows of an insert unread.
func (q *request) readQuery(inURL string, body io.Reader) error {
	if inURL != "" {
		body = io.MultiReader(strings.NewReader(inURL+"\n"), body)
	}
	head, err := io.ReadAll(io.LimitReader(body, headBytes))
	if err != nil {
		return readFault(err)
	}
	q.statement = parseStatement(head)
	whole := len(head) < headBytes
	if q.insert && (q.format != "Values" || !whole && len(q.params) == 0) {
		q.rows = io.MultiReader(bytes.NewReader(head[q.statement.rows:]), body)
		return nil
	}
	// The engine's parser reads VALUES best, parameters among them included.
	q.insert = false
	if !whole {
		rest, err := io.ReadAll(io.LimitReader(body, maxQueryBytes-headBytes+1))
		if err != nil {
			return readFault(err)
		}
		if head = append(head, rest...); len(head) > maxQueryBytes {
			return newException(codeQueryTooLarge, "QUERY_IS_TOO_LARGE", fmt.Sprintf(
				"the query is longer than %d bytes; put its rows behind FORMAT JSONEachRow or Native, which has no bound", maxQueryBytes))
		}
	}
	q.query = string(head)
	return nil
}

// readFault is what a client is told of a body that cannot be read.
func readFault(err error) error {
	var e *exception
	if errors.As(err, &e) {
		return e
	}
	return newException(codeCannotDecompress, "CANNOT_DECOMPRESS", "cannot read the request's body: "+err.Error())
}

// outputFormat is the format of the answer.
func (q *request) outputFormat() string { return first(q.format, q.defaultFormat) }

// decodeBody undoes Content-Encoding and, with decompress=1, ClickHouse's own
// compressed blocks.
func decodeBody(r *http.Request, blocks bool) (io.Reader, error) {
	body, err := decoder(r.Header.Get("Content-Encoding"), r.Body)
	if err != nil {
		return nil, err
	}
	if blocks {
		return newBlockReader(body), nil
	}
	return body, nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func isTrue(s string) bool { return s == "1" || strings.EqualFold(s, "true") }
