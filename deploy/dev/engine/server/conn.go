//go:build (linux || darwin) && (amd64 || arm64) && !noengine

package server

import (
	"fmt"
	"strings"
)

// conn is one connection to the engine. It costs 0.2 ms to open and runs one
// statement at a time; a request opens its own, so that settings cannot leak.
// Not safe for concurrent use.
type conn struct {
	lib    *library
	handle uintptr // chdb_connection *
}

// open connects to the data in dir. The first connection of the process boots
// the engine, which serves this one folder until its last connection closes;
// args beyond that are server settings of that boot.
func (l *library) open(dir string, args ...string) (*conn, error) {
	handle, err := l.dial(append([]string{"clickhouse", "--path=" + dir}, args...))
	if err != nil {
		return nil, err
	}
	return &conn{lib: l, handle: handle}, nil
}

func (c *conn) close() { call(c.lib.closeConn, c.handle) }

// raw is the handle the statements take: one step behind the one of connect.
func (c *conn) raw() uintptr { return *(*uintptr)(cPointer(c.handle)) }

// exec runs any statement to its end and returns its whole output, which must
// fit in memory: for statements without rows, and those the engine cannot stream.
func (c *conn) exec(query, format string, params []param) ([]byte, error) {
	r := c.lib.statement(c.lib.query, c.raw(), query, format, params)
	if r == 0 {
		return nil, fmt.Errorf("engine gave no result")
	}
	defer call(c.lib.freeResult, r)
	if err := c.lib.fault(r); err != nil {
		return nil, err
	}
	return append([]byte(nil), c.lib.bytes(r)...), nil
}

// fault is the exception a result carries, or nil.
func (l *library) fault(result uintptr) error {
	if text := goString(call(l.resultError, result)); text != "" {
		return parseException(text)
	}
	return nil
}

// rows is the output of a running SELECT in its format, piece by piece.
type rows struct {
	c      *conn
	handle uintptr
}

// stream starts a SELECT.
func (c *conn) stream(query, format string, params []param) (*rows, error) {
	r := c.lib.statement(c.lib.streamQuery, c.raw(), query, format, params)
	if r == 0 {
		return nil, fmt.Errorf("engine gave no stream")
	}
	if err := c.lib.fault(r); err != nil {
		call(c.lib.freeResult, r)
		return nil, err
	}
	return &rows{c: c, handle: r}, nil
}

// next passes the following piece to use, whose bytes are C memory that ends
// with the call. It reports false at the end of the rows.
func (r *rows) next(use func([]byte) error) (bool, error) {
	piece := call(r.c.lib.streamFetch, r.c.raw(), r.handle)
	if piece == 0 {
		return false, nil
	}
	defer call(r.c.lib.freeResult, piece)
	if err := r.c.lib.fault(piece); err != nil {
		return false, err
	}
	p := r.c.lib.bytes(piece)
	if len(p) == 0 {
		return false, nil
	}
	return true, use(p)
}

// close ends the SELECT, finished or not.
func (r *rows) close() {
	call(r.c.lib.streamCancel, r.c.raw(), r.handle)
	call(r.c.lib.freeResult, r.handle)
}

// insert is an INSERT whose rows arrive in pieces.
type insert struct {
	c      *conn
	handle uintptr
}

// insert starts an INSERT. The query must end before its FORMAT: rows inside
// the text would end at their first blank line.
func (c *conn) insert(query, format string, params []param) (*insert, error) {
	h := c.lib.statement(c.lib.insertOpen, c.raw(), query, format, params)
	if h == 0 {
		return nil, fmt.Errorf("engine gave no insert stream")
	}
	in := &insert{c: c, handle: h}
	if err := in.fault(); err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

func (in *insert) fault() error {
	if text := goString(call(in.c.lib.insertError, in.handle)); strings.TrimSpace(text) != "" {
		return parseException(text)
	}
	return nil
}

// Write appends bytes in the format of the insert.
func (in *insert) Write(p []byte) (int, error) {
	if len(p) == 0 || in.c.lib.append(in.handle, p) {
		return len(p), nil
	}
	if err := in.fault(); err != nil {
		return 0, err
	}
	// Where the stream died of a bad row, only done tells why.
	if _, err := in.done(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("insert ended early")
}

// done commits and returns how many rows were written, those of materialized
// views included. Once it returned nil, the rows survive a kill of the process
// (not a loss of power: the engine does not fsync by default).
func (in *insert) done() (uint64, error) {
	r := call(in.c.lib.insertDone, in.handle)
	if r == 0 {
		return 0, fmt.Errorf("engine gave no result")
	}
	defer call(in.c.lib.freeResult, r)
	if err := in.c.lib.fault(r); err != nil {
		return 0, err
	}
	return uint64(call(in.c.lib.resultRowsWritten, r)), nil
}

// close drops the insert, and its rows unless done was called. Whole blocks
// that the engine already wrote stay, as in any ClickHouse.
func (in *insert) close() { call(in.c.lib.insertFree, in.handle) }
