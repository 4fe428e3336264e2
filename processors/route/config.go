package route

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/registry"
)

// Tenants is what route asks of control. It answers from memory.
type Tenants interface {
	// Wait returns when the first complete snapshot is there, or ctx's error.
	Wait(ctx context.Context) error
	// Policies are the newest version.
	Policies() Policies
	// FreshAt is when, on this process's clock, the policies were known to be
	// all there are.
	FreshAt() time.Time
}

// Policies are one version of all tenants' policies.
type Policies interface {
	// Policy is the effective policy of a tenant; see processors.Tenants.
	Policy(tenant string) (*schemas.Policy, bool)
	// Version grows with each change.
	Version() int64
}

// Secrets are the cluster's, from control, after Tenants.Wait.
type Secrets interface {
	SigningSecret() schemas.Secret             // signs forwards now
	SecretKey(id string) (key []byte, ok bool) // checks returns
	DedupeKey() []byte                         // hashes idempotency keys
}

// Schemas is the schema registry's client: ByID and Ask never block, Resolve
// asks the registry.
type Schemas interface {
	ByID(id int) (*registry.Schema, registry.State)
	Ask(id int) bool
	Resolve(ctx context.Context, id int) (*registry.Schema, error)
}

// Config says what to route and how.
type Config struct {
	Kafka      []kgo.Opt        // brokers, TLS, SASL, client id
	Topics     schemas.Topics   // names of the deployment
	Partitions int32            // P: partitions of events, fixed for a prefix; route refuses another number
	SchemaIDs  map[string]int32 // registry ids of the system's records by full name; Transition is needed

	Tenants Tenants
	Secrets Secrets
	Schemas Schemas

	Node    string // this process's name, in every Transition
	Ordinal int    // which router of the deployment this is; two with the same number fence each other

	Sessions int // transactions under way at once; 0 is 2
	MaxBatch int // records of one transaction at most; 0 is 2000. Fewer cost throughput, more cost latency
	MaxKeys  int // idempotency keys of a partition, 22 bytes each; 0 is 16 Mi. Beyond, the oldest are forgotten before 24 h

	Now        func() time.Time // nil is time.Now
	Logger     *slog.Logger     // nil discards
	Registerer prometheus.Registerer
}

const (
	defaultSessions = 2
	defaultBatch    = 2000
	maxSessions     = 64
)

func (c Config) withDefaults() Config {
	if c.Sessions == 0 {
		c.Sessions = defaultSessions
	}
	if c.MaxBatch == 0 {
		c.MaxBatch = defaultBatch
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Partitions <= 0:
		return fmt.Errorf("route: Partitions is %d, want at least 1", c.Partitions)
	case c.Tenants == nil || c.Secrets == nil || c.Schemas == nil:
		return errors.New("route: Tenants, Secrets and Schemas are required")
	case c.SchemaIDs[schemas.TransitionName] <= 0:
		return fmt.Errorf("route: SchemaIDs has no id of %s", schemas.TransitionName)
	case c.Ordinal < 0:
		return fmt.Errorf("route: Ordinal is %d, want 0 or more", c.Ordinal)
	case c.Sessions < 0 || c.Sessions > maxSessions:
		return fmt.Errorf("route: Sessions is %d, want 1 to %d", c.Sessions, maxSessions)
	case c.MaxBatch < 0:
		return fmt.Errorf("route: MaxBatch is %d, want 1 or more", c.MaxBatch)
	}
	return nil
}

// group is the consumer group of all routers of the deployment.
func (c *Config) group() string { return c.Topics.Prefix + "route" }

// member is the name of one session: group instance and transactional id.
func (c *Config) member(session int) string {
	return fmt.Sprintf("%sroute/%d/%d", c.Topics.Prefix, c.Ordinal, session)
}
