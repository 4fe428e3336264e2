package rows

import (
	"unsafe"

	chcolumn "github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Headers are a record's headers as the client writes a Map from them: in
// order, repeated names and all, for ClickHouse keeps both.
type Headers []kgo.RecordHeader

// Iterator walks the pairs.
func (h Headers) Iterator() chcolumn.MapIterator { return &headerIterator{h: h, i: -1} }

// Put is never called: nothing is read into Headers.
func (h Headers) Put(any, any) { panic("rows: headers are only written") }

type headerIterator struct {
	h Headers
	i int
}

func (it *headerIterator) Next() bool { it.i++; return it.i < len(it.h) }
func (it *headerIterator) Key() any   { return it.h[it.i].Key }
func (it *headerIterator) Value() any { return view(it.h[it.i].Value) }

// view is b as a string without a copy: record memory is never modified.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
