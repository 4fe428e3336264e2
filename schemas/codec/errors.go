package codec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spillway/spillway/schemas"
)

// An Error is what Compile, AppendJSON, AppendAvro, Field and ParseHeader
// return; callers branch on its Reason and show the rest to a person.
type Error struct {
	Reason  schemas.Reason // schema_mismatch, schema_unsupported, too_large, malformed, not_wire_format
	Path    string         // field inside the value, "items[3].price"; "" is the value itself
	Message string         // what is wrong: "want long, got string"
	Fix     string         // the cure, "" if none is obvious
}

// Error is path, message and fix in one line.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Path != "" {
		b.WriteString(e.Path)
		b.WriteString(": ")
	}
	b.WriteString(e.Message)
	if e.Fix != "" {
		b.WriteString(" (")
		b.WriteString(e.Fix)
		b.WriteByte(')')
	}
	return b.String()
}

// In returns a copy whose path begins at root, e.g. "data" for the data of a
// CloudEvent: "data.items[3].price".
func (e *Error) In(root string) *Error {
	c := *e
	c.Path = joinPath(root, e.Path)
	return &c
}

// errNotThis is returned while the encoder tries the branches of a union: the
// value is none of this branch. It is never seen by a caller.
var errNotThis = &Error{Reason: schemas.SchemaMismatch, Message: "not this branch"}

func (e *Error) under(field string) *Error {
	if e != errNotThis {
		e.Path = joinPath(clip(field), e.Path)
	}
	return e
}

func (e *Error) underKey(key string) *Error {
	if e == errNotThis {
		return e
	}
	if !isName(key) {
		key = "[" + strconv.Quote(clip(key)) + "]"
	}
	return e.under(key)
}

func (e *Error) at(index int) *Error {
	if e == errNotThis {
		return e
	}
	return e.under("[" + strconv.Itoa(index) + "]")
}

func joinPath(outer, inner string) string {
	if outer == "" || inner == "" || inner[0] == '[' {
		return outer + inner
	}
	return outer + "." + inner
}

func isName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// clip keeps error texts short whatever the input is.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// nearest returns the fix for an unknown word: the known one that differs by
// case or by two letters at most, else the list of what there is.
func nearest(word string, known []string, what string) string {
	if len(known) == 0 {
		return "there are no " + what
	}
	best, bestDistance := "", 3
	if len(word) <= 64 {
		for _, k := range known {
			if strings.EqualFold(k, word) {
				best = k
				break
			}
			if d := distance(word, k); d < bestDistance && d < len(k) {
				best, bestDistance = k, d
			}
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	const most = 12
	if len(known) > most {
		return fmt.Sprintf("%s are %s and %d more", what, strings.Join(known[:most], ", "), len(known)-most)
	}
	return what + " are " + strings.Join(known, ", ")
}

// distance is the Levenshtein distance in bytes, 3 where it is surely more
// than 2.
func distance(a, b string) int {
	if len(a)-len(b) > 2 || len(b)-len(a) > 2 {
		return 3
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], slices.Min([]int{row[j] + 1, row[j-1] + 1, diagonal + cost})
		}
	}
	return row[len(b)]
}
