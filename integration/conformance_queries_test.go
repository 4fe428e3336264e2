//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// parameters are bound by the server, whatever they hold.
func (p clickhousePlace) parameters(t *testing.T) {
	c := p.open(t, p.database, clickhouse.CompressionNone)
	for _, s := range []string{"", "it's", `back\slash`, "tab\there", "new\nline", "é漢", "'; DROP TABLE events; --", "{x:UInt64}", `\N`} {
		if got := ask[string](t, c, "SELECT {s:String}", clickhouse.Named("s", s)); got != s {
			t.Errorf("got %q, want %q", got, s)
		}
	}
	ctx := clickhouse.Context(t.Context(), clickhouse.WithParameters(clickhouse.Parameters{"x": "41", "list": "['a','b']"}))
	var n uint64
	var list []string
	if err := c.QueryRow(ctx, "SELECT {x:UInt64} + 1, {list:Array(String)}").Scan(&n, &list); err != nil || n != 42 || len(list) != 2 {
		t.Errorf("got %d %q, %v", n, list, err)
	}
	if rows, err := c.Query(t.Context(), "SELECT * FROM events WHERE tenant = {t:String}", clickhouse.Named("t", "nobody")); err != nil || rows.Next() || rows.Err() != nil {
		t.Errorf("no rows: %v", err)
	}
}

// wantCode expects the exception of a number.
func wantCode(t *testing.T, what string, err error, code int32) {
	t.Helper()
	var x *clickhouse.Exception
	if !errors.As(err, &x) || x.Code != code {
		t.Errorf("%s: got %v, want code %d", what, err, code)
	}
}

// exceptions arrive typed: before the rows, among them, and while rows are
// being sent.
func (p clickhousePlace) exceptions(t *testing.T) {
	for _, method := range []clickhouse.CompressionMethod{clickhouse.CompressionNone, clickhouse.CompressionLZ4} {
		c := p.open(t, p.database, method)
		for query, code := range map[string]int32{
			"SELECT * FROM nope": 60, "SELEC 1": 62, "SELECT nope FROM events": 47, "SELECT 1 SETTINGS nosuch = 1": 115, "SELECT {x:UInt64}": 456,
			"SELECT throwIf(number = 3000000) FROM numbers(4000000)": 395, // after many blocks
		} {
			rows, err := c.Query(t.Context(), query)
			if err == nil {
				for rows.Next() {
				}
				err = errors.Join(rows.Err(), rows.Close())
			}
			wantCode(t, fmt.Sprintf("%s: %s", method, query), err, code)
		}
		// The sink names its columns and sends without asking first.
		ctx := clickhouse.Context(t.Context(), clickhouse.WithColumnNamesAndTypes([]clickhouse.ColumnNameAndType{{Name: "a", Type: "UInt64"}}))
		b, err := c.PrepareBatch(ctx, "INSERT INTO nope (a)")
		for i := 0; i < 300_000 && err == nil; i++ { // more than sockets hold
			err = b.Append(uint64(i) * 0x9E3779B97F4A7C15)
		}
		if err == nil {
			err = b.Send()
		}
		wantCode(t, method.String()+": a batch into no table", err, 60)
	}
	_, err := p.open(t, "no_such_database", clickhouse.CompressionNone).Query(t.Context(), "SELECT 1")
	wantCode(t, "unknown database", err, 81)
}

// cancellation: a statement does not outlive its client's patience, and the
// connection is good for the next one.
func (p clickhousePlace) cancellation(t *testing.T) {
	c := p.open(t, p.database, clickhouse.CompressionNone)
	mark := fmt.Sprintf("never_ending_%d", time.Now().UnixNano())
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := c.QueryRow(ctx, "SELECT sum(sipHash64(number)) AS "+mark+" FROM numbers(10000000000000)").Scan(new(uint64))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	eventually(t, "the statement has ended", func() bool {
		return ask[uint64](t, c, "SELECT count() FROM system.processes WHERE query LIKE '%"+mark+"%' AND query NOT LIKE '%processes%'") == 0
	})
	ctx = clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"max_execution_time": 1}))
	err = c.QueryRow(ctx, "SELECT sum(sipHash64(number)) FROM numbers(10000000000000)").Scan(new(uint64))
	wantCode(t, "max_execution_time", err, 159)
}

// settings that the sink sends are known, and hold for one statement only.
func (p clickhousePlace) settings(t *testing.T) {
	c := p.open(t, p.database, clickhouse.CompressionNone)
	mustExec(t, c, "CREATE TABLE once (a UInt64, day Date) ENGINE = ReplacingMergeTree PARTITION BY day ORDER BY a")
	ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{
		"async_insert": 0, "wait_end_of_query": 1, "insert_deduplicate": 0, "deduplicate_blocks_in_dependent_materialized_views": 0,
		"max_insert_block_size": 1048576, "min_insert_block_size_rows": 0, "min_insert_block_size_bytes": 0,
		"max_partitions_per_insert_block": 400, "max_insert_threads": 1, "max_threads": 1,
	}))
	for range 2 { // the same rows again: as after a lost acknowledgement
		b, err := c.PrepareBatch(ctx, "INSERT INTO once")
		for i := 0; i < 3000 && err == nil; i++ { // 120 days: more than the default allows
			err = b.Append(uint64(i), time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, i%120))
		}
		if err == nil {
			err = b.Send()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// Acknowledged is readable, at once, and a repeat is one row.
	if n := ask[uint64](t, c, "SELECT count() FROM once FINAL"); n != 3000 {
		t.Errorf("%d rows, want 3000", n)
	}
	if n := ask[uint64](t, c, "SELECT uniqExact(_partition_id) FROM once"); n != 120 {
		t.Errorf("%d days, want 120", n)
	}
	if ask[uint64](t, c, "SELECT toUInt64(getSetting('max_partitions_per_insert_block'))") == 400 {
		t.Error("a setting outlives its statement")
	}
}

// whoMay: a wrong password is refused as such, and not shown.
func (p clickhousePlace) whoMay(t *testing.T) {
	u, err := url.Parse(p.address)
	if err != nil {
		t.Fatal(err)
	}
	if _, protected := u.User.Password(); !protected {
		skip(t, "this ClickHouse has no users: it listens on loopback alone")
	}
	u.User = url.UserPassword(u.User.Username(), "wrong-secret")
	wrong := p
	wrong.address = u.String()
	err = wrong.open(t, p.database, clickhouse.CompressionNone).QueryRow(t.Context(), "SELECT 1").Scan(new(uint8))
	wantCode(t, "a wrong password", err, 516)
	out, err := p.site.try(t.Context(), "", "setup", "--kafka-brokers", p.site.at().Kafka, "--registry-url", p.site.at().Registry,
		"--clickhouse-url", wrong.address, "--replication", "1", "--min-isr", "1", "--open")
	if err == nil || strings.Contains(out, "wrong-secret") || !strings.Contains(strings.ToLower(out), "clickhouse") {
		t.Errorf("setup with a wrong password: %v\n%s", err, out)
	}
}
