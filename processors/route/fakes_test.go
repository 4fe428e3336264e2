package route

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/registry"
)

// fakeControl is Tenants and Secrets.
type fakeControl struct {
	mu       sync.Mutex
	policies map[string]*schemas.Policy
	version  int64
	stale    time.Duration // how old the policies are
}

var testSecret = schemas.Secret{ID: "s1", Key: []byte("0123456789abcdef0123456789abcdef")}

func newFakeControl() *fakeControl {
	c := &fakeControl{policies: map[string]*schemas.Policy{}}
	for _, tenant := range []string{"acme", "globex", "initech"} {
		c.set(tenant, schemas.Policy{Fast: schemas.Rate{Rate: 100_000}})
	}
	return c
}

func (c *fakeControl) set(tenant string, p schemas.Policy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p = p.Under(schemas.DefaultPolicy([]string{"eu"}))
	next := maps.Clone(c.policies)
	next[tenant] = &p
	c.policies = next
	c.version++
}

// fakePolicies are what control said at one time.
type fakePolicies struct {
	policies map[string]*schemas.Policy
	version  int64
}

func (p fakePolicies) Version() int64 { return p.version }
func (p fakePolicies) Policy(tenant string) (*schemas.Policy, bool) {
	policy, ok := p.policies[tenant]
	return policy, ok
}

func (c *fakeControl) Wait(ctx context.Context) error { return ctx.Err() }
func (c *fakeControl) Policies() Policies {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fakePolicies{c.policies, c.version}
}
func (c *fakeControl) FreshAt() time.Time            { return time.Now().Add(-c.stale) }
func (c *fakeControl) SigningSecret() schemas.Secret { return testSecret }
func (c *fakeControl) DedupeKey() []byte             { return []byte("fedcba9876543210") }
func (c *fakeControl) SecretKey(id string) ([]byte, bool) {
	return testSecret.Key, id == testSecret.ID
}

// fakeRegistry knows a few ids at once and others only when it is resolved.
type fakeRegistry struct {
	mu     sync.Mutex
	known  map[int]*registry.Schema
	hidden map[int]*registry.Schema // found by Resolve
	absent map[int]time.Time
	down   bool
	asked  int
}

func newFakeRegistry(testing.TB) *fakeRegistry {
	samples := schemas.SampleSchemas()
	schema := func(id int, name string) *registry.Schema {
		return &registry.Schema{ID: id, Name: name, Codec: compile(samples[name])}
	}
	return &fakeRegistry{
		known: map[int]*registry.Schema{
			requestID:   schema(requestID, "ai.inference.Request"),
			referenceID: {ID: referenceID, HasReferences: true, Unsupported: errors.New("the schema has references to other subjects")},
		},
		hidden: map[int]*registry.Schema{messageID: schema(messageID, "demo.Message")},
		absent: map[int]time.Time{},
	}
}

func (f *fakeRegistry) ByID(id int) (*registry.Schema, registry.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.known[id]; s != nil {
		return s, registry.State{Answer: registry.Known}
	}
	if asked, ok := f.absent[id]; ok {
		return nil, registry.State{Answer: registry.Absent, Asked: asked}
	}
	return nil, registry.State{}
}

func (f *fakeRegistry) Ask(int) bool { return false }

func (f *fakeRegistry) Resolve(_ context.Context, id int) (*registry.Schema, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.down {
		return nil, registry.ErrUnavailable
	}
	if s := f.hidden[id]; s != nil {
		f.known[id] = s
		return s, nil
	}
	f.absent[id] = time.Now()
	return nil, registry.ErrAbsent
}
