package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// waitEndBytes bounds what wait_end_of_query holds back. A longer answer
// starts to flow at that point and reports a late error in-band.
const waitEndBytes = 32 << 20

// exceptionBytes bounds the text of an error in the middle of an answer:
// clients look for it in the last 16 KiB.
const exceptionBytes = 15 << 10

// response writes one answer. The status is open until the first byte leaves,
// so that an error before it is an HTTP error; a later one is in-band. Owned by
// the request's goroutine.
type response struct {
	w       http.ResponseWriter
	q       *request
	tag     string        // X-ClickHouse-Exception-Tag
	held    *bytes.Buffer // nil unless wait_end_of_query, and after it overflowed
	started bool
	encode  io.WriteCloser // nil without Content-Encoding
	out     io.Writer      // where a piece goes: blocks, encoding, HTTP
}

func newResponse(w http.ResponseWriter, q *request, tag string) *response {
	r := &response{w: w, q: q, tag: tag}
	if q.waitEnd {
		r.held = &bytes.Buffer{}
	}
	return r
}

// Write sends a piece of the answer.
func (r *response) Write(p []byte) (int, error) {
	if r.held != nil {
		if r.held.Len()+len(p) <= waitEndBytes {
			return r.held.Write(p)
		}
		if err := r.release(); err != nil {
			return 0, err
		}
	}
	if err := r.start(); err != nil {
		return 0, err
	}
	return r.out.Write(p)
}

// release sends what was held back.
func (r *response) release() error {
	held := r.held
	r.held = nil
	if held == nil || held.Len() == 0 {
		return nil
	}
	_, err := r.Write(held.Bytes())
	return err
}

// start sends the headers and builds the way out.
func (r *response) start() error {
	if r.started {
		return nil
	}
	r.started = true
	h := r.w.Header()
	h.Set("Content-Type", contentType(r.q.outputFormat()))
	h.Set("X-ClickHouse-Format", r.q.outputFormat())
	h.Set("X-ClickHouse-Exception-Tag", r.tag)
	r.out = r.w
	if r.q.encoding != "" {
		h.Set("Content-Encoding", r.q.encoding)
		var err error
		if r.encode, err = encoder(r.q.encoding, r.w); err != nil {
			return err
		}
		r.out = r.encode
	}
	if r.q.compress {
		r.out = newBlockWriter(r.out, r.q.method)
	}
	return nil
}

// finish ends a good answer. One without a byte has Content-Length 0, which
// clickhouse-go takes for "no rows".
func (r *response) finish(writtenRows uint64) error {
	if !r.started {
		r.w.Header().Set("X-ClickHouse-Summary", summary(writtenRows))
	}
	if err := r.release(); err != nil {
		return err
	}
	if r.encode != nil {
		return r.encode.Close()
	}
	return nil
}

// fail ends the answer with an error: as the answer itself while nothing was
// sent, else in-band and by cutting the connection, as ClickHouse does.
func (r *response) fail(err error) {
	e := asException(err)
	if r.started {
		r.failInBand(e)
	}
	h := r.w.Header()
	h.Set("Content-Type", "text/plain; charset=UTF-8")
	h.Set("X-ClickHouse-Exception-Code", strconv.Itoa(e.code))
	h.Set("X-ClickHouse-Exception-Tag", r.tag)
	r.w.WriteHeader(status(e.code))
	_, _ = io.WriteString(r.w, e.text+"\n") // the client is gone: nobody to tell
}

// failInBand writes the frame that marks an error behind rows that were sent:
//
//	CRLF __exception__ CRLF tag CRLF text LF length " " tag CRLF __exception__ CRLF
//
// (WriteBufferFromHTTPServerResponse.cpp, cancelWithException), and aborts the
// connection so that clients which do not know the frame notice too.
func (r *response) failInBand(e *exception) {
	text := e.text
	if len(text) > exceptionBytes {
		text = text[:exceptionBytes]
	}
	frame := fmt.Sprintf("\r\n__exception__\r\n%s\r\n%s\n%d %s\r\n__exception__\r\n", r.tag, text, len(text)+1, r.tag)
	out := r.out
	if r.q.compress { // legible to a client that looks at the raw bytes
		out = newBlockWriter(r.underBlocks(), "NONE")
	}
	_, _ = io.WriteString(out, frame) // the connection ends either way
	if r.encode != nil {
		_ = r.encode.Close()
	}
	_ = http.NewResponseController(r.w).Flush()
	panic(http.ErrAbortHandler)
}

// underBlocks is the writer below the framing of compress=1.
func (r *response) underBlocks() io.Writer {
	if r.encode != nil {
		return r.encode
	}
	return r.w
}

// asException is err for a client.
func asException(err error) *exception {
	var e *exception
	if errors.As(err, &e) {
		return e
	}
	return newException(codeUnknown, "UNKNOWN_EXCEPTION", err.Error())
}

// summary is X-ClickHouse-Summary. The engine tells only what it wrote.
func summary(writtenRows uint64) string {
	return fmt.Sprintf(`{"read_rows":"0","read_bytes":"0","written_rows":"%d","written_bytes":"0","total_rows_to_read":"0","result_rows":"%d","result_bytes":"0"}`,
		writtenRows, writtenRows)
}

// contentType is the media type ClickHouse gives a format.
func contentType(format string) string {
	switch format {
	case "JSON", "JSONCompact", "JSONStrings", "JSONColumns", "JSONCompactColumns":
		return "application/json; charset=UTF-8"
	case "JSONEachRow", "JSONCompactEachRow", "JSONStringsEachRow":
		return "application/x-ndjson; charset=UTF-8"
	case "CSV", "CSVWithNames", "CSVWithNamesAndTypes":
		return "text/csv; charset=UTF-8; header=present"
	case "TabSeparated", "TSV", "TabSeparatedWithNames", "TSVWithNames", "TabSeparatedWithNamesAndTypes":
		return "text/tab-separated-values; charset=UTF-8"
	case "Native", "RowBinary", "Parquet", "Arrow", "ArrowStream", "ORC", "Avro":
		return "application/octet-stream"
	}
	return "text/plain; charset=UTF-8"
}
