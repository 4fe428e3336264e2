package codec

import (
	"unicode/utf8"
)

// skip moves past one value without making JSON of it.
func (d *decoder) skip(n *node) *Error {
	if n.exact >= 0 {
		_, err := d.take(n.exact)
		return err
	}
	switch n.wire {
	case opInt:
		_, err := d.int()
		return err
	case opLong:
		_, err := d.long()
		return err
	case opString, opBytes:
		_, err := d.bytes()
		return err
	case opEnum:
		i, err := d.long()
		if err == nil && (i < 0 || i >= int64(len(n.symbols))) {
			return mismatch("%s has no symbol %d", n.says, i)
		}
		return err
	case opUnion:
		i, err := d.long()
		if err != nil {
			return err
		}
		if i < 0 || i >= int64(len(n.branch)) {
			return mismatch("union has no branch %d", i)
		}
		return d.skip(n.branch[i])
	}
	return d.skipNested(n)
}

func (d *decoder) skipNested(n *node) *Error {
	if err := d.enter(); err != nil {
		return err
	}
	defer func() { d.depth-- }()
	if n.wire == opRecord {
		for i := range n.fields {
			if err := d.skip(n.fields[i].node); err != nil {
				return err.under(n.fields[i].name)
			}
		}
		return nil
	}
	least := n.item.least
	if n.wire == opMap {
		least++
	}
	for {
		b, err := d.block(least)
		if err != nil || b.count == 0 {
			return err
		}
		if err := d.skipBlock(n, b); err != nil {
			return err
		}
	}
}

// skipBlock moves past a run. Items of no size cost no time, however many.
func (d *decoder) skipBlock(n *node, b block) *Error {
	if b.end >= 0 {
		d.pos = b.end
		return nil
	}
	if n.wire == opArray && n.item.exact == 0 {
		return nil
	}
	for range b.count {
		if n.wire == opMap {
			if _, err := d.bytes(); err != nil {
				return err
			}
		}
		if err := d.skip(n.item); err != nil {
			return err
		}
	}
	return nil
}

// Field returns a top-level field of a record's body as text, without decoding
// what stands behind it: strings, enums and uuids as they are, numbers and
// other logical types as in JSON without quotes. ok is false if there is no such field, if
// it is null, or if it is not a string or a number (boolean, bytes, fixed,
// record, array, map). The error is an *Error with reason schema_mismatch.
func (c *Codec) Field(body []byte, name string) (text string, ok bool, err error) {
	n := c.root
	i, found := n.byName[name]
	if !found {
		return "", false, nil
	}
	d := decoder{src: body}
	for k := range n.fields[:i] {
		if err := d.skip(n.fields[k].node); err != nil {
			return "", false, err.under(n.fields[k].name)
		}
	}
	text, ok, e := d.fieldText(n.fields[i].node)
	if e != nil {
		return "", false, e.under(name)
	}
	return text, ok, nil
}

func (d *decoder) fieldText(n *node) (string, bool, *Error) {
	if n.op == opUnion {
		i, err := d.long()
		if err != nil {
			return "", false, err
		}
		if i < 0 || i >= int64(len(n.branch)) {
			return "", false, mismatch("union has no branch %d", i)
		}
		n = n.branch[i]
	}
	switch n.op {
	case opNull, opBool, opBytes, opFixed, opRecord, opArray, opMap:
		return "", false, nil
	case opString:
		s, err := d.bytes()
		if err != nil {
			return "", false, err
		}
		if !utf8.Valid(s) {
			return "", false, mismatch("string is not UTF-8")
		}
		return string(s), true, nil
	case opEnum:
		i, err := d.long()
		if err != nil {
			return "", false, err
		}
		if i < 0 || i >= int64(len(n.symbols)) {
			return "", false, mismatch("%s has no symbol %d", n.says, i)
		}
		return n.symbols[i], true, nil
	}
	d.max, d.limit = DefaultMax, DefaultMax
	var few [64]byte
	d.dst = few[:0]
	if err := d.value(n); err != nil {
		return "", false, err
	}
	out := d.dst
	if out[0] == '"' { // none of these types needs an escape
		out = out[1 : len(out)-1]
	}
	return string(out), true, nil
}

// Fields lists the names of the record's fields in order; nil if the schema is
// not a record.
func (c *Codec) Fields() []string { return c.root.fieldNames() }

func (n *node) fieldNames() []string {
	var names []string
	for i := range n.fields {
		names = append(names, n.fields[i].name)
	}
	return names
}
