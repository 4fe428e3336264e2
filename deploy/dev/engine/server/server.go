//go:build (linux || darwin) && (amd64 || arm64) && !noengine

package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxStatements run at once; more wait their turn. Each holds an OS thread and
// up to max_threads of the engine: 16 keeps two cores busy, and measured
// throughput does not rise beyond 8.
const maxStatements = 16

// maxWaiting bounds the statements that run or wait; the next one is refused
// with code 202 (HTTP 503). Each may hold headBytes.
const maxWaiting = 512

// killEvery is how often a statement whose client left is killed, until it
// ends: the first attempt may come before the engine knows the statement.
const killEvery = 100 * time.Millisecond

// server speaks the ClickHouse HTTP interface for the engine in this process.
// Safe for concurrent use.
type server struct {
	lib      *library
	dir      string
	log      *slog.Logger
	slots    chan struct{} // a token for each statement that runs
	places   chan struct{} // a token for each that runs or waits
	watchers sync.WaitGroup

	version, timezone string // of the engine
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-ClickHouse-Server-Display-Name", displayName)
	h.Set("X-ClickHouse-Timezone", s.timezone)
	switch {
	case r.URL.Path == "/ping":
		_, _ = io.WriteString(w, "Ok.\n")
	case r.URL.Path != "/":
		http.Error(w, "There is no handle "+r.URL.Path+"; queries go to /, health checks to /ping", http.StatusNotFound)
	case r.Method == http.MethodGet && r.URL.RawQuery == "":
		_, _ = io.WriteString(w, "Ok.\n")
	case r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodPost || r.Method == http.MethodPut:
		s.serveQuery(w, r)
	default:
		http.Error(w, "use GET for reading and POST for the rest", http.StatusMethodNotAllowed)
	}
}

// serveQuery answers one query.
func (s *server) serveQuery(w http.ResponseWriter, r *http.Request) {
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	default:
		newResponse(w, &request{}, exceptionTag()).fail(newException(202, "TOO_MANY_SIMULTANEOUS_QUERIES",
			fmt.Sprintf("%d statements run or wait already", maxWaiting)))
		return
	}
	w.Header().Set("X-ClickHouse-Query-Id", first(r.URL.Query().Get("query_id"), strings.ToLower(rand.Text())))
	q, err := readRequest(r)
	if err != nil {
		newResponse(w, &request{}, exceptionTag()).fail(err)
		return
	}
	res := newResponse(w, q, exceptionTag())
	written, err := s.run(r.Context(), q, res)
	if err == nil {
		err = res.finish(written)
	}
	if err != nil {
		if q.insert { // a client that still sends would not read why
			_, _ = io.CopyN(io.Discard, r.Body, unreadBytes)
		}
		res.fail(err)
	}
}

// unreadBytes is how much of a refused insert is read and dropped: more than
// the batches of a sink. Beyond it the client sees a broken connection.
const unreadBytes = 256 << 20

// run executes q on a connection of its own and writes its rows to res.
func (s *server) run(ctx context.Context, q *request, res *response) (written uint64, err error) {
	if strings.TrimRight(strings.TrimSpace(q.query), ";") == helloQuery && q.outputFormat() == "Native" {
		_, err := res.Write(hello(q.protocol, s.version, s.timezone))
		return 0, err
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	c, err := s.lib.open(s.dir)
	if err != nil {
		return 0, err
	}
	defer c.close()
	tag, err := s.prepare(c, q)
	if err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	s.watchers.Go(func() { s.killOnLeave(ctx, tag, ended) })
	defer close(ended)
	if q.insert {
		return s.insert(c, q)
	}
	return 0, s.query(c, q, res)
}

// prepare gives the connection its database and settings. The tag it returns
// marks the statement in system.processes, where its own id cannot be chosen:
// it sits in query_cache_tag, a label without effect while the cache is off.
func (s *server) prepare(c *conn, q *request) (tag string, err error) {
	tag = strings.ToLower(rand.Text())
	// implicit_select is on in this build: it makes nonsense parse.
	set := []string{"implicit_select=0", "query_cache_tag=" + quote(tag)}
	for _, p := range q.settings {
		if !isSettingName(p.name) {
			return "", newException(115, "UNKNOWN_SETTING", "Unknown setting "+quote(p.name))
		}
		set = append(set, p.name+"="+quote(p.value))
		if p.name == "query_cache_tag" {
			tag = p.value
		}
	}
	if q.readonly && !slices.ContainsFunc(q.settings, func(p param) bool { return p.name == "readonly" && p.value != "0" }) {
		set = append(set, "readonly=2")
	}
	if q.database != "" && q.database != "default" {
		if _, err := c.exec("USE "+quoteName(q.database), "Null", nil); err != nil {
			return "", err
		}
	}
	_, err = c.exec("SET "+strings.Join(set, ", "), "Null", nil)
	return tag, err
}

// isSettingName keeps SQL out of the SET statement.
func isSettingName(name string) bool {
	for i := range len(name) {
		if !isWordByte(name[i]) && name[i] != '.' {
			return false
		}
	}
	return name != ""
}

// query runs a statement that is not fed rows.
func (s *server) query(c *conn, q *request, res *response) error {
	rows, err := c.stream(q.query, q.defaultFormat, q.params)
	if isNotStreamable(err) {
		out, err := c.exec(q.query, q.defaultFormat, q.params)
		if err == nil && len(out) > 0 {
			_, err = res.Write(out)
		}
		return err
	}
	if err != nil {
		return err
	}
	defer rows.close()
	for {
		more, err := rows.next(func(p []byte) error { _, err := res.Write(p); return err })
		if err != nil || !more {
			return err
		}
	}
}

// isNotStreamable: the engine streams SELECT only and says so of the rest, DDL
// and SHOW among them, before it does anything.
func isNotStreamable(err error) bool {
	var e *exception
	return errors.As(err, &e) && e.code == codeBadArguments && strings.Contains(e.text, "Streaming query is not supported for query")
}

// insertBytes is how many bytes go to the engine at once.
const insertBytes = 256 << 10

// insert feeds the request's rows to an INSERT and commits it.
func (s *server) insert(c *conn, q *request) (uint64, error) {
	in, err := c.insert(q.query, q.format, q.params)
	if err != nil {
		return 0, err
	}
	defer in.close()
	buf := make([]byte, insertBytes)
	for {
		n, err := q.rows.Read(buf)
		if n > 0 {
			if _, err := in.Write(buf[:n]); err != nil {
				return 0, err
			}
		}
		if errors.Is(err, io.EOF) {
			return in.done()
		}
		if err != nil { // a cut-off body must not be committed
			return 0, readFault(err)
		}
	}
}

// killOnLeave kills the statement marked with tag when ctx, its client, is
// gone before it ended.
func (s *server) killOnLeave(ctx context.Context, tag string, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	tick := time.NewTicker(killEvery)
	defer tick.Stop()
	for {
		if err := s.kill("Settings['query_cache_tag'] = " + quote(tag)); err != nil {
			s.log.Warn("kill the statement of a client that left", "err", err)
		}
		select {
		case <-ended:
			return
		case <-tick.C:
		}
	}
}

// kill ends the running statements that meet a condition on system.processes.
func (s *server) kill(where string) error {
	c, err := s.lib.open(s.dir)
	if err != nil {
		return err
	}
	defer c.close()
	_, err = c.exec("KILL QUERY WHERE "+where+" ASYNC", "Null", nil)
	return err
}

// exceptionTag is the mark that tells an in-band error from data: 16 characters
// no data can foresee.
func exceptionTag() string { return strings.ToLower(rand.Text()[:16]) }

// probe asks the engine who it is.
func (s *server) probe() error {
	c, err := s.lib.open(s.dir)
	if err != nil {
		return err
	}
	defer c.close()
	out, err := c.exec("SELECT version(), timezone()", "TabSeparated", nil)
	if err != nil {
		return err
	}
	var ok bool
	if s.version, s.timezone, ok = strings.Cut(strings.TrimSpace(string(out)), "\t"); !ok {
		return fmt.Errorf("ask the engine for its version: got %q", out)
	}
	return nil
}
