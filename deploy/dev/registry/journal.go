package registry

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
)

// What a record does.
const (
	opRegister = "register" // subject gets version = id; the first use of an id brings its schema
	opDelete   = "delete"   // versions of subject are marked deleted
	opErase    = "erase"    // versions of subject are gone, and schemas that nobody else uses
	opLevel    = "level"    // compatibility of subject ("" = global) is level ("" = unset)
	opMode     = "mode"     // same for the mode
)

// A record is one line of the journal: one change.
type record struct {
	Op         string      `json:"op"`
	Subject    string      `json:"subject,omitempty"`
	Version    int         `json:"version,omitempty"`
	ID         int         `json:"id,omitempty"`
	Schema     string      `json:"schema,omitempty"`
	References []reference `json:"references,omitempty"`
	Versions   []int       `json:"versions,omitempty"`
	Level      string      `json:"level,omitempty"`
	Mode       string      `json:"mode,omitempty"`
}

// maxLine bounds one line: a schema of 1 MiB whose every byte is escaped.
const maxLine = 8 << 20

var errReadOnly = errors.New("the journal takes no more changes until a restart")

// file is what a journal needs of *os.File.
type file interface {
	io.Writer
	io.Closer
	Sync() error
	Truncate(size int64) error
}

// A journal is an append-only file of JSON lines. Its owner serialises calls.
type journal struct {
	f      file
	size   int64 // of all complete lines
	broken bool  // an append failed and could not be taken back
}

// openJournal replays the file's lines through apply and opens it for append.
func openJournal(path string, apply func(record) error, log *slog.Logger) (*journal, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	good, torn, err := replay(f, apply)
	if err == nil && torn > 0 {
		log.Warn("registry: the journal's last line was cut and is dropped", "path", path, "bytes", torn)
		err = f.Truncate(good)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read journal %s: %w", path, err), f.Close())
	}
	return &journal{f: f, size: good}, nil
}

// replay applies each line. A line that cannot be read is torn if nothing
// follows it, else an error. It returns the length of what is good, and of
// what is torn.
func replay(r io.Reader, apply func(record) error) (good, torn int64, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	for n := 1; ; n++ {
		line, err := readLine(in)
		if len(line) == 0 && errors.Is(err, io.EOF) {
			return good, 0, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return good, 0, fmt.Errorf("line %d: %w", n, err)
		}
		var rec record
		bad := err // a line without its end is torn even if it reads well
		if bad == nil {
			bad = json.Unmarshal(line, &rec)
		}
		if bad != nil {
			if _, end := in.Peek(1); errors.Is(end, io.EOF) {
				return good, int64(len(line)), nil
			}
			return good, 0, fmt.Errorf("line %d: %w", n, bad)
		}
		if err := apply(rec); err != nil {
			return good, 0, fmt.Errorf("line %d: %w", n, err)
		}
		good += int64(len(line))
	}
}

// readLine reads up to and with the next newline, io.EOF if the file ends
// before it.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxLine {
			return nil, fmt.Errorf("longer than %d bytes", maxLine)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// Append writes one record and returns when it is on disk. After an error the
// record is not in the journal; if that cannot be assured, this and all later
// appends fail with errReadOnly.
func (j *journal) Append(rec record) error {
	if j.broken {
		return errReadOnly
	}
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(rec); err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	if line.Len() > maxLine {
		return fmt.Errorf("record of %d bytes is longer than %d", line.Len(), maxLine)
	}
	_, err := j.f.Write(line.Bytes())
	if err == nil {
		err = j.f.Sync()
	}
	if err != nil {
		return j.takeBack(fmt.Errorf("append to journal: %w", err))
	}
	j.size += int64(line.Len())
	return nil
}

func (j *journal) takeBack(cause error) error {
	if err := errors.Join(j.f.Truncate(j.size), j.f.Sync()); err != nil {
		j.broken = true
		return errors.Join(cause, err, errReadOnly)
	}
	return cause
}

// Close closes the file.
func (j *journal) Close() error { return j.f.Close() }
