// Package server speaks the ClickHouse HTTP interface for an engine in this
// process (libchdb), so that clickhouse-go and curl take it for a server. It is
// the child's side of package engine, which fetches the library and starts it.
//
//	request.go    URL, headers, body -> query, settings, parameters, rows
//	statement.go  where in the text an INSERT's rows begin
//	server.go     a connection of the engine for each request, killed if the client leaves
//	conn.go       what the C interface does, in Go; lib.go: how it is called
//	response.go   rows out; an error before the first is an HTTP error, later in-band
//	encoding.go   HTTP compression and ClickHouse's compressed blocks
//
// Not supported: HTTP sessions, external tables, identities other than default,
// a query_id that KILL QUERY finds, progress headers; a SELECT without rows in
// Native format has an empty body rather than a block that names the columns.
package server

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"time"
)

// Config of Serve.
type Config struct {
	// Lib is the path of libchdb, as engine.Fetch returns it.
	Lib string
	// Dir keeps the data; it is made if missing. One engine at a time may use it.
	Dir string
	// Listener on a loopback address. Serve closes it.
	Listener net.Listener
	// MaxMemoryBytes is where the engine refuses a statement (code 241) rather
	// than grow. Zero: 90 % of the machine's memory.
	MaxMemoryBytes int64
	// Ready is told one line when the engine serves or cannot, ReadyLine or
	// FailedPrefix and the reason: the child's stdout. Nil: nobody is told.
	Ready io.Writer
	// Parent ends when the parent does: the child's stdin. Nil: not watched.
	Parent io.Reader
	// Logger hears of start and stop.
	Logger *slog.Logger
}

// What Serve says to Config.Ready.
const (
	ReadyLine    = "ready"
	FailedPrefix = "failed: "
)

// DrainTimeout is how long running statements may take to end when Serve
// stops; after it they are killed, and get as long to notice.
const DrainTimeout = 5 * time.Second

func (c *Config) validate() error {
	switch {
	case c.Lib == "":
		return errors.New("engine: Lib is empty")
	case c.Dir == "":
		return errors.New("engine: Dir is empty")
	case c.Listener == nil:
		return errors.New("engine: Listener is nil")
	case c.Logger == nil:
		return errors.New("engine: Logger is nil")
	case c.MaxMemoryBytes < 0:
		return fmt.Errorf("engine: MaxMemoryBytes is %d", c.MaxMemoryBytes)
	}
	var err error
	c.Dir, err = filepath.Abs(c.Dir)
	return errors.Join(err, LoopbackOnly(c.Listener.Addr()))
}

// LoopbackOnly refuses an address that other machines can reach: the engine
// has no users.
func LoopbackOnly(a net.Addr) error {
	if t, ok := a.(*net.TCPAddr); !ok || !t.IP.IsLoopback() {
		return fmt.Errorf("engine: %s is not a loopback address", a)
	}
	return nil
}
