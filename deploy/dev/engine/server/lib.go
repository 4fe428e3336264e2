//go:build (linux || darwin) && (amd64 || arm64) && !noengine

package server

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// library is libchdb in this process: ClickHouse behind a C interface, called
// without cgo. The binary needs the dynamic loader for it (a static binary or
// one for musl: build tag noengine). Safe for concurrent use.
//
// The C interface is described in chdb.h of github.com/chdb-io/chdb-core. A
// connection runs one statement at a time, concurrency is many connections,
// and every result must be freed, so only conn.go may call through here.
type library struct {
	connect, closeConn                                             uintptr
	query, streamQuery, streamFetch, streamCancel, freeResult      uintptr
	insertOpen, insertAppend, insertDone, insertCancel, insertFree uintptr
	insertError                                                    uintptr
	resultData, resultLen, resultError, resultRowsWritten          uintptr
	version                                                        uintptr
}

// openLibrary maps the file at path into the process, once and for good: the
// engine cannot be unloaded.
func openLibrary(path string) (*library, error) {
	// RTLD_LOCAL: its C++ runtime must not leak into the host's name space.
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	l := &library{}
	var handlers uintptr
	for name, fn := range map[string]*uintptr{
		"chdb_set_signal_handlers_enabled": &handlers,
		"chdb_connect":                     &l.connect,
		"chdb_close_conn":                  &l.closeConn,
		"chdb_query_with_params_n":         &l.query,
		"chdb_stream_query_with_params_n":  &l.streamQuery,
		"chdb_stream_fetch_result":         &l.streamFetch,
		"chdb_stream_cancel_query":         &l.streamCancel,
		"chdb_destroy_query_result":        &l.freeResult,
		"chdb_stream_insert_with_params_n": &l.insertOpen,
		"chdb_stream_append":               &l.insertAppend,
		"chdb_stream_done":                 &l.insertDone,
		"chdb_stream_cancel_insert":        &l.insertCancel,
		"chdb_destroy_insert_stream":       &l.insertFree,
		"chdb_stream_insert_error":         &l.insertError,
		"chdb_result_buffer":               &l.resultData,
		"chdb_result_length":               &l.resultLen,
		"chdb_result_error":                &l.resultError,
		"chdb_result_rows_written":         &l.resultRowsWritten,
		"chdb_version":                     &l.version,
	} {
		if *fn, err = purego.Dlsym(handle, name); err != nil {
			return nil, fmt.Errorf("load %s: %w", path, err)
		}
	}
	// Before the first connect: with the engine's own handlers a nil
	// dereference in Go kills the process without a word.
	purego.SyscallN(handlers, 0)
	return l, nil
}

// call runs one C function. It holds an OS thread until the function returns.
func call(fn uintptr, args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(fn, args...)
	return r
}

// dial opens a connection: chdb_connection *chdb_connect(argc, argv).
func (l *library) dial(args []string) (handle uintptr, err error) {
	ptrs, keep := cStrings(args)
	handle = call(l.connect, uintptr(len(args)), addr(ptrs))
	runtime.KeepAlive(keep)
	runtime.KeepAlive(ptrs)
	if handle == 0 {
		return 0, errors.New("the engine refused to open its data")
	}
	return handle, nil
}

// statement calls one of the functions that take (connection, query, format,
// parameters), which all have the same ten arguments, and returns their handle.
func (l *library) statement(fn, conn uintptr, query, format string, params []param) uintptr {
	names, values := make([]string, len(params)), make([]string, len(params))
	nameLens, valueLens := make([]uintptr, len(params)), make([]uintptr, len(params))
	for i, p := range params {
		names[i], values[i] = p.name, p.value
		nameLens[i], valueLens[i] = uintptr(len(p.name)), uintptr(len(p.value))
	}
	text, keepText := cStrings([]string{query, format})
	namePtrs, keepNames := cStrings(names)
	valuePtrs, keepValues := cStrings(values)
	r := call(fn, conn, text[0], uintptr(len(query)), text[1], uintptr(len(format)),
		addr(namePtrs), addr(nameLens), addr(valuePtrs), addr(valueLens), uintptr(len(params)))
	runtime.KeepAlive(keepText)
	runtime.KeepAlive(keepNames)
	runtime.KeepAlive(keepValues)
	runtime.KeepAlive([][]uintptr{namePtrs, nameLens, valuePtrs, valueLens})
	return r
}

// append hands bytes to an open insert, which copies them; it blocks while the
// engine's queue is full.
func (l *library) append(stream uintptr, p []byte) bool {
	r := call(l.insertAppend, stream, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	runtime.KeepAlive(p)
	return int32(r) == 0
}

// bytes is the data of a result: C memory, valid until the result is freed.
func (l *library) bytes(result uintptr) []byte {
	n := call(l.resultLen, result)
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(cPointer(call(l.resultData, result))), int(n))
}

// cStrings returns pointers to NUL-terminated copies of ss. The copies live as
// long as keep does: Go's heap does not move.
func cStrings(ss []string) (ptrs []uintptr, keep [][]byte) {
	ptrs, keep = make([]uintptr, len(ss)), make([][]byte, len(ss))
	for i, s := range ss {
		keep[i] = append(append(make([]byte, 0, len(s)+1), s...), 0)
		ptrs[i] = uintptr(unsafe.Pointer(unsafe.SliceData(keep[i])))
	}
	return ptrs, keep
}

// addr is the address of the first word of a, or nil of an empty one.
func addr(a []uintptr) uintptr {
	if len(a) == 0 {
		return 0
	}
	return uintptr(unsafe.Pointer(unsafe.SliceData(a)))
}

// cPointer makes a pointer of an address in C memory. It goes through memory,
// since vet takes the plain conversion for pointer arithmetic.
func cPointer(p uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&p)) }

// goString copies a NUL-terminated C string; "" for nil.
func goString(p uintptr) string {
	if p == 0 {
		return ""
	}
	n := 0
	for *(*byte)(unsafe.Add(cPointer(p), n)) != 0 {
		n++
	}
	return string(unsafe.Slice((*byte)(cPointer(p)), n))
}
