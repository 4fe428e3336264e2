package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// BenchmarkInsert is the sink's work: blocks of 20,000 events of 300 bytes.
// On two shared cores 300,000 rows/s and more are good.
func BenchmarkInsert(b *testing.B) {
	e, _ := start(b, b.TempDir())
	c := open(b, e, clickhouse.CompressionNone)
	mustExec(b, c, "CREATE TABLE t (tenant LowCardinality(String), at DateTime64(3,'UTC'), seq UInt64, payload String) ENGINE = MergeTree ORDER BY (tenant, at, seq)")
	const rows = 20000
	tenants, at, seq, payload := make([]string, rows), make([]time.Time, rows), make([]uint64, rows), make([]string, rows)
	for i := range rows {
		tenants[i], at[i], seq[i] = fmt.Sprint("tenant", i%20), time.UnixMilli(int64(1.9e12)+int64(i)), uint64(i)
		payload[i] = fmt.Sprintf(`{"n":%d,"text":"%s"}`, i, strings.Repeat("token ", 45))
	}
	b.SetBytes(rows * 300)
	for b.Loop() {
		batch, err := c.PrepareBatch(b.Context(), "INSERT INTO t")
		if err != nil {
			b.Fatal(err)
		}
		for i, column := range []any{tenants, at, seq, payload} {
			if err := batch.Column(i).Append(column); err != nil {
				b.Fatal(err)
			}
		}
		if err := batch.Send(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*rows/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkSelect is the least a query costs: a connection, its settings, a row.
func BenchmarkSelect(b *testing.B) {
	e, _ := start(b, b.TempDir())
	c := open(b, e, clickhouse.CompressionNone)
	for b.Loop() {
		if n := scan[uint8](b, c, "SELECT 1"); n != 1 {
			b.Fatal(n)
		}
	}
}
