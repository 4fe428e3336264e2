package conformance

import (
	"bufio"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

//go:embed testdata/*.txt
var files embed.FS

// A Step is one request and the answers that are promised for it.
type Step struct {
	Line    int
	Section int    // counts from 1; steps of one section build on each other
	Title   string // of the section
	Global  bool   // the section changes settings of the whole registry, and sets them back
	Method  string
	Path    string
	Body    string
	answers []answer
}

type answer struct {
	status int
	want   string // JSON with variables
}

// Request is the step's first line as it stands in the table.
func (s *Step) Request() string { return s.Method + " " + s.Path }

// Registry is the table of the public API.
func Registry() ([]Step, error) {
	f, err := files.Open("testdata/registry.txt")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return Parse(f)
}

// Parse reads a table. Its lines:
//
//	# remark
//	## title of a section     global: at its beginning marks one that changes the whole registry
//	let NAME = schema         for $NAME in a body or answer
//	METHOD path body          a request
//	status JSON               its answer
//	or status JSON            another that is as good
//
// In an answer each object may say less than it has, lists are whole and in any
// order, "*" is anything, and the text of a schema is compared as JSON. $name
// is a value that its first place gives and the others must repeat; two names
// that begin with id have different values; $free is an id that nobody has. @name is a subject of this run and
// section alone, @ alone the beginning of all of them, @@ a word for names of
// records.
func Parse(r io.Reader) ([]Step, error) {
	p := parser{let: map[string]string{}}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		if err := p.line(n, lines.Text()); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return p.steps, lines.Err()
}

type parser struct {
	steps   []Step
	let     map[string]string
	section int
	title   string
	global  bool
}

func (p *parser) line(n int, text string) error {
	word, rest, _ := strings.Cut(text, " ")
	switch {
	case text == "" || word == "#":
		return nil
	case word == "##":
		p.section++
		p.title, p.global = strings.CutPrefix(rest, "global: ")
		return nil
	case word == "let":
		name, schema, _ := strings.Cut(rest, " = ")
		quoted, err := json.Marshal(schema)
		p.let[name] = string(quoted)
		return err
	case word == "or":
		return p.answer(rest)
	case word[0] >= '0' && word[0] <= '9':
		if len(p.steps) > 0 && len(p.steps[len(p.steps)-1].answers) > 0 {
			return fmt.Errorf("a second answer needs the word or: %s", text)
		}
		return p.answer(text)
	}
	path, body, _ := strings.Cut(rest, " ")
	body, err := p.fill(body)
	p.steps = append(p.steps, Step{Line: n, Section: p.section, Title: p.title, Global: p.global, Method: word, Path: path, Body: body})
	return err
}

func (p *parser) answer(text string) error {
	word, rest, _ := strings.Cut(text, " ")
	status, err := strconv.Atoi(word)
	if err != nil || len(p.steps) == 0 {
		return fmt.Errorf("an answer without a request: %s", text)
	}
	want, err := p.fill(rest)
	last := &p.steps[len(p.steps)-1]
	last.answers = append(last.answers, answer{status, want})
	return err
}

var schemaName = regexp.MustCompile(`\$[A-Z][A-Z0-9-]*`)

// fill puts the schemas in.
func (p *parser) fill(text string) (string, error) {
	var unknown error
	text = schemaName.ReplaceAllStringFunc(text, func(name string) string {
		schema, ok := p.let[name[1:]]
		if !ok {
			unknown = fmt.Errorf("no schema is called %s", name)
		}
		return schema
	})
	return text, unknown
}
