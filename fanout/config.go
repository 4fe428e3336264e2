package fanout

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// Bounds of the protocol (DESIGN sections 6.3 and 9).
const (
	MaxFrameIn  = 32 << 10 // bytes of a frame that a client sends
	MaxChannels = 256      // subscriptions of a connection
	MaxLast     = 1000     // events that "last" may ask for

	authTimeout      = 10 * time.Second
	stallTimeout     = 30 * time.Second // a client that takes no byte for so long is closed
	closeTimeout     = 1 * time.Second  // for the closing handshake
	kafkaTimeout     = 5 * time.Second  // looking up a place, reading a chunk
	subscribeTimeout = 20 * time.Second // looking up the places of all subscriptions of a frame

	maxInFlight  = 16              // publishes of one connection that wait for their answer
	sendBuffer   = 64 << 10        // SO_SNDBUF; the kernel doubles it. Left alone it grows to MBs and hides slow clients
	writeBytes   = 128 << 10       // frames gathered for one write
	keepWarm     = 5 * time.Minute // a partition without clients is read so much longer
	rangeEvery   = time.Minute     // SessionRange of an open connection
	advanceEvery = 5 * time.Second // adv to a subscription that nothing matched for
	expiryLeeway = 5 * time.Second // as the verifier of tokens allows
)

// Auth says what a token allows. Verify must not block.
type Auth interface {
	Verify(token string) (schemas.Claims, error)
}

// Tenants says what is known of a tenant: its effective policy. Policy must
// not block.
type Tenants interface {
	Policy(tenant string) (*schemas.Policy, bool)
}

// Config is what New needs. Fields without a stated zero must be set.
type Config struct {
	Kafka      []kgo.Opt             // seed brokers, TLS, SASL, client id
	Topics     schemas.Topics        // names of topics
	Partitions int32                 // of `events` and fanout.<region>; a wrong number sends tenants to the wrong log
	Region     string                // whose events it delivers
	Node       string                // this process's name
	SchemaIDs  map[string]int32      // registry ids of Receipt, SessionRange and Node, by full name
	Listener   net.Listener          // where clients come; Run closes it
	Auth       Auth                  //
	Tenants    Tenants               //
	Logger     *slog.Logger          //
	Registerer prometheus.Registerer //
	Now        func() time.Time      // wall clock; nil: time.Now

	IngestURL      string        // base address of ingest, for pub; "": pub is refused
	Advertise      string        // ws or wss address of this node that clients are told; "": the one they came to
	Origins        []string      // host patterns (path.Match) of foreign pages that may connect; none: only pages of the same host
	TailBytes      int64         // memory for the tails of all partitions; 0: 64 MiB
	MaxConnections int           // sockets and streams at once; 0: 5000
	DrainTimeout   time.Duration // from SIGTERM to the last close; 0: 30 s
	PingInterval   time.Duration // an idle connection is pinged so often, and closed after two without an answer; 0: 20 s
}

func (c *Config) validate() error {
	var missing []string
	for name, ok := range map[string]bool{
		"Kafka": len(c.Kafka) > 0, "Region": c.Region != "", "Node": c.Node != "", "Listener": c.Listener != nil, "Auth": c.Auth != nil,
		"Tenants": c.Tenants != nil, "Logger": c.Logger != nil, "Registerer": c.Registerer != nil,
	} {
		if !ok {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("fanout: not set: %s", strings.Join(missing, ", "))
	}
	for _, name := range []string{schemas.ReceiptName, schemas.SessionRangeName, schemas.NodeName} {
		if _, ok := c.SchemaIDs[name]; !ok {
			return fmt.Errorf("fanout: SchemaIDs has no id for %s", name)
		}
	}
	if c.Partitions < 1 {
		return fmt.Errorf("fanout: Partitions is %d, want 1 at least", c.Partitions)
	}
	if u, err := url.Parse(c.IngestURL); c.IngestURL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		return fmt.Errorf("fanout: IngestURL %q is no http address", c.IngestURL)
	}
	if c.Advertise != "" && !strings.HasPrefix(c.Advertise, "ws://") && !strings.HasPrefix(c.Advertise, "wss://") {
		return fmt.Errorf("fanout: Advertise %q does not begin with ws:// or wss://", c.Advertise)
	}
	if c.TailBytes < 0 || c.MaxConnections < 0 || c.DrainTimeout < 0 || c.PingInterval < 0 {
		return errors.New("fanout: TailBytes, MaxConnections, DrainTimeout and PingInterval cannot be negative")
	}
	c.setDefaults()
	return nil
}

func (c *Config) setDefaults() {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.TailBytes == 0 {
		c.TailBytes = 64 << 20
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = 5000
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 30 * time.Second
	}
	if c.PingInterval == 0 {
		c.PingInterval = 20 * time.Second
	}
}
