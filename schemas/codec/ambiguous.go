package codec

import (
	"strconv"
	"strings"

	"github.com/spillway/spillway/schemas"
)

// Ambiguous says whether the schema has a union with two branches that accept
// the same JSON, so that a value written as the later branch comes back as the
// earlier one (DESIGN 3.3). Such a schema still decodes; whoever registers it
// should be refused. The error is an *Error with the union's path ("[]" for
// elements of an array, "*" for values of a map), both branches, and JSON that
// both accept.
func (c *Codec) Ambiguous() error {
	l := linter{codec: c, been: map[*node]bool{}}
	if err := l.walk(c.root); err != nil {
		return err
	}
	return nil
}

type linter struct {
	codec *Codec
	been  map[*node]bool    // nodes walked, for recursive schemas
	open  map[[2]*node]bool // pairs being compared
	steps int               // pairs compared for one union, bounded
}

func (l *linter) walk(n *node) *Error {
	if l.been[n] {
		return nil
	}
	l.been[n] = true
	switch n.op {
	case opRecord:
		for i := range n.fields {
			if err := l.walk(n.fields[i].node); err != nil {
				return err.under(n.fields[i].name)
			}
		}
	case opArray:
		if err := l.walk(n.item); err != nil {
			return err.under("[]")
		}
	case opMap:
		if err := l.walk(n.item); err != nil {
			return err.under("*")
		}
	case opUnion:
		return l.union(n)
	}
	return nil
}

func (l *linter) union(n *node) *Error {
	l.open, l.steps = map[[2]*node]bool{}, 0
	for i, a := range n.branch {
		for _, b := range n.branch[i+1:] {
			if both := l.both(a, b); both != "" {
				return &Error{
					Reason:  schemas.SchemaUnsupported,
					Message: "branches " + a.says + " and " + b.says + " of the union both accept the JSON " + clip(both),
					Fix:     "keep one of them, or give each a field of its own",
				}
			}
		}
	}
	for _, b := range n.branch {
		if err := l.walk(b); err != nil {
			return err
		}
	}
	return nil
}

// maxSteps bounds the comparison of two branches; beyond it they are taken as
// ambiguous, and nobody could tell them apart.
const maxSteps = 20_000

// both returns JSON that a and b accept, "" if there is none. A pair that is
// inside itself has none of its own: JSON is finite.
func (l *linter) both(a, b *node) string {
	if l.steps++; l.steps > maxSteps {
		return "of some value"
	}
	pair := [2]*node{a, b}
	if a.json&b.json == 0 || l.open[pair] {
		return ""
	}
	l.open[pair] = true
	defer delete(l.open, pair)
	switch {
	case a.op == opUnion:
		return l.any(b, a.branch)
	case b.op == opUnion:
		return l.any(a, b.branch)
	case a.op == opRecord && b.op == opRecord:
		return l.records(a, b)
	case a.op == opRecord && b.op == opMap:
		return l.recordAndMap(a, b)
	case a.op == opMap && b.op == opRecord:
		return l.recordAndMap(b, a)
	case a.op == opMap:
		return "{}"
	case a.op == opArray:
		return "[]"
	}
	for _, sample := range append(samples(a), samples(b)...) {
		if accepts(a, sample) && accepts(b, sample) {
			return sample
		}
	}
	return ""
}

func (l *linter) any(n *node, branches []*node) string {
	for _, b := range branches {
		if both := l.both(n, b); both != "" {
			return both
		}
	}
	return ""
}

// records: what either requires, both must have; what is optional is left out.
func (l *linter) records(a, b *node) string {
	members := map[string]string{}
	for _, pair := range [2][2]*node{{a, b}, {b, a}} {
		for i := range pair[0].fields {
			f := &pair[0].fields[i]
			if _, done := members[f.name]; done || f.optional {
				continue
			}
			k, has := pair[1].byName[f.name]
			if !has {
				return ""
			}
			if members[f.name] = l.both(f.node, pair[1].fields[k].node); members[f.name] == "" {
				return ""
			}
		}
	}
	return object(a.fields, b.fields, members)
}

func (l *linter) recordAndMap(record, m *node) string {
	members := map[string]string{}
	for i := range record.fields {
		f := &record.fields[i]
		if f.optional {
			continue
		}
		if members[f.name] = l.both(f.node, m.item); members[f.name] == "" {
			return ""
		}
	}
	return object(record.fields, nil, members)
}

func object(a, b []field, members map[string]string) string {
	var out []string
	for _, fields := range [2][]field{a, b} {
		for i := range fields {
			if v, ok := members[fields[i].name]; ok {
				out = append(out, strconv.Quote(fields[i].name)+":"+v)
				delete(members, fields[i].name)
			}
		}
	}
	return "{" + strings.Join(out, ",") + "}"
}

// accepts asks the encoder itself.
func accepts(n *node, json string) bool {
	e := encoder{limit: maxLimit, trying: 1}
	return e.scan([]byte(json)) == nil && e.value(n, 0) == nil
}

// samples are JSON values such that, of any two types that overlap, one has a
// sample which the other accepts.
func samples(n *node) []string {
	var texts []string
	switch n.op {
	case opNull:
		return []string{"null"}
	case opBool:
		return []string{"true"}
	case opInt:
		return []string{"0"}
	case opLong, opDecimal:
		texts = digitTexts(20)
	case opFloat, opDouble:
		texts = []string{"NaN", "Infinity", "-Infinity"}
	case opEnum:
		texts = n.symbols
	case opString, opBytes:
		texts = []string{"", "AAAA"}
	case opFixed:
		texts = fixedTexts(n.size)
	case opDate:
		texts = []string{"2006-01-02"}
	case opTime:
		texts = []string{"15:04:05"}
	case opTimestamp:
		texts = []string{"2006-01-02T15:04:05Z"}
	case opLocalTimestamp:
		texts = []string{"2006-01-02T15:04:05"}
	case opUUID:
		texts = []string{"123e4567-e89b-12d3-a456-426614174000"}
	case opDuration:
		texts = []string{"PT0S"}
		for _, digits := range digitTexts(10) {
			texts = append(texts, "P"+digits+"D", "P1M"+digits+"D", "P0000000001M"+digits+"D")
		}
	}
	out := []string{}
	if n.json.has(kindNumber) {
		out = append(out, "0")
	}
	for _, text := range texts {
		out = append(out, strconv.Quote(text))
	}
	return out
}

func digitTexts(most int) []string {
	texts := []string{"0"}
	for i := 1; i <= most; i++ {
		texts = append(texts, strings.Repeat("1", i))
	}
	return texts
}

// fixedTexts are base64 of size bytes: zeros, and digits where they fill it.
// Schemas of people hold fixed of some bytes; a huge one costs its size once.
func fixedTexts(size int) []string {
	size = min(size, 1<<20)
	texts := []string{strings.Repeat("A", (size*4+2)/3) + strings.Repeat("=", (3-size%3)%3)}
	if size > 0 && size%3 == 0 {
		texts = append(texts, strings.Repeat("1", size/3*4))
	}
	return texts
}
