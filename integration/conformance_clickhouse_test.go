//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// TestClickHouseConformance runs what Spillway asks of ClickHouse, with its
// own tables and commands, on the ClickHouse of each stack and on one that the
// environment names: the embedded engine and a server must not differ.
func TestClickHouseConformance(t *testing.T) {
	onEach(t, func(t *testing.T, s *site) {
		s.clickhouseReady(t)
		clickhouseSuite(t, s, s.at().ClickHouse)
		t.Run("explain", func(t *testing.T) { explainStory(t, s) })
	})
	t.Run("given", func(t *testing.T) {
		address := os.Getenv(givenClickHouse)
		if address == "" {
			skip(t, "no "+givenClickHouse)
		}
		clickhouseSuite(t, shared(t, "dev"), address) // Kafka and registry are dev's
		t.Log("skipped: the sink, which writes to the stack's own ClickHouse; SPILLWAY_IMAGE_CLICKHOUSE puts another one there")
	})
}

// clickhousePlace is ClickHouse at an address, with a database for one test.
type clickhousePlace struct {
	site     *site
	address  string
	database string
}

func clickhouseSuite(t *testing.T, s *site, address string) {
	p := clickhousePlace{s, address, fmt.Sprintf("conformance_%d", time.Now().UnixNano())}
	c := p.open(t, "default", clickhouse.CompressionNone)
	t.Cleanup(func() {
		if err := c.Exec(context.WithoutCancel(t.Context()), "DROP DATABASE IF EXISTS "+p.database); err != nil {
			t.Error(err)
		}
	})
	v, err := c.ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("ran on %s, ClickHouse %s", v.DisplayName, v.Version)
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"migrations", p.migrations}, {"tables", p.tables}, {"types", p.types}, {"views", p.views}, {"parameters", p.parameters},
		{"exceptions", p.exceptions}, {"cancellation", p.cancellation}, {"settings", p.settings}, {"who may", p.whoMay},
	} {
		if !t.Run(part.name, part.run) && part.name == "migrations" {
			return // the rest needs the tables
		}
	}
}

// open connects as the sink does.
func (p clickhousePlace) open(t *testing.T, database string, method clickhouse.CompressionMethod) driver.Conn {
	t.Helper()
	u, err := url.Parse(p.address)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	c, err := clickhouse.Open(&clickhouse.Options{
		Protocol: clickhouse.HTTP, Addr: []string{u.Host}, HttpUrlPath: strings.TrimSuffix(u.Path, "/"),
		Auth:        clickhouse.Auth{Database: database, Username: u.User.Username(), Password: password},
		Compression: &clickhouse.Compression{Method: method}, DialTimeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func mustExec(t *testing.T, c driver.Conn, query string) {
	t.Helper()
	if err := c.Exec(t.Context(), query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func ask[T any](t *testing.T, c driver.Conn, query string, args ...any) (v T) {
	t.Helper()
	if err := c.QueryRow(t.Context(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

// migrations: the binary makes its tables, makes them once, and finds nothing
// to say about them.
func (p clickhousePlace) migrations(t *testing.T) {
	args := []string{"setup", "--kafka-brokers", p.site.at().Kafka, "--registry-url", p.site.at().Registry, "--clickhouse-url", p.address,
		"--clickhouse-database", p.database, "--replication", "1", "--min-isr", "1", "--open"}
	if out := p.site.run(t, "", args...); !strings.Contains(out, "migrations applied") || strings.Contains(out, " 0 migrations applied") {
		t.Errorf("the first setup says\n%s", out)
	}
	if out := p.site.run(t, "", args...); !strings.Contains(out, " 0 migrations applied") {
		t.Errorf("the second setup says\n%s", out)
	}
	out, _ := p.site.try(t.Context(), "", append(args, "--check")...) // topics may differ: other flags made them
	if strings.Contains(out, "clickhouse:") {
		t.Errorf("setup --check says\n%s", out)
	}
	c := p.open(t, "default", clickhouse.CompressionNone)
	mustExec(t, c, "DROP TABLE "+p.database+".reasons")
	if out, err := p.site.try(t.Context(), "", append(args, "--check")...); err == nil || !strings.Contains(out, "reasons is gone") {
		t.Errorf("setup --check without a table: %v\n%s", err, out)
	}
	mustExec(t, c, "DROP DATABASE "+p.database)
	p.site.run(t, "", args...)
}

// A tableColumn of one of the product's tables.
type tableColumn struct {
	Name string `ch:"name"`
	Type string `ch:"type"`
}

// tables: rows of every table go out and come back in native blocks, under
// each compression, as they are.
func (p clickhousePlace) tables(t *testing.T) {
	c := p.open(t, p.database, clickhouse.CompressionNone)
	var names []tableColumn
	err := c.Select(t.Context(), &names, "SELECT name, engine AS type FROM system.tables WHERE database = {database:String} AND engine LIKE '%MergeTree'",
		clickhouse.Named("database", p.database))
	if err != nil || len(names) < 7 {
		t.Fatalf("tables %v, %v", names, err)
	}
	methods := []clickhouse.CompressionMethod{clickhouse.CompressionNone, clickhouse.CompressionLZ4, clickhouse.CompressionZSTD, clickhouse.CompressionGZIP}
	for _, table := range names {
		fillRandomly(t, c, p.database, table.Name)
		for _, method := range methods {
			into := table.Name + "_" + method.String()
			mustExec(t, c, "CREATE TABLE "+into+" AS "+table.Name)
			copyRows(t, p.open(t, p.database, method), table.Name, into)
			const sum = "SELECT concat(toString(count()), ' rows ', toString(sum(cityHash64(formatRow('TSV', *))))) FROM "
			if want, got := ask[string](t, c, sum+table.Name), ask[string](t, c, sum+into); got != want || strings.HasPrefix(got, "0 ") {
				t.Errorf("%s, %s: %s, want %s", table.Name, method, got, want)
			}
			mustExec(t, c, "DROP TABLE "+into)
		}
	}
}

// fillRandomly makes rows of every column's type, on few days.
func fillRandomly(t *testing.T, c driver.Conn, database, table string) {
	t.Helper()
	var columns []tableColumn
	err := c.Select(t.Context(), &columns, `SELECT name, type FROM system.columns
		WHERE database = {database:String} AND table = {table:String} AND default_kind NOT IN ('MATERIALIZED', 'ALIAS') ORDER BY position`,
		clickhouse.Named("database", database), clickhouse.Named("table", table))
	if err != nil || len(columns) == 0 {
		t.Fatalf("columns of %s: %v, %v", table, columns, err)
	}
	var names, structure, values []string
	for _, col := range columns {
		names, structure = append(names, col.Name), append(structure, "`"+col.Name+"` "+col.Type)
		v := "`" + col.Name + "`"
		if strings.HasPrefix(col.Type, "DateTime64") { // in the future, so that nothing expires
			v = "toDateTime64('2030-01-02 03:04:05.678', 3, 'UTC') + rowNumberInAllBlocks()"
		}
		values = append(values, v)
	}
	mustExec(t, c, fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM generateRandom(%s) LIMIT 300",
		table, strings.Join(names, ", "), strings.Join(values, ", "), sqlText(strings.Join(structure, ", "))))
}

func sqlText(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// copyRows reads a table and writes what it reads into another.
func copyRows(t *testing.T, c driver.Conn, from, into string) {
	t.Helper()
	rows, err := c.Query(t.Context(), "SELECT * FROM "+from)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	// The columns are named, as the sink does: * leaves out the computed ones.
	b, err := c.PrepareBatch(t.Context(), fmt.Sprintf("INSERT INTO %s (%s)", into, strings.Join(rows.Columns(), ", ")))
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		row := make([]any, len(rows.Columns()))
		for i, ct := range rows.ColumnTypes() {
			row[i] = reflect.New(ct.ScanType()).Interface()
			if strings.HasPrefix(ct.DatabaseTypeName(), "Map(") { // headers are in order and may repeat
				row[i] = &pairs{}
			}
		}
		if err := rows.Scan(row...); err != nil {
			t.Fatal(err)
		}
		for i := range row {
			if _, ok := row[i].(*pairs); !ok {
				row[i] = reflect.ValueOf(row[i]).Elem().Interface()
			}
		}
		if err := b.Append(row...); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(rows.Err(), b.Send()); err != nil {
		t.Fatalf("copy %s: %v", from, err)
	}
}

// pairs is a map with the order and the repeats that it was written with.
type pairs struct {
	all []pair
	at  int
}

type pair struct{ key, value any }

func (p *pairs) Put(key, value any)           { p.all = append(p.all, pair{key, value}) }
func (p *pairs) Iterator() column.MapIterator { return &pairs{all: p.all, at: -1} }
func (p *pairs) Next() bool                   { p.at++; return p.at < len(p.all) }
func (p *pairs) Key() any                     { return p.all[p.at].key }
func (p *pairs) Value() any                   { return p.all[p.at].value }

// types: values at the ends of what the columns hold, and types that views and
// analysts use.
func (p clickhousePlace) types(t *testing.T) {
	c := p.open(t, p.database, clickhouse.CompressionLZ4)
	mustExec(t, c, `CREATE TABLE kinds (tenant LowCardinality(String), at DateTime64(3, 'UTC'), hash FixedString(4), attrs Map(LowCardinality(String), String),
		tags Array(String), score Nullable(Float64), id UUID, n UInt64, s Int64, e Enum8('a' = -128, 'b' = 127)) ENGINE = MergeTree ORDER BY n`)
	b, err := c.PrepareBatch(t.Context(), "INSERT INTO kinds")
	if err != nil {
		t.Fatal(err)
	}
	bytes := "\x00\xff\n'\\\t\r" + strings.Repeat("z", 70_000)
	at := time.Date(1970, 1, 1, 0, 0, 0, 1e6, time.UTC)
	want := []any{bytes, at, "\x00\x01\x02\xff", map[string]string{"a\x00": bytes, "": ""}, []string{"x", "", bytes}, (*float64)(nil),
		"00010203-0405-0607-0809-0a0b0c0d0e0f", ^uint64(0), int64(-1 << 63), "a"}
	if err := errors.Join(b.Append(want...), b.Send()); err != nil {
		t.Fatal(err)
	}
	var (
		tenant, hash, id, e string
		gotAt               time.Time
		attrs               map[string]string
		tags                []string
		score               *float64
		n                   uint64
		s                   int64
	)
	if err := c.QueryRow(t.Context(), "SELECT * FROM kinds").Scan(&tenant, &gotAt, &hash, &attrs, &tags, &score, &id, &n, &s, &e); err != nil {
		t.Fatal(err)
	}
	if got := []any{tenant, gotAt.UTC(), hash, attrs, tags, score, id, n, s, e}; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %.300q\nwant %.300q", got, want)
	}
}

// views: each of them answers over rows of any kind.
func (p clickhousePlace) views(t *testing.T) {
	c := p.open(t, p.database, clickhouse.CompressionNone)
	var names []tableColumn
	err := c.Select(t.Context(), &names, "SELECT name, engine AS type FROM system.tables WHERE database = currentDatabase() AND engine = 'View'")
	if err != nil || len(names) < 5 {
		t.Fatalf("views %v, %v", names, err)
	}
	for _, view := range names {
		rows, err := c.Query(t.Context(), "SELECT * FROM "+view.Name+" LIMIT 1000")
		n := 0
		for err == nil && rows.Next() {
			n++
		}
		if err == nil {
			err = errors.Join(rows.Err(), rows.Close())
		}
		t.Logf("%s: %d rows", view.Name, n)
		if err != nil {
			t.Errorf("%s: %v", view.Name, err)
		}
	}
}

// explainStory: what the sink wrote is told by explain, from ClickHouse.
func explainStory(t *testing.T, s *site) {
	id := fmt.Sprintf("conformance-%d", time.Now().UnixNano())
	s.run(t, "", "pub", "acme", "conformance.1", `{"text":"it's a \"test\"\n"}`, "--id", id)
	var out string
	eventually(t, "explain tells the story from ClickHouse", func() bool {
		out, _ = s.try(t.Context(), "", "explain", id, "--source", "clickhouse")
		return strings.Contains(out, "conformance.1") && strings.Contains(out, "demo.Message")
	}, func() string { return out })
}
