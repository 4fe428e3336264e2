package audit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// DefaultDatabase is the database's name unless configured otherwise.
const DefaultDatabase = "spillway"

// Server is a ClickHouse server, or what speaks its HTTP interface.
type Server struct {
	// URL is http://host:port or https://host:port, with user:password@ if it
	// wants them. Required.
	URL string
	// Database holds the tables. Empty: DefaultDatabase.
	Database string
	// Password wins over the URL's, for it may come from a file.
	Password string
}

// Name is the database's name.
func (s Server) Name() string {
	if s.Database == "" {
		return DefaultDatabase
	}
	return s.Database
}

func (s Server) validate() error {
	u, err := url.Parse(s.URL)
	if err != nil {
		return errors.New("audit: the ClickHouse URL cannot be read") // the error would quote a password
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return fmt.Errorf("audit: ClickHouse URL %q: want http://host:port", u.Redacted())
	}
	for _, c := range s.Name() {
		if c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return fmt.Errorf("audit: database name %q: want letters, digits and _", s.Name())
		}
	}
	return nil
}

// Open returns a connection pool in the database; it connects when it is used.
// A request that has no deadline of its own waits 5 minutes at most.
func (s Server) Open() (driver.Conn, error) { return s.open(s.Name()) }

// open: HTTP, because the embedded engine speaks only that, and natively is no
// faster from one machine to another when blocks are large. Blocks are not
// compressed on loopback, where that costs a third of the throughput.
func (s Server) open(database string) (driver.Conn, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	u, _ := url.Parse(s.URL)
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "8123", "https": "8443"}[u.Scheme]
	}
	o := &clickhouse.Options{
		Protocol: clickhouse.HTTP, Addr: []string{net.JoinHostPort(u.Hostname(), port)},
		Auth:        clickhouse.Auth{Database: database, Username: u.User.Username()},
		HttpUrlPath: strings.TrimSuffix(u.Path, "/"), DialTimeout: 5 * time.Second, ReadTimeout: 5 * time.Minute,
		MaxOpenConns: 8, MaxIdleConns: 4,
		ClientInfo: clickhouse.ClientInfo{Products: []struct{ Name, Version string }{{Name: "spillway", Version: "1"}}},
	}
	o.Auth.Password, _ = u.User.Password()
	if s.Password != "" {
		o.Auth.Password = s.Password
	}
	if u.Scheme == "https" {
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		o.Compression = &clickhouse.Compression{Method: clickhouse.CompressionLZ4}
	}
	conn, err := clickhouse.Open(o)
	if err != nil {
		return nil, fmt.Errorf("open ClickHouse at %s: %w", u.Redacted(), err)
	}
	return conn, nil
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

// insert writes the table's rows as one block and returns when they are
// acknowledged. An error says nothing about whether they were written.
func insert(ctx context.Context, conn driver.Conn, t *table) error {
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(insertSettings), clickhouse.WithColumnNamesAndTypes(t.wire))
	b, err := conn.PrepareBatch(ctx, t.statement)
	if err != nil {
		return fmt.Errorf("insert into %s: %w", t.name, err)
	}
	for i := range t.columns {
		if err := b.Column(i).Append(t.columns[i].values()); err != nil {
			return errors.Join(fmt.Errorf("insert into %s: column %s: %w", t.name, t.columns[i].name, err), b.Abort())
		}
	}
	if err := b.Send(); err != nil {
		return fmt.Errorf("insert into %s: %w", t.name, err)
	}
	return nil
}

// namedText is a parameter {name:String} of a statement.
func namedText(name, value string) driver.NamedValue { return clickhouse.Named(name, value) }
