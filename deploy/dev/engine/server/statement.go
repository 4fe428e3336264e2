package server

import (
	"bytes"
	"strings"
)

// A statement is what the server must know of a query before the engine sees
// it: whether rows follow it, where they start, and in which format.
type statement struct {
	insert bool   // INSERT with rows after its FORMAT or VALUES
	query  string // the query; of an insert only what stands before its FORMAT or VALUES
	format string // the format it names, "" for none; "Values" of VALUES
	rows   int    // offset of the first byte of rows in the text, if insert
}

// parseStatement reads the beginning of a query. It understands words, quotes,
// comments and parentheses, no more: what it does not recognise goes to the
// engine whole, which has the real parser.
func parseStatement(text []byte) statement {
	s := statement{query: string(text)}
	var (
		isInsert, sawSelect bool
		prev                string
		formatAt            = -1
	)
	scanWords(text, func(w word) bool {
		name := strings.ToUpper(string(text[w.start:w.end]))
		first := prev == ""
		defer func() { prev = name }()
		switch {
		case first:
			isInsert = name == "INSERT"
		case w.depth > 0:
			sawSelect = sawSelect || name == "SELECT"
		case isInsert && (prev == "INTO" || prev == "TABLE" || w.qualified):
			// the table: it may bear the name of a keyword
		case isInsert && (name == "SELECT" || name == "WITH" || name == "INFILE"):
			isInsert = false // rows come from the query, not from the request
		case isInsert && name == "VALUES":
			s.insert, s.format, s.query, s.rows = true, "Values", string(text[:w.start]), w.end
			return false
		case name == "FORMAT":
			formatAt = w.start
		case prev == "FORMAT" && formatAt >= 0:
			s.format = string(text[w.start:w.end])
			if isInsert && !sawSelect {
				s.insert, s.query, s.rows = true, string(text[:formatAt]), rowsStart(text, w.end)
				return false
			}
		}
		return true
	})
	return s
}

// rowsStart skips the blanks and the one line end between a format's name and
// the rows. Not more: the first byte of a binary block may look like a blank.
func rowsStart(text []byte, at int) int {
	for at < len(text) && (text[at] == ' ' || text[at] == '\t' || text[at] == '\r') {
		at++
	}
	if at < len(text) && text[at] == '\n' {
		at++
	}
	return at
}

// word is a bare identifier or keyword of a query.
type word struct {
	start, end int
	depth      int  // open parentheses around it
	qualified  bool // stands behind a dot
}

// scanWords calls use for every word outside of quotes and comments, until it
// returns false.
func scanWords(text []byte, use func(word) bool) {
	depth := 0
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '\'' || c == '"' || c == '`':
			i = quoteEnd(text, i)
		case bytes.HasPrefix(text[i:], []byte("--")) || c == '#':
			i = skipTo(text, i, "\n")
		case bytes.HasPrefix(text[i:], []byte("/*")):
			i = skipTo(text, i+2, "*/")
		case c == '$' && heredocEnd(text, i) > 0:
			i = heredocEnd(text, i)
		case isWordByte(c):
			w := word{start: i, depth: depth, qualified: i > 0 && text[i-1] == '.'}
			for i < len(text) && isWordByte(text[i]) {
				i++
			}
			w.end = i
			if !use(w) {
				return
			}
		default:
			if c == '(' {
				depth++
			} else if c == ')' {
				depth--
			}
			i++
		}
	}
}

// quoteEnd is the offset behind the quoted text that starts at i. A quote
// inside is doubled or behind a backslash; doubled ones read as two texts.
func quoteEnd(text []byte, i int) int {
	quote := text[i]
	for i++; i < len(text); i++ {
		if text[i] == '\\' {
			i++
		} else if text[i] == quote {
			return i + 1
		}
	}
	return len(text)
}

// heredocEnd is the offset behind $tag$…$tag$, or 0 if none starts at i.
func heredocEnd(text []byte, i int) int {
	n := bytes.IndexByte(text[i+1:], '$')
	if n < 0 {
		return 0
	}
	tag := text[i : i+n+2]
	for _, c := range tag[1 : len(tag)-1] {
		if !isWordByte(c) {
			return 0
		}
	}
	end := bytes.Index(text[i+len(tag):], tag)
	if end < 0 {
		return 0
	}
	return i + end + 2*len(tag)
}

// skipTo is the offset behind the next end, or that of the text's end.
func skipTo(text []byte, i int, end string) int {
	if n := bytes.Index(text[min(i, len(text)):], []byte(end)); n >= 0 {
		return i + n + len(end)
	}
	return len(text)
}

func isWordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// quote makes a SQL string literal.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// quoteName makes a SQL identifier.
func quoteName(s string) string {
	return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`").Replace(s) + "`"
}
