package codec

import (
	"strings"

	"github.com/twmb/avro"
)

// op is what a node does: an Avro type, or a logical type on top of one.
type op uint8

const (
	opNull op = iota
	opBool
	opInt
	opLong
	opFloat
	opDouble
	opBytes
	opString
	opFixed
	opEnum
	opRecord
	opArray
	opMap
	opUnion
	opDate           // int, days since 1970-01-01
	opTime           // int or long, since midnight
	opTimestamp      // long, since 1970-01-01T00:00:00Z
	opLocalTimestamp // long, since 1970-01-01T00:00:00 wherever
	opDecimal        // bytes or fixed, big-endian two's complement
	opUUID           // string or fixed(16)
	opDuration       // fixed(12): months, days, milliseconds, each uint32 little-endian
)

// A node is one instruction of the program. Nodes of recursive schemas point
// in circles. Nothing changes after Compile.
type node struct {
	op   op
	wire op      // the Avro type below a logical type; op itself otherwise
	says string  // for errors: "long", "string (uuid)", "enum a.b.Color"
	json kindSet // kinds of JSON value it may accept

	name    string         // full name of record, enum, fixed
	fields  []field        // record
	byName  map[string]int // record: field index
	item    *node          // array, map
	branch  []*node        // union
	null    int            // union: index of the null branch, -1 if none
	symbols []string       // enum
	quoted  []string       // enum: symbols as JSON
	index   map[string]int // enum: symbol index

	size      int   // fixed: bytes
	digits    int   // time, timestamp: digits of the fraction, 3, 6 or 9
	unit      int64 // time, timestamp: units per second
	precision int   // decimal: digits at most
	scale     int   // decimal: digits after the point
	exact     int   // bytes of every value, -1 if they differ
	least     int   // bytes of the shortest value
	seen      bool  // measure has been or is here
}

type field struct {
	name     string
	key      string // `{"name":` for the first field, `,"name":` for others
	node     *node
	absent   []byte // what is written for a missing field
	optional bool   // absent is valid
}

// compiler carries what is known while a schema is compiled.
type compiler struct {
	named   map[string]*node
	records []*node                // in order of definition
	sources map[*node]*fieldSource // by record

	defaultBytes int // of all defaults so far
}

func (c *compiler) compile(s *avro.SchemaNode, namespace string) (*node, error) {
	switch s.Type {
	case "record", "error":
		return c.record(s)
	case "enum":
		return c.enum(s), nil
	case "fixed":
		return c.fixed(s)
	case "array":
		item, err := c.compile(s.Items, namespace)
		return &node{op: opArray, wire: opArray, says: "array", json: kinds(kindArray), item: item}, err
	case "map":
		item, err := c.compile(s.Values, namespace)
		return &node{op: opMap, wire: opMap, says: "map", json: kinds(kindObject), item: item}, err
	case "union":
		return c.union(s, namespace)
	}
	if n := primitive(s.Type); n != nil {
		return n, n.logical(s)
	}
	return c.resolve(s.Type, namespace)
}

// resolve finds a named type: a dotted name as it is, another one in the
// enclosing namespace first.
func (c *compiler) resolve(name, namespace string) (*node, error) {
	if !strings.Contains(name, ".") && namespace != "" {
		if n := c.named[namespace+"."+name]; n != nil {
			return n, nil
		}
	}
	if n := c.named[name]; n != nil {
		return n, nil
	}
	return nil, unsupported("schema: type %q is not defined in it; references to other schemas are not supported", clip(name))
}

func (c *compiler) define(s *avro.SchemaNode, o op, what string) *node {
	name := s.Name
	if s.Namespace != "" && !strings.Contains(name, ".") {
		name = s.Namespace + "." + name
	}
	n := &node{op: o, wire: o, name: name, says: what + " " + name}
	c.named[name] = n
	return n
}

func (c *compiler) record(s *avro.SchemaNode) (*node, error) {
	n := c.define(s, opRecord, "record")
	n.json = kinds(kindObject)
	namespace := ""
	if i := strings.LastIndexByte(n.name, '.'); i >= 0 {
		namespace = n.name[:i]
	}
	c.records = append(c.records, n)
	c.sources[n] = &fieldSource{fields: s.Fields, state: make([]progress, len(s.Fields))}
	n.fields = make([]field, len(s.Fields))
	n.byName = make(map[string]int, len(s.Fields))
	for i := range s.Fields {
		sf := &s.Fields[i]
		sub, err := c.compile(&sf.Type, namespace)
		if err != nil {
			return nil, err
		}
		open := ","
		if i == 0 {
			open = "{"
		}
		key, _ := appendQuoted([]byte(open), []byte(sf.Name))
		n.fields[i] = field{name: sf.Name, key: string(key) + ":", node: sub}
		n.byName[sf.Name] = i
	}
	return n, nil
}

func (c *compiler) enum(s *avro.SchemaNode) *node {
	n := c.define(s, opEnum, "enum")
	n.json = kinds(kindString)
	n.symbols = s.Symbols
	n.index = make(map[string]int, len(s.Symbols))
	for i, symbol := range s.Symbols {
		quoted, _ := appendQuoted(nil, []byte(symbol))
		n.quoted = append(n.quoted, string(quoted))
		n.index[symbol] = i
	}
	return n
}

func (c *compiler) fixed(s *avro.SchemaNode) (*node, error) {
	n := c.define(s, opFixed, "fixed")
	n.json = kinds(kindString)
	n.size = s.Size
	return n, n.logical(s)
}

func (c *compiler) union(s *avro.SchemaNode, namespace string) (*node, error) {
	n := &node{op: opUnion, wire: opUnion, null: -1}
	says := make([]string, 0, len(s.Branches))
	for i := range s.Branches {
		b, err := c.compile(&s.Branches[i], namespace)
		if err != nil {
			return nil, err
		}
		if b.op == opNull {
			n.null = i
		}
		n.branch = append(n.branch, b)
		n.json |= b.json
		says = append(says, b.says)
	}
	n.says = strings.Join(says, " or ")
	return n, nil
}

func primitive(name string) *node {
	of := func(o op, k kindSet) *node { return &node{op: o, wire: o, says: name, json: k} }
	switch name {
	case "null":
		return of(opNull, kinds(kindNull))
	case "boolean":
		return of(opBool, kinds(kindTrue, kindFalse))
	case "int":
		return of(opInt, kinds(kindNumber))
	case "long":
		return of(opLong, kinds(kindNumber, kindString))
	case "float":
		return of(opFloat, kinds(kindNumber, kindString))
	case "double":
		return of(opDouble, kinds(kindNumber, kindString))
	case "bytes":
		return of(opBytes, kinds(kindString))
	case "string":
		return of(opString, kinds(kindString))
	}
	return nil
}

// maxPrecision bounds the work that one decimal can cost.
const maxPrecision = 1000

// logical lays a logical type over n. One that does not fit its Avro type is
// ignored, as the Avro specification asks.
func (n *node) logical(s *avro.SchemaNode) error {
	o := logicalOp(s.LogicalType, n.wire, n.size)
	if o == opNull {
		return nil
	}
	if o == opDecimal && (s.Precision > maxPrecision || s.Scale > s.Precision || s.Scale < 0) {
		return unsupported("schema: decimal(%d,%d): precision is %d at most, scale 0 to precision", s.Precision, s.Scale, maxPrecision)
	}
	n.op, n.says = o, n.says+" ("+s.LogicalType+")"
	n.json = kinds(kindString)
	switch o {
	case opDecimal:
		n.json = kinds(kindString, kindNumber)
		n.precision, n.scale = s.Precision, s.Scale
	case opTime, opTimestamp, opLocalTimestamp:
		n.digits, n.unit = 3, 1000
		if strings.HasSuffix(s.LogicalType, "-micros") {
			n.digits, n.unit = 6, 1e6
		} else if strings.HasSuffix(s.LogicalType, "-nanos") {
			n.digits, n.unit = 9, 1e9
		}
	}
	return nil
}

func logicalOp(logical string, wire op, size int) op {
	switch logical {
	case "date":
		return when(wire == opInt, opDate)
	case "time-millis":
		return when(wire == opInt, opTime)
	case "time-micros":
		return when(wire == opLong, opTime)
	case "timestamp-millis", "timestamp-micros", "timestamp-nanos":
		return when(wire == opLong, opTimestamp)
	case "local-timestamp-millis", "local-timestamp-micros", "local-timestamp-nanos":
		return when(wire == opLong, opLocalTimestamp)
	case "decimal":
		return when(wire == opBytes || wire == opFixed, opDecimal)
	case "uuid":
		return when(wire == opString || wire == opFixed && size == 16, opUUID)
	case "duration":
		return when(wire == opFixed && size == 12, opDuration)
	}
	return opNull
}

func when(fits bool, o op) op {
	if fits {
		return o
	}
	return opNull
}

// maxMeasure caps sizes, so that sums of them cannot overflow.
const maxMeasure = 1 << 30

// measure sets exact and least on n and all below. A type inside itself
// counts as one byte of unknown size.
func measure(n *node) {
	if n.seen {
		return
	}
	n.seen = true
	n.exact, n.least = -1, 1
	switch n.wire {
	case opNull:
		n.exact = 0
	case opBool:
		n.exact = 1
	case opFloat:
		n.exact = 4
	case opDouble:
		n.exact = 8
	case opFixed:
		n.exact = min(n.size, maxMeasure)
	case opArray, opMap:
		measure(n.item)
	case opUnion:
		for _, b := range n.branch {
			measure(b)
		}
	case opRecord:
		measureRecord(n)
	}
	if n.exact >= 0 {
		n.least = n.exact
	}
}

func measureRecord(n *node) {
	exact, least, known := 0, 0, true
	for i := range n.fields {
		sub := n.fields[i].node
		measure(sub)
		least = min(least+sub.least, maxMeasure)
		known = known && sub.exact >= 0 && sub.exact < maxMeasure
		exact = min(exact+max(sub.exact, 0), maxMeasure)
	}
	n.least = least
	if known && exact < maxMeasure {
		n.exact = exact
	}
}
