package audit

import (
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// A table is the rows of one table that wait to be inserted, by columns:
// a column is handed to the client as one slice, without a call per value.
type table struct {
	name      string
	columns   []column
	statement string
	wire      []clickhouse.ColumnNameAndType
	rows      int
}

// A column knows its slice. kind is the type it has on the wire, which is not
// always the table's: String is sent for LowCardinality(String) and Int8 for
// Enum8, and the server converts, since the client would box each value.
type column struct {
	name, kind string
	values     func() any
	clear      func()
}

func define(name string, columns ...column) table {
	t := table{name: name, columns: columns}
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
		t.wire = append(t.wire, clickhouse.ColumnNameAndType{Name: c.name, Type: c.kind})
	}
	t.statement = "INSERT INTO " + name + " (" + strings.Join(names, ", ") + ")"
	return t
}

// reset forgets the rows and keeps the memory.
func (t *table) reset() {
	for i := range t.columns {
		t.columns[i].clear()
	}
	t.rows = 0
}

func col[T any](name, kind string, p *[]T) column {
	return column{name, kind, func() any { return *p }, func() {
		clear(*p) // strings are views of Kafka's memory: let it go
		*p = (*p)[:0]
	}}
}

func text(name string, p *[]string) column  { return col(name, "String", p) }
func int8s(name string, p *[]int8) column   { return col(name, "Int8", p) }
func int32s(name string, p *[]int32) column { return col(name, "Int32", p) }
func int64s(name string, p *[]int64) column { return col(name, "Int64", p) }
func uint32s(name string, p *[]uint32) column {
	return col(name, "UInt32", p)
}
func uint64s(name string, p *[]uint64) column {
	return col(name, "UInt64", p)
}

// millis are Unix milliseconds.
func millis(name string, p *[]int64) column { return col(name, "DateTime64(3, 'UTC')", p) }

func maps(name string, p *[]headers) column { return col(name, "Map(String, String)", p) }

// identity is the columns of an event's origin, which four tables share.
type identity struct {
	tenant          []string
	acceptedAt      []int64
	originTopic     []string
	originPartition []int32
	originOffset    []int64
	eventID         []string
}

func (id *identity) columns() []column {
	return []column{
		text("tenant", &id.tenant), millis("accepted_at", &id.acceptedAt),
		text("origin_topic", &id.originTopic), int32s("origin_partition", &id.originPartition), int64s("origin_offset", &id.originOffset),
		text("event_id", &id.eventID),
	}
}
