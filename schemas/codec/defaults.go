package codec

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"

	"github.com/twmb/avro"
)

// Bounds of default values, in bytes of Avro: of one field, for each `{}` of a
// JSON input can call for it, and of all fields of a schema, for a default of
// a record repeats those of its fields.
const (
	maxDefault  = 64 << 10
	maxDefaults = 1 << 20
)

// fieldSource is where the defaults of a record's fields come from.
type fieldSource struct {
	fields []avro.SchemaField
	state  []progress
}

type progress uint8

const (
	untouched progress = iota
	begun
	done
)

// defaults computes what is written for each field that JSON leaves out.
func (c *compiler) defaults() error {
	for _, n := range c.records {
		for i := range n.fields {
			if err := c.absent(n, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// absent sets fields[i].absent and .optional: the default, else null where the
// type allows it.
func (c *compiler) absent(n *node, i int) error {
	f, from := &n.fields[i], c.sources[n]
	switch from.state[i] {
	case done:
		return nil
	case begun:
		return unsupported("schema: default of %s.%s contains itself", n.name, f.name)
	}
	from.state[i] = begun
	source := &from.fields[i]
	switch {
	case source.HasDefault:
		body, ok, err := c.encodeDefault(nil, f.node, source.Default)
		if err != nil {
			return err
		}
		if !ok {
			return unsupported("schema: default of %s.%s does not fit its type", n.name, f.name)
		}
		if len(body) > maxDefault {
			return unsupported("schema: default of %s.%s exceeds %d bytes", n.name, f.name, maxDefault)
		}
		if c.defaultBytes += len(body); c.defaultBytes > maxDefaults {
			return unsupported("schema: its defaults exceed %d bytes in all", maxDefaults)
		}
		f.absent, f.optional = body, true
	case f.node.op == opNull:
		f.optional = true
	case f.node.op == opUnion && f.node.null >= 0:
		f.absent, f.optional = binary.AppendVarint(nil, int64(f.node.null)), true
	}
	from.state[i] = done
	return nil
}

// encodeDefault appends a default as the avro library parsed it; ok is false
// if it is not of the node's type. Defaults are written in the underlying Avro
// type, so logical types do not matter here.
func (c *compiler) encodeDefault(dst []byte, n *node, value any) (out []byte, ok bool, err error) {
	if len(dst) > maxDefault {
		return dst, true, nil // the caller refuses it
	}
	switch n.wire {
	case opUnion:
		for i, b := range n.branch {
			out, ok, err = c.encodeDefault(binary.AppendVarint(dst, int64(i)), b, value)
			if ok || err != nil {
				return out, ok, err
			}
		}
		return dst, false, nil
	case opRecord:
		return c.recordDefault(dst, n, value)
	case opArray:
		items, ok := value.([]any)
		if !ok {
			return dst, false, nil
		}
		return c.arrayDefault(dst, n, items)
	case opMap:
		entries, ok := value.(map[string]any)
		if !ok {
			return dst, false, nil
		}
		return c.mapDefault(dst, n, entries)
	}
	out, ok = scalarDefault(dst, n, value)
	return out, ok, nil
}

func (c *compiler) recordDefault(dst []byte, n *node, value any) ([]byte, bool, error) {
	given, ok := value.(map[string]any)
	if !ok {
		return dst, false, nil
	}
	for i := range n.fields {
		f := &n.fields[i]
		if v, ok := given[f.name]; ok {
			out, ok, err := c.encodeDefault(dst, f.node, v)
			if !ok || err != nil {
				return dst, false, err
			}
			dst = out
			continue
		}
		if err := c.absent(n, i); err != nil {
			return dst, false, err
		}
		if !f.optional {
			return dst, false, nil
		}
		dst = append(dst, f.absent...)
		if len(dst) > maxDefault {
			return dst, true, nil
		}
	}
	return dst, true, nil
}

func (c *compiler) arrayDefault(dst []byte, n *node, items []any) ([]byte, bool, error) {
	if len(items) > 0 {
		dst = binary.AppendVarint(dst, int64(len(items)))
	}
	for _, v := range items {
		out, ok, err := c.encodeDefault(dst, n.item, v)
		if !ok || err != nil {
			return dst, false, err
		}
		dst = out
	}
	return append(dst, 0), true, nil
}

func (c *compiler) mapDefault(dst []byte, n *node, entries map[string]any) ([]byte, bool, error) {
	if len(entries) > 0 {
		dst = binary.AppendVarint(dst, int64(len(entries)))
	}
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		dst = binary.AppendVarint(dst, int64(len(key)))
		out, ok, err := c.encodeDefault(append(dst, key...), n.item, entries[key])
		if !ok || err != nil {
			return dst, false, err
		}
		dst = out
	}
	return append(dst, 0), true, nil
}

func scalarDefault(dst []byte, n *node, value any) ([]byte, bool) {
	switch v := value.(type) {
	case nil:
		return dst, n.wire == opNull
	case bool:
		if v {
			return append(dst, 1), n.wire == opBool
		}
		return append(dst, 0), n.wire == opBool
	case int32:
		return binary.AppendVarint(dst, int64(v)), n.wire == opInt
	case int64:
		return binary.AppendVarint(dst, v), n.wire == opLong
	case float32:
		return binary.LittleEndian.AppendUint32(dst, math.Float32bits(v)), n.wire == opFloat
	case float64:
		return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v)), n.wire == opDouble
	case string:
		if n.wire == opEnum {
			i, ok := n.index[v]
			return binary.AppendVarint(dst, int64(i)), ok
		}
		return append(binary.AppendVarint(dst, int64(len(v))), v...), n.wire == opString
	case []byte:
		if n.wire == opFixed {
			return append(dst, v...), len(v) == n.size
		}
		return append(binary.AppendVarint(dst, int64(len(v))), v...), n.wire == opBytes
	}
	return dst, false
}
