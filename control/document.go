package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/spillway/spillway/schemas"
)

// A Document is one record as people write and read it, in YAML or JSON:
//
//	kind: tenant        # or endpoint, flag
//	name: acme
//	spec:               # a schemas.Policy, schemas.Endpoint or Flag
//	  fast: {rate: 2000}
//
// Several stand in one file, with --- between them.
type Document struct {
	Kind    Kind   `json:"kind"`
	Name    string `json:"name"`
	Version int64  `json:"version,omitempty"` // in a file: it must be this one still; 0: any
	Spec    any    `json:"spec"`              // by kind
}

// Bounds of a file.
const (
	maxFile      = 4 << 20 // bytes
	maxDocuments = 10_000
	maxNesting   = 50 // of a document; the deepest that means anything has 5
)

// Load reads documents in YAML or JSON. Unknown fields, aliases and repeated
// keys are errors; every error says where.
func Load(text []byte) ([]Document, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("the file has %d bytes, more than %d", len(text), maxFile)
	}
	if err := tame(text); err != nil {
		return nil, err
	}
	var out []Document
	for _, p := range parts(string(text)) {
		if len(out) == maxDocuments {
			return nil, fmt.Errorf("the file has more than %d documents", maxDocuments)
		}
		d, empty, err := p.load()
		if err != nil {
			return nil, p.located(err)
		}
		if !empty {
			out = append(out, d)
		}
	}
	return out, nil
}

// A part is the text of one document.
type part struct {
	text  string
	lines int // before it in the file
}

// parts splits a file at its document markers, which nothing inside a document
// can look like (YAML 1.2.2, section 9.1.2). The parser could do it too, but
// it drops what follows an empty document.
func parts(text string) []part {
	var out []part
	from, p := 0, part{}
	line, at := 0, 0
	end := func() { p.text += text[from:at]; out = append(out, p) }
	for l := range strings.Lines(text) {
		bare := strings.TrimRight(l, " \t\r\n")
		if rest, ok := strings.CutPrefix(l, "---"); ok && (bare == "---" || rest[0] == ' ' || rest[0] == '\t') {
			end()
			p, from = part{"   " + rest, line}, at+len(l)
		} else if bare == "..." {
			end()
			p, from = part{"\n", line}, at+len(l)
		}
		line++
		at += len(l)
	}
	end()
	return out
}

// load reads a part; it is empty if it is nothing but comments.
func (p part) load() (d Document, empty bool, err error) {
	file, err := parser.ParseBytes([]byte(p.text), 0)
	if err != nil {
		return d, false, err
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil || file.Docs[0].Body.Type() == ast.CommentType {
		return d, true, nil
	}
	if len(file.Docs) > 1 {
		return d, false, errors.New("[1:1] there are two documents without --- between them")
	}
	body := file.Docs[0].Body
	var head struct {
		Kind Kind `json:"kind"`
	}
	if err := yaml.NodeToValue(body, &head); err != nil {
		return d, false, err
	}
	decode, ok := specs[head.Kind]
	if !ok {
		return d, false, fmt.Errorf("[1:1] kind: must be tenant, endpoint or flag, got %.80q", head.Kind)
	}
	d, err = decode(func(into any) error { return yaml.NodeToValue(body, into, yaml.Strict()) })
	if err == nil && d.Name == "" {
		err = errors.New("[1:1] name: is missing")
	}
	return d, false, err
}

// located makes an error of the part one line, and its "[line:column]" count
// from the beginning of the file.
func (p part) located(err error) error {
	text, _, _ := strings.Cut(err.Error(), "\n")
	text = strings.Replace(text, "Go struct field ", "field ", 1)
	var line, column int
	if _, err := fmt.Sscanf(text, "[%d:%d]", &line, &column); err != nil {
		return fmt.Errorf("line %d: %s", p.lines+1, text)
	}
	_, text, _ = strings.Cut(text, "]")
	return fmt.Errorf("line %d, column %d: %s", p.lines+line, column, strings.TrimSpace(text))
}

// specs read a document of each kind with a function that fills a struct.
var specs = map[Kind]func(fill func(into any) error) (Document, error){
	KindTenant:   typed[schemas.Policy],
	KindEndpoint: typed[schemas.Endpoint],
	KindFlag:     typed[Flag],
}

func typed[T any](fill func(into any) error) (Document, error) {
	var d struct {
		Kind    Kind   `json:"kind"`
		Name    string `json:"name"`
		Version int64  `json:"version"`
		Spec    T      `json:"spec"`
	}
	err := fill(&d)
	return Document{d.Kind, d.Name, d.Version, d.Spec}, err
}

// UnmarshalJSON reads a document, strictly.
func (d *Document) UnmarshalJSON(text []byte) error {
	var head struct {
		Kind Kind `json:"kind"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return err
	}
	decode, ok := specs[head.Kind]
	if !ok {
		return fmt.Errorf("kind: must be tenant, endpoint or flag, got %.80q", head.Kind)
	}
	var err error
	*d, err = decode(func(into any) error { return strictJSON(text, into) })
	return err
}

// strictJSON reads one JSON value and nothing else.
func strictJSON(text []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// Export prints documents as YAML that Load reads and `apply` takes without a
// change. Versions are left out, so that a backup may be applied at any time.
func Export(docs []Document) ([]byte, error) {
	var out bytes.Buffer
	for i, d := range docs {
		d.Version = 0
		text, err := json.Marshal(d)
		if err == nil {
			text, err = yaml.JSONToYAML(text)
		}
		if err != nil {
			return nil, fmt.Errorf("%s/%s: %w", d.Kind, d.Name, err)
		}
		if i > 0 {
			out.WriteString("---\n")
		}
		out.Write(text)
	}
	return out.Bytes(), nil
}

// change is what d asks for.
func (d Document) change() change {
	c := change{key: key{d.Kind, d.Name}, value: d.Spec, ifMatch: anyVersion}
	if d.Version > 0 {
		c.ifMatch = d.Version
	}
	return c
}

// order puts what others point to first.
func order(docs []Document) {
	rank := map[Kind]int{KindEndpoint: 0, KindTenant: 1, KindFlag: 2}
	slices.SortStableFunc(docs, func(a, b Document) int {
		if a.Kind != b.Kind {
			return rank[a.Kind] - rank[b.Kind]
		}
		return strings.Compare(a.Name, b.Name)
	})
}

// tame refuses what a parser may blow up on: aliases, which can stand for
// gigabytes, and nesting that only exhausts a stack.
func tame(text []byte) error {
	depth, perLine, line := 0, 0, 0
	for _, t := range lexer.Tokenize(string(text)) {
		if t.Position != nil && t.Position.Line != line {
			line, perLine = t.Position.Line, 0
		}
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType, token.TagType, token.DirectiveType:
			return fmt.Errorf("line %d: anchors, aliases, tags and directives are not read here", line)
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType, token.MappingKeyType, token.MappingValueType:
			perLine++
		}
		if depth > maxNesting || depth == 0 && perLine > maxNesting || t.Position != nil && t.Position.IndentNum > 4*maxNesting {
			return fmt.Errorf("line %d: nested too deeply", line)
		}
	}
	return nil
}
