package connect

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Connections know how to reach the parts. Their methods may be called from
// any goroutine.
type Connections struct {
	cfg                         Config
	kafka, registry, clickhouse *material
}

// New checks cfg and reads its files. It connects to nothing. Its errors are
// *Refused, joined.
func New(cfg Config) (*Connections, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &Connections{cfg: cfg}
	var errs [3]error
	c.kafka, errs[0] = newMaterial("kafka", cfg.Kafka.Files, cfg.Now, cfg.Logger)
	c.registry, errs[1] = newMaterial("registry", cfg.Registry.Files, cfg.Now, cfg.Logger)
	c.clickhouse, errs[2] = newMaterial("clickhouse", cfg.ClickHouse.Files, cfg.Now, cfg.Logger)
	return c, errors.Join(errs[:]...)
}

// Reload reads all certificates again, changed or not, as SIGHUP asks.
func (c *Connections) Reload() error {
	return errors.Join(c.kafka.fresh(true), c.registry.fresh(true), c.clickhouse.fresh(true))
}

// Kafka is what any client of the cluster begins with.
func (c *Connections) Kafka() []kgo.Opt {
	opts := []kgo.Opt{kgo.SeedBrokers(c.cfg.Kafka.Brokers...), kgo.ClientID(c.cfg.ClientID)}
	if c.cfg.Kafka.TLS {
		opts = append(opts, kgo.Dialer(c.kafka.dial))
	}
	if m := c.mechanism(); m != nil {
		opts = append(opts, kgo.SASL(m))
	}
	return opts
}

// dialWithin bounds a connection to a broker: another one may answer.
func (c *Connections) dialWithin(d time.Duration) kgo.Opt {
	if !c.cfg.Kafka.TLS {
		return kgo.DialTimeout(d)
	}
	return kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		return c.kafka.dial(ctx, network, address)
	})
}

// mechanism asks for the credentials at each new connection.
func (c *Connections) mechanism() sasl.Mechanism {
	k := c.cfg.Kafka
	scrams := func(context.Context) (scram.Auth, error) {
		password, err := k.Password.read()
		if err != nil {
			return scram.Auth{}, setting("--kafka-password", "%w", err)
		}
		return scram.Auth{User: k.User, Pass: password}, nil
	}
	switch k.SASL {
	case "plain":
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			password, err := k.Password.read()
			if err != nil {
				return plain.Auth{}, setting("--kafka-password", "%w", err)
			}
			return plain.Auth{User: k.User, Pass: password}, nil
		})
	case "scram-sha-256":
		return scram.Sha256(scrams)
	case "scram-sha-512":
		return scram.Sha512(scrams)
	}
	return nil
}

const dialTimeout = 10 * time.Second // of one connection, its handshake included

// dial connects and shakes hands.
func (m *material) dial(ctx context.Context, network, address string) (net.Conn, error) {
	_ = m.fresh(false) // logged there; the old ones are tried
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	raw, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, m.config(host))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// Registry asks the registry: it shows our certificate and adds the user and
// password of this moment. Who uses it sets a deadline for each request.
func (c *Connections) Registry() *http.Client { return &http.Client{Transport: c.registryTransport()} }

func (c *Connections) registryTransport() *signed {
	return &signed{web: &c.cfg.Registry, next: c.registry.transports(c.cfg.Registry.URLs), header: basic}
}

// transports are by host, for the check of a certificate must know the name
// that it is for. It is TLSClientConfig and not DialTLSContext that checks:
// the latter is not asked where the environment names a proxy.
func (m *material) transports(urls []string) map[string]*http.Transport {
	out := map[string]*http.Transport{}
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil {
			continue // validate has refused it
		}
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.TLSClientConfig = m.config(u.Hostname())
		t.ForceAttemptHTTP2 = false
		t.MaxIdleConnsPerHost = 8
		out[u.Hostname()] = t
	}
	return out
}

// signed adds credentials to requests.
type signed struct {
	web    *Web
	next   map[string]*http.Transport // by host
	header func(r *http.Request, user, password string)
}

func basic(r *http.Request, user, password string) { r.SetBasicAuth(user, password) }

func (s *signed) RoundTrip(r *http.Request) (*http.Response, error) {
	next := s.next[r.URL.Hostname()]
	if next == nil {
		return nil, fmt.Errorf("connect: %s is no address that is configured", r.URL.Host)
	}
	user, password, err := s.web.credentials(r.URL)
	if err != nil {
		return nil, err
	}
	if user != "" {
		r = r.Clone(r.Context())
		s.header(r, user, password)
	}
	return next.RoundTrip(r)
}

// CloseIdleConnections lets a client give back what it does not need.
func (s *signed) CloseIdleConnections() {
	for _, t := range s.next {
		t.CloseIdleConnections()
	}
}

// ClickHouseLogin is the user and password of this moment, to be asked for at
// each request.
func (c *Connections) ClickHouseLogin() (user, password string, err error) {
	_, user, password, err = c.ClickHouse()
	return user, password, err
}

// ClickHouse is what a ClickHouse client needs beside the address: TLS (nil for
// http://), and the user and password of this moment. One that lives longer
// asks ClickHouseLogin again.
func (c *Connections) ClickHouse() (config *tls.Config, user, password string, err error) {
	if len(c.cfg.ClickHouse.URLs) == 0 {
		return nil, "", "", errors.New("connect: no ClickHouse is configured")
	}
	u, err := url.Parse(c.cfg.ClickHouse.URLs[0])
	if err != nil {
		return nil, "", "", errors.New("connect: the address of ClickHouse cannot be read")
	}
	if user, password, err = c.cfg.ClickHouse.credentials(u); err != nil {
		return nil, "", "", fmt.Errorf("connect: %w", err)
	}
	if u.Scheme == "https" {
		config = c.clickhouse.config(u.Hostname())
	}
	return config, user, password, nil
}
