package table

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
	chcolumn "github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// A Table is the rows of one table that wait to be inserted, by columns:
// a column is handed to the client as one slice, without a call per value.
type Table struct {
	Name string
	Rows int

	Columns   []Column
	statement string
	wire      []clickhouse.ColumnNameAndType
}

// A Column knows its slice. Kind is the type it has on the wire, which is not
// always the table's: String is sent for LowCardinality(String) and Int8 for
// Enum8, and the server converts, since the client would box each value.
type Column struct {
	Name, Kind string
	Values     func() any
	clear      func()
}

// Define returns an empty table.
func Define(name string, columns ...Column) Table {
	t := Table{Name: name, Columns: columns}
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.Name
		t.wire = append(t.wire, clickhouse.ColumnNameAndType{Name: c.Name, Type: c.Kind})
	}
	t.statement = "INSERT INTO " + name + " (" + strings.Join(names, ", ") + ")"
	return t
}

// Reset forgets the rows and keeps the memory.
func (t *Table) Reset() {
	for i := range t.Columns {
		t.Columns[i].clear()
	}
	t.Rows = 0
}

func col[T any](name, kind string, p *[]T) Column {
	return Column{name, kind, func() any { return *p }, func() {
		clear(*p) // strings are views of Kafka's memory: let it go
		*p = (*p)[:0]
	}}
}

// The kinds of columns that the tables have, each with where its values are.

func Text(name string, p *[]string) Column    { return col(name, "String", p) }
func Int8s(name string, p *[]int8) Column     { return col(name, "Int8", p) }
func Int32s(name string, p *[]int32) Column   { return col(name, "Int32", p) }
func Int64s(name string, p *[]int64) Column   { return col(name, "Int64", p) }
func Uint32s(name string, p *[]uint32) Column { return col(name, "UInt32", p) }
func Uint64s(name string, p *[]uint64) Column { return col(name, "UInt64", p) }

// Millis are Unix milliseconds.
func Millis(name string, p *[]int64) Column { return col(name, "DateTime64(3, 'UTC')", p) }

// Maps are pairs of texts.
func Maps[M chcolumn.IterableOrderedMap](name string, p *[]M) Column {
	return col(name, "Map(String, String)", p)
}

// insertSettings say all that an insert relies on: defaults differ between
// servers and change with versions. A batch is one block and one part a day,
// acknowledged when it is written. Blocks are not deduplicated by their hash:
// the rows' identity does that, and a server that silently drops a block which
// it has seen would also drop one that was deleted on purpose and sent again.
// A catch-up may hold rows of many days, hence the number of partitions.
var insertSettings = clickhouse.Settings{
	"async_insert": 0, "wait_end_of_query": 1,
	"insert_deduplicate": 0, "deduplicate_blocks_in_dependent_materialized_views": 0,
	"max_insert_block_size": 1048576, "min_insert_block_size_rows": 0, "min_insert_block_size_bytes": 0,
	"max_partitions_per_insert_block": 400, "max_insert_threads": 1, "max_threads": 1,
	"input_format_native_allow_types_conversion": 1,
}

// Insert writes the rows as one block and returns when they are acknowledged.
// An error says nothing about whether they were written.
func (t *Table) Insert(ctx context.Context, conn driver.Conn) error {
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(insertSettings), clickhouse.WithColumnNamesAndTypes(t.wire))
	b, err := conn.PrepareBatch(ctx, t.statement)
	if err != nil {
		return fmt.Errorf("insert into %s: %w", t.Name, err)
	}
	for i := range t.Columns {
		if err := b.Column(i).Append(t.Columns[i].Values()); err != nil {
			return errors.Join(fmt.Errorf("insert into %s: column %s: %w", t.Name, t.Columns[i].Name, err), b.Abort())
		}
	}
	if err := b.Send(); err != nil {
		return fmt.Errorf("insert into %s: %w", t.Name, err)
	}
	return nil
}
