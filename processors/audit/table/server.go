package table

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

const defaultUser = "default"

// DefaultDatabase is the database's name unless configured otherwise.
const DefaultDatabase = "spillway"

// Server is a ClickHouse server, or what speaks its HTTP interface.
type Server struct {
	// URL is http://host:port or https://host:port, with user:password@ if it
	// wants them. Required.
	URL string
	// Database holds the tables. Empty: DefaultDatabase.
	Database string
	// User and Password win over the URL's, for they may come from elsewhere.
	// Empty, and none in the URL: the server's default user.
	User, Password string
	// Login is asked for user and password at each request and wins over those
	// above, for a password may be changed while we run. Nil: they stay.
	Login func() (user, password string, err error)
	// TLS says whom to trust and who we are; it needs https. A certificate of
	// ours without a Password logs the User in. Nil: the system's authorities.
	TLS *tls.Config
}

// Name is the database's name.
func (s Server) Name() string {
	if s.Database == "" {
		return DefaultDatabase
	}
	return s.Database
}

// Validate says what is wrong with it, and never the password.
func (s Server) Validate() error {
	u, err := url.Parse(s.URL)
	if err != nil {
		return errors.New("audit: the ClickHouse URL cannot be read") // the error would quote a password
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return fmt.Errorf("audit: ClickHouse URL %q: want http://host:port or https://host:port", u.Redacted())
	}
	if s.TLS != nil && u.Scheme != "https" {
		return fmt.Errorf("audit: ClickHouse URL %q: a CA or a certificate is configured, so want https://", u.Redacted())
	}
	for _, c := range s.Name() {
		if c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return fmt.Errorf("audit: database name %q: want letters, digits and _", s.Name())
		}
	}
	return nil
}

// auth is who we are, as far as that does not change.
func (s Server) auth(u *url.URL) clickhouse.Auth {
	a := clickhouse.Auth{Username: u.User.Username()}
	a.Password, _ = u.User.Password()
	if s.User != "" {
		a.Username = s.User
	}
	if s.Password != "" {
		a.Password = s.Password
	}
	if a.Username == "" {
		a.Username = defaultUser
	}
	return a
}

// tls is nil unless the URL is https.
func (s Server) tls(u *url.URL) *tls.Config {
	switch {
	case u.Scheme != "https":
		return nil
	case s.TLS == nil:
		return &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return s.TLS.Clone()
}

// Open returns a connection pool in the database; it connects when it is used.
// A request that has no deadline of its own waits 5 minutes at most.
func (s Server) Open() (driver.Conn, error) { return s.open(s.Name()) }

// open: HTTP, because the embedded engine speaks only that, and natively is no
// faster from one machine to another when blocks are large. Blocks are not
// compressed on loopback, where that costs a third of the throughput.
func (s Server) open(database string) (driver.Conn, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	u, _ := url.Parse(s.URL)
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "8123", "https": "8443"}[u.Scheme]
	}
	o := &clickhouse.Options{
		Protocol: clickhouse.HTTP, Addr: []string{net.JoinHostPort(u.Hostname(), port)}, Auth: s.auth(u), TLS: s.tls(u),
		HttpUrlPath: strings.TrimSuffix(u.Path, "/"), DialTimeout: 5 * time.Second, ReadTimeout: 5 * time.Minute,
		MaxOpenConns: 8, MaxIdleConns: 4,
		ClientInfo:    clickhouse.ClientInfo{Products: []struct{ Name, Version string }{{Name: "spillway", Version: "1"}}},
		TransportFunc: func(t *http.Transport) (http.RoundTripper, error) { return noPages{s.signed(t)}, nil },
	}
	o.Auth.Database = database
	if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		o.Compression = &clickhouse.Compression{Method: clickhouse.CompressionLZ4}
	}
	conn, err := clickhouse.Open(o)
	if err != nil {
		return nil, fmt.Errorf("open ClickHouse at %s: %w", u.Redacted(), err)
	}
	return conn, nil
}

// noPages takes no web page for an answer: a proxy's 200 with a page would
// count as the acknowledgement of an insert, and its 500 be quoted whole.
type noPages struct{ next http.RoundTripper }

func (t noPages) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := t.next.RoundTrip(req)
	if err == nil && strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
		_ = res.Body.Close()
		return nil, pageError(res.StatusCode)
	}
	return res, err
}

// A pageError is the HTTP status of a web page that came instead of an answer.
type pageError int

func (e pageError) Error() string {
	return fmt.Sprintf("a web page came with HTTP status %d, which ClickHouse does not send", int(e))
}

// namedText is a parameter {name:String} of a statement.
func namedText(name, value string) driver.NamedValue { return clickhouse.Named(name, value) }
