package codec

import (
	"strconv"
	"unicode/utf8"

	"github.com/spillway/spillway/schemas"
)

// The scanner checks a whole JSON text (RFC 8259) and cuts it into tokens, so
// that the encoder may take the members of an object in the schema's order
// and try the branches of a union without reading anything twice.

type kind uint8

const (
	kindNull kind = iota
	kindTrue
	kindFalse
	kindNumber
	kindString
	kindArray
	kindObject
)

var kindNames = [...]string{"null", "boolean", "boolean", "number", "string", "array", "object"}

type kindSet uint8

func kinds(ks ...kind) (set kindSet) {
	for _, k := range ks {
		set |= 1 << k
	}
	return set
}

func (s kindSet) has(k kind) bool { return s&(1<<k) != 0 }

// A token is one value or object key. The tokens of an array's elements and
// of an object's keys and values, alternating, follow it directly.
type token struct {
	kind    kind
	escaped bool   // a string that holds a backslash
	start   uint32 // a string without its quotes
	end     uint32
	count   uint32 // elements, members
	next    uint32 // index of the token after the whole value
}

// scanner fills toks. src must be shorter than maxLimit.
type scanner struct {
	src  []byte
	pos  int
	toks []token
}

// scan cuts src, which must be exactly one JSON value.
func (s *scanner) scan(src []byte) *Error {
	s.src, s.pos, s.toks = src, 0, s.toks[:0]
	s.space()
	if err := s.value(0); err != nil {
		return err
	}
	s.space()
	if s.pos != len(src) {
		return s.fail("more after the end of the value")
	}
	return nil
}

func (s *scanner) fail(what string) *Error {
	return &Error{Reason: schemas.Malformed, Message: "not JSON: " + what + " at byte " + strconv.Itoa(s.pos)}
}

func (s *scanner) space() {
	for s.pos < len(s.src) {
		switch s.src[s.pos] {
		case ' ', '\n', '\t', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek is the byte at pos, 0 at the end.
func (s *scanner) peek() byte {
	if s.pos < len(s.src) {
		return s.src[s.pos]
	}
	return 0
}

func (s *scanner) value(depth int) *Error {
	c := s.peek()
	switch {
	case c == '"':
		return s.str()
	case c == '{' || c == '[':
		if depth >= MaxDepth {
			return &Error{Reason: schemas.SchemaMismatch, Message: "nested deeper than " + strconv.Itoa(MaxDepth)}
		}
		if c == '{' {
			return s.object(depth + 1)
		}
		return s.array(depth + 1)
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	case c == 't':
		return s.word("true", kindTrue)
	case c == 'f':
		return s.word("false", kindFalse)
	case c == 'n':
		return s.word("null", kindNull)
	case s.pos == len(s.src):
		return s.fail("it ends")
	}
	return s.fail("unexpected character")
}

func (s *scanner) emit(k kind, start, end int) {
	s.toks = append(s.toks, token{kind: k, start: uint32(start), end: uint32(end), next: uint32(len(s.toks) + 1)})
}

func (s *scanner) word(word string, k kind) *Error {
	if len(s.src)-s.pos < len(word) || string(s.src[s.pos:s.pos+len(word)]) != word {
		return s.fail("unexpected character")
	}
	s.emit(k, s.pos, s.pos+len(word))
	s.pos += len(word)
	return nil
}

func (s *scanner) number() *Error {
	end := numberEnd(s.src, s.pos)
	if end < 0 {
		return s.fail("bad number")
	}
	s.emit(kindNumber, s.pos, end)
	s.pos = end
	return nil
}

// numberEnd is where the JSON number that begins at i ends, -1 if none does.
func numberEnd(s []byte, i int) int {
	if i < len(s) && s[i] == '-' {
		i++
	}
	from := i
	if i = digitsEnd(s, i); i == from || s[from] == '0' && i > from+1 {
		return -1
	}
	if i < len(s) && s[i] == '.' {
		from = i + 1
		if i = digitsEnd(s, from); i == from {
			return -1
		}
	}
	if i < len(s) && s[i]|0x20 == 'e' {
		from = i + 1
		if from < len(s) && (s[from] == '+' || s[from] == '-') {
			from++
		}
		if i = digitsEnd(s, from); i == from {
			return -1
		}
	}
	return i
}

func digitsEnd(s []byte, i int) int {
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return i
}

func isNumber(s []byte) bool { return numberEnd(s, 0) == len(s) }

// str cuts a string and checks its escapes and that it is UTF-8.
func (s *scanner) str() *Error {
	start := s.pos + 1
	src, i, escaped := s.src, start, false
	for i < len(src) {
		c := src[i]
		switch {
		case plain[c]:
			i++
		case c == '"':
			s.emit(kindString, start, i)
			s.toks[len(s.toks)-1].escaped = escaped
			s.pos = i + 1
			return nil
		case c == '\\':
			escaped = true
			size := escapeSize(src[i:])
			if size == 0 {
				s.pos = i
				return s.fail("bad escape")
			}
			i += size
		case c < 0x20:
			s.pos = i
			return s.fail("control character in a string")
		default:
			r, size := utf8.DecodeRune(src[i:])
			if r == utf8.RuneError && size == 1 {
				s.pos = i
				return s.fail("string is not UTF-8")
			}
			i += size
		}
	}
	s.pos = i
	return s.fail("it ends inside a string")
}

// escapeSize is the length of the escape at the start of s, a surrogate pair
// counted as one, 0 if it is none.
func escapeSize(s []byte) int {
	if len(s) < 2 {
		return 0
	}
	switch s[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		_, size := unescapeRune(s)
		return size
	}
	return 0
}

// unescapeRune reads \uXXXX, or two of them as a surrogate pair; size 0 means
// it is neither, or half a pair.
func unescapeRune(s []byte) (r rune, size int) {
	high := hex4(s)
	switch {
	case high < 0 || high >= 0xdc00 && high <= 0xdfff:
		return 0, 0
	case high < 0xd800 || high > 0xdfff:
		return high, 6
	}
	low := hex4(s[6:])
	if low < 0xdc00 || low > 0xdfff {
		return 0, 0
	}
	return (high-0xd800)<<10 + (low - 0xdc00) + 0x10000, 12
}

func hex4(s []byte) rune {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return -1
	}
	r := rune(0)
	for _, c := range s[2:6] {
		h := unhex(c)
		if h < 0 {
			return -1
		}
		r = r<<4 | rune(h)
	}
	return r
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// appendUnescaped appends the text of a checked string.
func appendUnescaped(dst, s []byte) []byte {
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			dst = append(dst, s[i])
			i++
			continue
		}
		c, size := s[i+1], 2
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, n := unescapeRune(s[i:])
			dst, size = utf8.AppendRune(dst, r), n
		}
		if size == 2 {
			dst = append(dst, c)
		}
		i += size
	}
	return dst
}

func (s *scanner) array(depth int) *Error {
	at := s.open(kindArray)
	if s.peek() == ']' {
		s.close(at, 0)
		return nil
	}
	for count := 1; ; count++ {
		if err := s.value(depth); err != nil {
			return err
		}
		if done, err := s.more(']'); err != nil {
			return err
		} else if done {
			s.close(at, count)
			return nil
		}
	}
}

func (s *scanner) object(depth int) *Error {
	at := s.open(kindObject)
	if s.peek() == '}' {
		s.close(at, 0)
		return nil
	}
	for count := 1; ; count++ {
		if s.peek() != '"' {
			return s.fail("object key expected")
		}
		if err := s.str(); err != nil {
			return err
		}
		s.space()
		if s.peek() != ':' {
			return s.fail("':' expected")
		}
		s.pos++
		s.space()
		if err := s.value(depth); err != nil {
			return err
		}
		if done, err := s.more('}'); err != nil {
			return err
		} else if done {
			s.close(at, count)
			return nil
		}
	}
}

func (s *scanner) open(k kind) (at int) {
	at = len(s.toks)
	s.emit(k, s.pos, s.pos)
	s.pos++
	s.space()
	return at
}

// more moves past a comma; done is true at the closing bracket.
func (s *scanner) more(closing byte) (done bool, err *Error) {
	s.space()
	switch s.peek() {
	case closing:
		return true, nil
	case ',':
		s.pos++
		s.space()
		return false, nil
	}
	return false, s.fail("',' or '" + string(closing) + "' expected")
}

func (s *scanner) close(at, count int) {
	s.pos++
	t := &s.toks[at]
	t.end, t.count, t.next = uint32(s.pos), uint32(count), uint32(len(s.toks))
}
