package binding

// A walker steps over the members of an object or the elements of an array
// without looking inside. Its text must be valid JSON, so it finds no errors.
type walker struct {
	b     []byte
	pos   int
	key   []byte // a member's key, with its quotes
	value []byte // a member's or element's value
}

// nextMember steps to the next member of an object; false at its end.
func (w *walker) nextMember() bool {
	if !w.open() {
		return false
	}
	w.key = w.take()
	w.space()
	w.pos++ // ':'
	w.space()
	w.value = w.take()
	return true
}

// nextElement steps to the next element of an array; false at its end.
func (w *walker) nextElement() bool {
	if !w.open() {
		return false
	}
	w.value = w.take()
	return true
}

// open goes past '{', '[' or ',' to where something begins; false if it is the
// end.
func (w *walker) open() bool {
	w.space()
	if w.b[w.pos] == '}' || w.b[w.pos] == ']' {
		return false
	}
	w.pos++
	w.space()
	return w.b[w.pos] != '}' && w.b[w.pos] != ']'
}

func (w *walker) space() {
	for {
		switch w.b[w.pos] {
		case ' ', '\t', '\n', '\r':
			w.pos++
		default:
			return
		}
	}
}

// take returns the value at pos and steps past it.
func (w *walker) take() []byte {
	start, depth := w.pos, 0
	for {
		switch w.b[w.pos] {
		case '"':
			w.skipString()
		case '{', '[':
			depth++
			w.pos++
		case '}', ']':
			depth--
			w.pos++
		case ',', ':', ' ', '\t', '\n', '\r':
			w.pos++
		default:
			w.skipWord()
		}
		if depth == 0 {
			return w.b[start:w.pos]
		}
	}
}

func (w *walker) skipString() {
	for w.pos++; w.b[w.pos] != '"'; w.pos++ {
		if w.b[w.pos] == '\\' {
			w.pos++
		}
	}
	w.pos++
}

// skipWord goes past a number, true, false or null.
func (w *walker) skipWord() {
	for ; w.pos < len(w.b); w.pos++ {
		switch w.b[w.pos] {
		case ',', '}', ']', ' ', '\t', '\n', '\r':
			return
		}
	}
}

// kindOf is the first byte of a JSON value, '0' for every number.
func kindOf(raw []byte) byte {
	for _, c := range raw {
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
		case c == '-' || '0' <= c && c <= '9':
			return '0'
		default:
			return c
		}
	}
	return 0
}

// kindName is the kind of a JSON value for a person.
func kindName(raw []byte) string {
	switch kindOf(raw) {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}
