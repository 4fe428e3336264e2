package table

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/spillway/spillway/schemas"
)

// Migrations are applied in the order of their names. One that was published
// is never edited: a change is a new file.
//
//go:embed migrations/*.sql
var migrations embed.FS

// Retention says how long rows are kept, in whole days by the event's first
// append. Zero fields: 7 days with payload, 30 days of dead letters, 90 days
// of history without payload.
type Retention struct {
	Payload, DeadLetters, History time.Duration
}

// Validate fills the zero fields and says what is wrong with the others.
func (r *Retention) Validate() error {
	for _, f := range []struct {
		name  string
		value *time.Duration
		zero  int
	}{{"Payload", &r.Payload, 7}, {"DeadLetters", &r.DeadLetters, 30}, {"History", &r.History, 90}} {
		if *f.value == 0 {
			*f.value = time.Duration(f.zero) * day
		}
		if *f.value < day || *f.value > 3650*day || *f.value%day != 0 {
			return fmt.Errorf("audit: Retention.%s is %v, want whole days from 1 to 3650", f.name, *f.value)
		}
	}
	return nil
}

const day = 24 * time.Hour

// ttl is a table's days and the column they are counted from.
func (r Retention) ttl() map[string]struct {
	column string
	days   int
} {
	type ttl = struct {
		column string
		days   int
	}
	payload, dead, history := int(r.Payload/day), int(r.DeadLetters/day), int(r.History/day)
	return map[string]ttl{
		"events": {"accepted_at", payload}, "transitions": {"accepted_at", history}, "dead_letters": {"accepted_at", dead},
		"receipts": {"appended_at", history}, "session_ranges": {"at", history}, "undecodable": {"appended_at", dead},
	}
}

// MigrateConfig says which database is to have the audit's tables.
type MigrateConfig struct {
	Server    Server
	Retention Retention
}

// A migration is one file.
type migration struct {
	name, sum  string
	statements []string
}

// Migrate creates the database and applies what is missing, then sets the
// retention where it differs. It returns the names of the migrations that it
// applied. It may be run again, also after a crash in its middle, and by
// several processes at once: each statement may be repeated. It refuses a
// database whose migrations have another content than this build's.
func Migrate(ctx context.Context, cfg MigrateConfig) (applied []string, err error) {
	if err := cfg.Retention.Validate(); err != nil {
		return nil, err
	}
	if err := createDatabase(ctx, cfg.Server); err != nil {
		return nil, err
	}
	conn, err := cfg.Server.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	done, err := appliedMigrations(ctx, conn)
	if err != nil {
		return nil, err
	}
	for _, m := range readMigrations() {
		switch sum, ok := done[m.name]; {
		case ok && sum != m.sum:
			return applied, &Fault{OtherBuild, fmt.Errorf("migration %s was applied with another content: this database belongs to another build", m.name)}
		case ok:
			continue
		}
		if err := m.apply(ctx, conn); err != nil {
			return applied, fmt.Errorf("migration %s: %w", m.name, err)
		}
		applied = append(applied, m.name)
	}
	if err := writeReasons(ctx, conn); err != nil {
		return applied, err
	}
	return applied, setRetention(ctx, conn, cfg.Retention)
}

// Check says what Migrate would change, and what it could not mend: nothing if
// the database is as it must be.
func Check(ctx context.Context, cfg MigrateConfig) (differs []string, err error) {
	if err := cfg.Retention.Validate(); err != nil {
		return nil, err
	}
	conn, err := cfg.Server.open("default") // the database itself may be missing
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := cfg.Server.requireVersion(ctx, conn); err != nil {
		return nil, err
	}
	tables, err := readTables(ctx, conn, cfg.Server.Name())
	if err != nil {
		return nil, err
	}
	done := map[string]string{}
	if _, ok := tables["migrations"]; ok {
		if done, err = readApplied(ctx, conn, cfg.Server.Name()+"."); err != nil {
			return nil, err
		}
	}
	for _, m := range readMigrations() {
		sum, ok := done[m.name]
		switch {
		case !ok:
			differs = append(differs, "migration "+m.name+" is not applied")
			continue
		case sum != m.sum:
			differs = append(differs, "migration "+m.name+" was applied with another content")
		}
		for _, name := range m.creates() {
			if _, ok := tables[name]; !ok {
				differs = append(differs, name+" is gone: it was created by migration "+m.name)
			}
		}
	}
	for name, want := range cfg.Retention.ttl() {
		if ddl, ok := tables[name]; ok && !strings.Contains(ddl, ttlText(want.column, want.days)) {
			differs = append(differs, fmt.Sprintf("%s: retention is not %d days", name, want.days))
		}
	}
	slices.Sort(differs)
	return differs, nil
}

// Require is nil if the tables are as Migrate makes them. The retention is a
// matter of taste: it stops nothing.
func Require(ctx context.Context, cfg MigrateConfig) error {
	differs, err := Check(ctx, cfg)
	if err != nil {
		return err
	}
	for _, d := range differs {
		switch {
		case strings.Contains(d, "retention"):
		case strings.Contains(d, "another content"):
			return &Fault{OtherBuild, errors.New(d)}
		default:
			return &Fault{UnknownTable, errors.New(d)}
		}
	}
	return nil
}

func createDatabase(ctx context.Context, s Server) (err error) {
	conn, err := s.open("default")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := s.requireVersion(ctx, conn); err != nil {
		return err
	}
	if err := conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+s.Name()); err != nil {
		return fmt.Errorf("create database %s: %w", s.Name(), err)
	}
	return nil
}

// appliedMigrations reads the record of what was applied; it creates it if it is missing.
func appliedMigrations(ctx context.Context, conn driver.Conn) (map[string]string, error) {
	err := conn.Exec(ctx, `CREATE TABLE IF NOT EXISTS migrations (
		name String, sum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
	) ENGINE = ReplacingMergeTree ORDER BY name COMMENT 'Which migrations were applied, with the hash of their text'`)
	if err != nil {
		return nil, fmt.Errorf("create migrations: %w", err)
	}
	return readApplied(ctx, conn, "")
}

func readApplied(ctx context.Context, conn driver.Conn, database string) (map[string]string, error) {
	var rows []struct {
		Name string `ch:"name"`
		Sum  string `ch:"sum"`
	}
	if err := conn.Select(ctx, &rows, "SELECT name, sum FROM "+database+"migrations FINAL"); err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	out := make(map[string]string, len(rows))
	for _, r := range rows {
		out[r.Name] = r.Sum
	}
	return out, nil
}

// readMigrations splits the files into statements. A statement ends with a
// semicolon at the end of a line; lines that begin with -- are comments.
func readMigrations() []migration {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		panic("table: the pattern of migrations is fixed: " + err.Error())
	}
	slices.Sort(names)
	out := make([]migration, 0, len(names))
	for _, path := range names {
		text, err := migrations.ReadFile(path)
		if err != nil {
			panic("table: an embedded file cannot be read: " + err.Error())
		}
		sum := sha256.Sum256(text)
		m := migration{name: strings.TrimSuffix(strings.TrimPrefix(path, "migrations/"), ".sql"), sum: hex.EncodeToString(sum[:16])}
		for _, s := range strings.Split(comment.ReplaceAllString(string(text), "")+"\n", ";\n") {
			if s = strings.TrimSpace(s); s != "" {
				m.statements = append(m.statements, s)
			}
		}
		out = append(out, m)
	}
	return out
}

var (
	comment = regexp.MustCompile(`(?m)^--.*\n`)
	created = regexp.MustCompile(`^CREATE (?:TABLE IF NOT EXISTS|OR REPLACE VIEW) (\w+)`)
)

// creates are the tables and views of the migration.
func (m *migration) creates() (names []string) {
	for _, s := range m.statements {
		if match := created.FindStringSubmatch(s); match != nil {
			names = append(names, match[1])
		}
	}
	return names
}

func (m *migration) apply(ctx context.Context, conn driver.Conn) error {
	for _, s := range m.statements {
		if err := conn.Exec(ctx, s); err != nil {
			head, _, _ := strings.Cut(s, "\n")
			return fmt.Errorf("%s: %w", head, err)
		}
	}
	// Crash here: the statements are repeated by the next run, and change nothing.
	return conn.Exec(ctx, "INSERT INTO migrations (name, sum) SELECT {name:String}, {sum:String}",
		namedText("name", m.name), namedText("sum", m.sum))
}

// writeReasons keeps the table of reasons at this build's words.
func writeReasons(ctx context.Context, conn driver.Conn) error {
	var have []struct {
		Reason string `ch:"reason"`
		Text   string `ch:"text"`
	}
	if err := conn.Select(ctx, &have, "SELECT reason, text FROM reasons FINAL"); err != nil {
		return fmt.Errorf("read reasons: %w", err)
	}
	missing := schemas.Reasons()
	for _, h := range have {
		if missing[schemas.Reason(h.Reason)] == h.Text {
			delete(missing, schemas.Reason(h.Reason))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	var words, texts []string
	for r, text := range missing {
		words, texts = append(words, string(r)), append(texts, text)
	}
	t := Define("reasons", Text("reason", &words), Text("text", &texts))
	return t.Insert(ctx, conn)
}

// readTables is the text that would create each table of the database.
func readTables(ctx context.Context, conn driver.Conn, database string) (map[string]string, error) {
	var rows []struct {
		Name string `ch:"name"`
		DDL  string `ch:"create_table_query"`
	}
	err := conn.Select(ctx, &rows, "SELECT name, create_table_query FROM system.tables WHERE database = {database:String}", namedText("database", database))
	if err != nil {
		return nil, fmt.Errorf("read system.tables: %w", err)
	}
	out := make(map[string]string, len(rows))
	for _, r := range rows {
		out[r.Name] = r.DDL
	}
	return out, nil
}

// setRetention alters the tables whose retention differs. The server recomputes
// the expiry of existing parts in the background.
func setRetention(ctx context.Context, conn driver.Conn, r Retention) error {
	var database string
	if err := conn.QueryRow(ctx, "SELECT currentDatabase()").Scan(&database); err != nil {
		return fmt.Errorf("read the database's name: %w", err)
	}
	tables, err := readTables(ctx, conn, database)
	if err != nil {
		return err
	}
	for name, want := range r.ttl() {
		if strings.Contains(tables[name], ttlText(want.column, want.days)) {
			continue
		}
		if err := conn.Exec(ctx, "ALTER TABLE "+name+" MODIFY "+ttlText(want.column, want.days)); err != nil {
			return fmt.Errorf("set retention of %s: %w", name, err)
		}
	}
	return nil
}

// ttlText is the clause as the server prints it.
func ttlText(column string, days int) string {
	return fmt.Sprintf("TTL toDateTime(%s) + toIntervalDay(%d)", column, days)
}
