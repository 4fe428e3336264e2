package engine

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// open connects clickhouse-go as the sink does.
func open(t testing.TB, e *Engine, method clickhouse.CompressionMethod) driver.Conn {
	t.Helper()
	c, err := clickhouse.Open(&clickhouse.Options{
		Protocol: clickhouse.HTTP, Addr: []string{e.Addr()},
		Compression: &clickhouse.Compression{Method: method},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func mustExec(t testing.TB, c driver.Conn, query string) {
	t.Helper()
	if err := c.Exec(t.Context(), query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func scan[T any](t testing.TB, c driver.Conn, query string, args ...any) (v T) {
	t.Helper()
	if err := c.QueryRow(t.Context(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

// auditTable has every type of the audit tables.
const auditTable = `CREATE TABLE audit_%s (
	tenant LowCardinality(String), at DateTime64(3,'UTC'), hash FixedString(4), attrs Map(LowCardinality(String), String),
	tags Array(String), state Enum8('dead'=1,'redriven'=2), seq UInt64, payload String, score Nullable(Float64), id UUID, n UInt16
) ENGINE = MergeTree PARTITION BY toDate(at) ORDER BY (tenant, at, seq) SETTINGS non_replicated_deduplication_window=100`

func TestDriver(t *testing.T) {
	e, _ := start(t, t.TempDir())
	for _, method := range []clickhouse.CompressionMethod{
		clickhouse.CompressionNone, clickhouse.CompressionLZ4, clickhouse.CompressionZSTD, clickhouse.CompressionGZIP,
	} {
		t.Run(method.String(), func(t *testing.T) {
			c := open(t, e, method)
			if err := c.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
			v, err := c.ServerVersion()
			if err != nil || v.Version.Major < 26 || v.DisplayName != "spillway-dev" {
				t.Fatalf("version %v, %v", v, err)
			}
			mustExec(t, c, fmt.Sprintf(auditTable, method))
			roundTrip(t, c, "audit_"+method.String())
		})
	}
	c := open(t, e, clickhouse.CompressionNone)
	t.Run("parameters", func(t *testing.T) {
		ctx := clickhouse.Context(t.Context(), clickhouse.WithParameters(clickhouse.Parameters{"x": "41", "s": "it's"}))
		var n uint64
		var s string
		if err := c.QueryRow(ctx, "SELECT {x:UInt64} + 1, {s:String}").Scan(&n, &s); err != nil || n != 42 || s != "it's" {
			t.Errorf("got %d %q %v", n, s, err)
		}
		if got := scan[string](t, c, "SELECT {s:String}", clickhouse.Named("s", "tab\there")); got != "tab\there" {
			t.Errorf("named: got %q", got)
		}
	})
	t.Run("no rows", func(t *testing.T) {
		rows, err := c.Query(t.Context(), "SELECT number FROM numbers(10) WHERE number > 10")
		if err != nil {
			t.Fatal(err)
		}
		if rows.Next() || rows.Err() != nil {
			t.Errorf("a row, or %v", rows.Err())
		}
	})
	t.Run("exceptions", func(t *testing.T) { exceptions(t, e) })
	t.Run("stream", func(t *testing.T) {
		rows, err := c.Query(t.Context(), "SELECT number, toString(number) FROM numbers(1000000)")
		if err != nil {
			t.Fatal(err)
		}
		var sum, n uint64
		var s string
		for want := uint64(0); rows.Next(); want++ {
			if err := rows.Scan(&n, &s); err != nil || n != want {
				t.Fatalf("row %d: got %d, %v", want, n, err)
			}
			sum += n
		}
		if err := rows.Err(); err != nil || sum != 999999*1000000/2 {
			t.Errorf("sum %d, %v", sum, err)
		}
	})
	t.Run("timeout kills", func(t *testing.T) { timeoutKills(t, c) })
	t.Run("tokens", func(t *testing.T) {
		mustExec(t, c, fmt.Sprintf(auditTable, "tokens"))
		ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{
			"async_insert": 0, "insert_deduplicate": 1, "insert_deduplication_token": "e1:t:0:0-1",
		}))
		for range 2 {
			b, err := c.PrepareBatch(ctx, "INSERT INTO audit_tokens (tenant, at, seq)")
			if err == nil {
				err = errors.Join(b.Append("acme", time.Now(), uint64(1)), b.Send())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if n := scan[uint64](t, c, "SELECT count() FROM audit_tokens"); n != 1 {
			t.Errorf("%d rows after the same token twice", n)
		}
	})
	t.Run("many at once", func(t *testing.T) { manyAtOnce(t, e) })
}

// roundTrip writes batches of all types and reads them back.
func roundTrip(t *testing.T, c driver.Conn, table string) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 678e6, time.UTC)
	bytes := "\x00\xff\n\n'\\\t\r" + strings.Repeat("z", 300)
	const batches, rowsEach = 3, 2000
	for k := range batches {
		b, err := c.PrepareBatch(t.Context(), "INSERT INTO "+table)
		if err != nil {
			t.Fatal(err)
		}
		for i := range rowsEach {
			score := float64(i)
			err := b.Append("acme", at, "\x00\x01\x02\xff", map[string]string{"a": "b\n\n"}, []string{"x", ""}, "redriven",
				uint64(k*rowsEach+i), bytes, &score, "00010203-0405-0607-0809-0a0b0c0d0e0f", uint16(i))
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Send(); err != nil {
			t.Fatal(err)
		}
	}
	if n := scan[uint64](t, c, "SELECT uniqExact(seq) FROM "+table); n != batches*rowsEach {
		t.Fatalf("%d rows", n)
	}
	var (
		tenant, hash, state, payload, id string
		gotAt                            time.Time
		attrs                            map[string]string
		tags                             []string
		seq                              uint64
		score                            *float64
		n                                uint16
	)
	row := c.QueryRow(t.Context(), "SELECT * FROM "+table+" WHERE seq = 4321")
	if err := row.Scan(&tenant, &gotAt, &hash, &attrs, &tags, &state, &seq, &payload, &score, &id, &n); err != nil {
		t.Fatal(err)
	}
	got := []any{tenant, gotAt.Equal(at), gotAt.Location().String(), hash, attrs, tags, state, payload, *score, id, n}
	want := []any{"acme", true, "UTC", "\x00\x01\x02\xff", map[string]string{"a": "b\n\n"}, []string{"x", ""}, "redriven",
		bytes, 321.0, "00010203-0405-0607-0809-0a0b0c0d0e0f", uint16(321)}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	batch, err := c.PrepareBatch(clickhouse.Context(t.Context(), clickhouse.WithColumnNamesAndTypes([]clickhouse.ColumnNameAndType{
		{Name: "at", Type: "DateTime64(3, 'UTC')"}, {Name: "seq", Type: "UInt64"},
	})), "INSERT INTO "+table+" (at, seq)")
	if err == nil {
		err = errors.Join(batch.Append(at, uint64(99999)), batch.Send())
	}
	if err != nil {
		t.Errorf("some columns: %v", err)
	}
	if n := scan[uint64](t, c, "SELECT count() FROM "+table+" WHERE seq = 99999 AND tenant = ''"); n != 1 {
		t.Errorf("some columns: %d rows", n)
	}
}

// exceptions: errors arrive typed, before the rows and among them.
func exceptions(t *testing.T, e *Engine) {
	for _, method := range []clickhouse.CompressionMethod{clickhouse.CompressionNone, clickhouse.CompressionLZ4, clickhouse.CompressionGZIP} {
		c := open(t, e, method)
		for query, want := range map[string]int32{
			"SELECT * FROM nope": 60, "SELEC 1": 62, "SELECT nope": 47, "SELECT 1 SETTINGS nosuch = 1": 115,
			"SELECT throwIf(number = 3000000) FROM numbers(4000000)": 395,
		} {
			rows, err := c.Query(t.Context(), query)
			if err == nil {
				for rows.Next() {
				}
				err = rows.Err()
			}
			var x *clickhouse.Exception
			if !errors.As(err, &x) || x.Code != want {
				t.Errorf("%s: %s: got %v, want code %d", method, query, err, want)
			}
		}
		b, err := c.PrepareBatch(clickhouse.Context(t.Context(), clickhouse.WithColumnNamesAndTypes([]clickhouse.ColumnNameAndType{
			{Name: "a", Type: "UInt64"},
		})), "INSERT INTO nope (a)")
		for i := 0; i < 1_000_000 && err == nil; i++ { // more than sockets hold
			err = b.Append(uint64(i) * 0x9E3779B97F4A7C15)
		}
		if err == nil {
			err = b.Send()
		}
		var x *clickhouse.Exception
		if !errors.As(err, &x) || x.Code != 60 {
			t.Errorf("%s: batch into no table: %v", method, err)
		}
	}
}

// timeoutKills: a statement does not outlive its client's patience.
func timeoutKills(t *testing.T, c driver.Conn) {
	const mark = "never_ending_statement"
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := c.QueryRow(ctx, "SELECT sum(sipHash64(number)) AS "+mark+" FROM numbers(1000000000000)").Scan(new(uint64))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	// Each look takes a millisecond; the bound is a minute of them at least.
	for range 20000 {
		if scan[uint64](t, c, "SELECT count() FROM system.processes WHERE query LIKE '%"+mark+"%' AND query NOT LIKE '%processes%'") == 0 {
			return
		}
	}
	t.Error("the statement still runs")
}

// manyAtOnce: more clients than statements may run, reading and writing.
func manyAtOnce(t *testing.T, e *Engine) {
	const clients, each = 48, 5
	c := open(t, e, clickhouse.CompressionNone)
	mustExec(t, c, "CREATE TABLE many (client UInt32, i UInt32) ENGINE = MergeTree ORDER BY client")
	failed := make(chan error, clients)
	for k := range clients {
		go func() {
			c, err := clickhouse.Open(&clickhouse.Options{Protocol: clickhouse.HTTP, Addr: []string{e.Addr()}})
			for i := 0; i < each && err == nil; i++ {
				if err = c.Exec(t.Context(), fmt.Sprintf("INSERT INTO many VALUES (%d, %d)", k, i)); err == nil {
					var n uint64
					if err = c.QueryRow(t.Context(), "SELECT count() FROM many WHERE client = $1", k).Scan(&n); err == nil && n != uint64(i+1) {
						err = fmt.Errorf("client %d reads %d rows after writing %d", k, n, i+1)
					}
				}
			}
			failed <- errors.Join(err, c.Close())
		}()
	}
	for range clients {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
}
