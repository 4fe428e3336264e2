// Package infer guesses an Avro schema from JSON examples.
//
//	examples ──read──▶ one shape (what was seen at each place) ──write──▶ .avsc
//	    └──────────────────── must all encode with it ◀─────────────────────┘
//
// It guesses little: integers are long, other numbers double, text is string,
// an object is always a record (a map would have to be guessed), and what is
// null or missing in some example is nullable with default null. Whoever wants
// int, timestamps, enums or maps edits the result.
package infer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spillway/spillway/schemas/codec"
)

// MaxInput is how many bytes of examples are read; more is an error.
const MaxInput = 64 << 20

// Infer reads JSON objects, one after the other or in one array, and returns
// the text of a record schema with the given full name that encodes each of
// them and is not ambiguous. Nested records are named Name.Field. The error
// names the path, and the example where one is to blame.
func Infer(name string, examples io.Reader) (avsc string, err error) {
	text, err := io.ReadAll(io.LimitReader(examples, MaxInput+1))
	if err != nil {
		return "", fmt.Errorf("read examples: %w", err)
	}
	if len(text) > MaxInput {
		return "", fmt.Errorf("more than %d bytes of examples", MaxInput)
	}
	each, err := split(text)
	if err != nil {
		return "", err
	}
	top := &shape{}
	for i, example := range each {
		if err := read(top, example); err != nil {
			return "", fmt.Errorf("example %d: %w", i+1, err)
		}
	}
	w := writer{names: map[string]bool{}}
	record, err := w.record(top, name, "")
	if err != nil {
		return "", err
	}
	out, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write schema: %w", err)
	}
	return string(out) + "\n", verify(string(out), each)
}

// split cuts the input into examples.
func split(text []byte) ([]json.RawMessage, error) {
	var each []json.RawMessage
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("[")) {
		if err := json.Unmarshal(text, &each); err != nil {
			return nil, fmt.Errorf("examples: %w", err)
		}
	} else {
		d := json.NewDecoder(bytes.NewReader(text))
		for {
			var one json.RawMessage
			err := d.Decode(&one)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("example %d: %w", len(each)+1, err)
			}
			each = append(each, one)
		}
	}
	if len(each) == 0 {
		return nil, errors.New("there is no example")
	}
	for i, one := range each {
		if one[0] != '{' {
			return nil, fmt.Errorf("example %d is not an object", i+1)
		}
	}
	return each, nil
}

// verify holds the promise: the schema compiles, is not ambiguous, and encodes
// every example.
func verify(avsc string, each []json.RawMessage) error {
	c, err := codec.Compile(avsc)
	if err != nil {
		return err
	}
	if err := c.Ambiguous(); err != nil {
		return err
	}
	for i, example := range each {
		if _, err := c.AppendAvro(nil, example, 2*MaxInput); err != nil {
			return fmt.Errorf("example %d: %w", i+1, err)
		}
	}
	return nil
}

// A shape is what was seen at one place of the examples.
type shape struct {
	null, boolean bool
	integer       bool // a number that is an integer of 64 bits
	decimal       bool // another number
	text          bool // a string
	digits        bool // a string that a long accepts
	special       bool // NaN, Infinity or -Infinity as a string
	array, object bool
	item          *shape // of all arrays seen here
	fields        []*member
	index         map[string]*member
	objects       int // how many objects were seen here
}

type member struct {
	name  string
	shape shape
	seen  int // objects that had it
}

func read(top *shape, example []byte) error {
	d := json.NewDecoder(bytes.NewReader(example))
	d.UseNumber()
	return top.read(d, 0)
}

func (s *shape) read(d *json.Decoder, depth int) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	if depth > codec.MaxDepth {
		return fmt.Errorf("nested deeper than %d", codec.MaxDepth)
	}
	switch v := token.(type) {
	case nil:
		s.null = true
	case bool:
		s.boolean = true
	case json.Number:
		if _, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			s.integer = true
		} else {
			s.decimal = true
		}
	case string:
		s.readText(v)
	case json.Delim:
		if v == '[' {
			err = s.readArray(d, depth)
		} else {
			err = s.readObject(d, depth)
		}
		if err == nil {
			_, err = d.Token() // the closing bracket
		}
	}
	return err
}

func (s *shape) readText(v string) {
	if n, err := strconv.ParseInt(v, 10, 64); err == nil && strconv.FormatInt(n, 10) == v {
		s.digits = true
	} else if v == "NaN" || v == "Infinity" || v == "-Infinity" {
		s.special = true
	} else {
		s.text = true
	}
}

func (s *shape) readArray(d *json.Decoder, depth int) error {
	s.array = true
	if s.item == nil {
		s.item = &shape{}
	}
	for d.More() {
		if err := s.item.read(d, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (s *shape) readObject(d *json.Decoder, depth int) error {
	s.object = true
	s.objects++
	if s.index == nil {
		s.index = map[string]*member{}
	}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		m := s.index[name]
		if m == nil {
			if !isName(name) {
				return fmt.Errorf("%q cannot name an Avro field (letters, digits and _, no digit first): rename it, "+
					"or write the schema by hand with a map where keys are data", name)
			}
			m = &member{name: name}
			s.index[name] = m
			s.fields = append(s.fields, m)
		}
		m.seen++
		if err := m.shape.read(d, depth+1); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func isName(s string) bool {
	for i, c := range s {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// writer makes schema JSON of shapes.
type writer struct {
	names map[string]bool // of records, each once
}

type recordJSON struct {
	Type   string      `json:"type"`
	Name   string      `json:"name"`
	Fields []fieldJSON `json:"fields"`
}

type fieldJSON struct {
	Name    string          `json:"name"`
	Type    any             `json:"type"`
	Default json.RawMessage `json:"default,omitempty"`
}

type arrayJSON struct {
	Type  string `json:"type"`
	Items any    `json:"items"`
}

func (w *writer) record(s *shape, name, path string) (recordJSON, error) {
	unique := name
	for i := 2; w.names[strings.ToLower(unique)]; i++ {
		unique = name + strconv.Itoa(i)
	}
	w.names[strings.ToLower(unique)] = true
	out := recordJSON{"record", unique, []fieldJSON{}}
	for _, m := range s.fields {
		at := strings.TrimPrefix(path+"."+m.name, ".")
		m.shape.null = m.shape.null || m.seen < s.objects
		kind, nullable, err := w.kind(&m.shape, unique+"."+title(m.name), at)
		if err != nil {
			return out, err
		}
		f := fieldJSON{Name: m.name, Type: kind}
		if nullable {
			f.Default = json.RawMessage("null")
		}
		out.Fields = append(out.Fields, f)
	}
	return out, nil
}

// kind is the type of a shape: one type, or a union that begins with null if
// nullable.
func (w *writer) kind(s *shape, name, path string) (kind any, nullable bool, err error) {
	var branches []any
	if s.boolean {
		branches = append(branches, "boolean")
	}
	scalar, err := s.scalar(path)
	if err != nil {
		return nil, false, err
	}
	if scalar != "" {
		branches = append(branches, scalar)
	}
	if s.array {
		items, _, err := w.kind(s.item, name, path+"[]")
		if err != nil {
			return nil, false, err
		}
		branches = append(branches, arrayJSON{"array", items})
	}
	if s.object {
		record, err := w.record(s, name, path)
		if err != nil {
			return nil, false, err
		}
		branches = append(branches, record)
	}
	if len(branches) == 0 {
		branches = []any{"string"} // never seen with a value: an empty array's item, or always null
	}
	switch {
	case s.null:
		return append([]any{"null"}, branches...), true, nil
	case len(branches) == 1:
		return branches[0], false, nil
	}
	return branches, false, nil
}

// scalar is the type of the numbers and strings, "" if there are none. Numbers
// and texts in one place would be ambiguous as plain JSON.
func (s *shape) scalar(path string) (string, error) {
	number := s.integer || s.decimal
	strings := s.text || s.digits || s.special
	switch {
	case !number && !strings:
		return "", nil
	case !number:
		return "string", nil
	case !strings && s.decimal, !s.text && !s.digits && s.special:
		return "double", nil
	case !strings, !s.text && !s.special && s.digits && !s.decimal:
		return "long", nil
	}
	return "", fmt.Errorf("%s: a number in one example and a string in another: make them one", path)
}

// title is a field's name as a record's: user_name becomes UserName.
func title(name string) string {
	var b strings.Builder
	for _, part := range strings.Split(name, "_") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	if out := b.String(); isName(out) {
		return out
	}
	return "_" + b.String()
}
