package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/processors/audit/explain"
	"github.com/spillway/spillway/schemas"
)

// Config of a sink.
type Config struct {
	// Kafka finds and enters the cluster: seed brokers, TLS, SASL, client id.
	// The sink adds groups, topics and isolation. Required.
	Kafka []kgo.Opt
	// Topics names them; their prefix is that of the two consumer groups too.
	Topics schemas.Topics
	// Server is where the tables are. Required.
	Server Server
	// Migrate makes the sink create and update the tables itself before it
	// begins, with Retention. False: it waits until `spillway setup` did.
	Migrate   bool
	Retention Retention
	// SchemaIDs are the registry's ids of the system records, by full name.
	// Required; an id that is not here is looked up in Schemas.
	SchemaIDs map[string]int32
	// Secrets know the keys of returns. Without the right key a return cannot
	// be told from an event of its own, and is written as one. Required.
	Secrets Secrets
	// Tenants tell the policies that take channel and id from the payload.
	// Nil: such events keep the defaults.
	Tenants Tenants
	// Schemas tell event types of records without ce_type. Nil: the type of
	// such an event stays empty.
	Schemas processors.Schemas
	// Resolve asks the registry for one schema, so that Schemas knows it
	// afterwards; an error that is registry.ErrAbsent says that there is none. Nil:
	// never. All calls for one poll get 200 ms together. A batch with names that
	// got no answer waits for it 5 s at most, and then none does for 30 s: the sink
	// does not stand still for a name.
	Resolve func(ctx context.Context, id int32) error
	// Listener serves GET /v1/events to those whom Tokens verify. Nil: nobody is
	// served. Run closes it.
	Listener net.Listener
	Tokens   explain.Tokens
	// Node names this process; it is the static group member. Two processes
	// with one name fence each other. Required.
	Node string
	// MaxRows, MaxBytes and FlushEvery bound a batch, whichever comes first.
	// Zero: 20,000 rows, 16 MiB, 250 ms. Larger batches cost less, smaller ones
	// are visible earlier.
	MaxRows    int
	MaxBytes   int
	FlushEvery time.Duration
	// InsertTimeout bounds one attempt. Zero: 30 s. It must stay below the
	// group's rebalance timeout of 60 s, for a revocation waits for it.
	InsertTimeout time.Duration
	// DrainTimeout bounds the last flush after ctx ends. Zero: 10 s. What is
	// not written then is read again at the next start.
	DrainTimeout time.Duration
	// Now is the clock of the lag metric and of rests between look-ups.
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Secrets find the key of a return's secret by its id; the last ones too.
type Secrets interface {
	SecretKey(id string) ([]byte, bool)
}

// Tenants find a tenant's effective policy. It never blocks.
type Tenants interface {
	Policy(tenant string) (*schemas.Policy, bool)
}

func (c *Config) validate() error {
	if c.MaxRows == 0 {
		c.MaxRows = 20_000
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 16 << 20
	}
	for _, d := range []struct {
		field *time.Duration
		zero  time.Duration
	}{{&c.FlushEvery, 250 * time.Millisecond}, {&c.InsertTimeout, 30 * time.Second}, {&c.DrainTimeout, 10 * time.Second}} {
		if *d.field == 0 {
			*d.field = d.zero
		}
	}
	switch {
	case len(c.Kafka) == 0:
		return errors.New("audit: Kafka is empty")
	case c.Secrets == nil:
		return errors.New("audit: Secrets is nil")
	case c.Node == "":
		return errors.New("audit: Node is empty")
	case c.Now == nil || c.Logger == nil || c.Registerer == nil:
		return errors.New("audit: Now, Logger and Registerer are required")
	case c.Listener != nil && c.Tokens == nil:
		return errors.New("audit: a Listener needs Tokens")
	case c.MaxRows < 1 || c.MaxRows > 500_000:
		return fmt.Errorf("audit: MaxRows is %d, want 1 to 500,000", c.MaxRows)
	case c.MaxBytes < 1:
		return fmt.Errorf("audit: MaxBytes is %d", c.MaxBytes)
	case c.FlushEvery < 0 || c.DrainTimeout < 0:
		return fmt.Errorf("audit: FlushEvery is %v and DrainTimeout %v", c.FlushEvery, c.DrainTimeout)
	case c.InsertTimeout < 0 || c.InsertTimeout > 50*time.Second:
		return fmt.Errorf("audit: InsertTimeout is %v, want at most 50s", c.InsertTimeout)
	}
	for _, name := range []string{schemas.TransitionName, schemas.ReceiptName, schemas.SessionRangeName} {
		if _, ok := c.SchemaIDs[name]; !ok {
			return fmt.Errorf("audit: SchemaIDs lacks %s", name)
		}
	}
	return errors.Join(c.Server.Validate(), c.Retention.Validate())
}
