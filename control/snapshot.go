package control

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spillway/spillway/schemas"
)

// A Snapshot is `control` as it stood at one offset. It is immutable, safe for
// concurrent use, and answers without blocking.
type Snapshot struct {
	version    int64
	partitions int32
	policies   map[string]*schemas.Policy // effective, by tenant
	everyone   *schemas.Policy            // what a tenant without a policy has, if open
	open       bool
	endpoints  map[string]schemas.Endpoint
	secrets    []signingSecret // of returns, newest first
	dedupe     []byte

	entries  map[key]entry // what it was made from
	admitted *admitted     // shared by a follower's snapshots
	now      func() time.Time
}

type signingSecret struct {
	schemas.Secret
	activeFrom, retiredAt int64 // Unix ms
}

// Partitions is P; 0 before the deployment was set up.
func (s *Snapshot) Partitions() int32 { return s.partitions }

// Version is the offset of the newest record in the snapshot, -1 if there is
// none.
func (s *Snapshot) Version() int64 { return s.version }

// Policy is the effective policy of a tenant, absent fields filled from the
// policy of Everyone and flags laid over it. It reports false if the tenant is
// unknown. The pointer is the same for the whole life of the snapshot; what it
// points to is never modified.
//
// While Everyone is open, a legal name without a policy has Everyone's: the
// first 10,000 such names a follower is asked for, the others are unknown.
func (s *Snapshot) Policy(tenant string) (*schemas.Policy, bool) {
	if p, ok := s.policies[tenant]; ok {
		return p, true
	}
	if !s.open || !s.admitted.admit(tenant) {
		return nil, false
	}
	return s.everyone, true
}

// Endpoint is the endpoint of that name.
func (s *Snapshot) Endpoint(name string) (schemas.Endpoint, bool) {
	e, ok := s.endpoints[name]
	return e, ok
}

// SigningSecret is the secret that signs returns now; its Key is nil before
// the deployment was set up.
func (s *Snapshot) SigningSecret() schemas.Secret {
	now := s.now().UnixMilli()
	for _, secret := range s.secrets {
		if secret.activeFrom <= now && (secret.retiredAt == 0 || secret.retiredAt > now) {
			return secret.Secret
		}
	}
	if len(s.secrets) > 0 { // clocks differ: an early signature is better than none
		return s.secrets[0].Secret
	}
	return schemas.Secret{}
}

// SecretKey is the key of a secret by its id: one that signs returns, or did
// in the last 7 days.
func (s *Snapshot) SecretKey(id string) ([]byte, bool) {
	for _, secret := range s.secrets {
		if secret.ID == id {
			return secret.Key, true
		}
	}
	return nil, false
}

// DedupeKey hashes dedupe keys; nil before the deployment was set up.
func (s *Snapshot) DedupeKey() []byte { return s.dedupe }

// newSnapshot computes what the entries say.
func newSnapshot(entries map[key]entry, version int64, admitted *admitted, now func() time.Time) *Snapshot {
	s := &Snapshot{
		version: version, entries: maps.Clone(entries), admitted: admitted, now: now,
		policies: make(map[string]*schemas.Policy), endpoints: make(map[string]schemas.Endpoint),
	}
	base, open := everyone(entries)
	s.open = open
	flags := activeFlags(entries)
	for k, e := range entries {
		switch v := e.value.(type) {
		case Settings:
			s.partitions = v.Partitions
		case storedSecret:
			s.addSecret(k.name, v)
		case schemas.Endpoint:
			s.endpoints[k.name] = v
		case schemas.Policy:
			if k.name != schemas.Everyone {
				s.policies[k.name] = effective(k.name, v.Under(base), flags)
			}
		}
	}
	s.everyone = effective(schemas.Everyone, base, flags)
	if s.open {
		s.addFlagged(base, flags)
	}
	slices.SortFunc(s.secrets, func(a, b signingSecret) int {
		return cmp.Or(-cmp.Compare(a.activeFrom, b.activeFrom), strings.Compare(a.ID, b.ID))
	})
	return s
}

// everyone is the policy that absent fields come from.
func everyone(entries map[key]entry) (p schemas.Policy, open bool) {
	p = schemas.DefaultPolicy(nil)
	if own, ok := entries[key{KindTenant, schemas.Everyone}].value.(schemas.Policy); ok {
		return own.Under(p), own.Open
	}
	return p, false
}

func (s *Snapshot) addSecret(id string, v storedSecret) {
	if v.Use == useDedupe {
		s.dedupe = v.Key
		return
	}
	s.secrets = append(s.secrets, signingSecret{schemas.Secret{ID: id, Key: v.Key}, v.ActiveFrom, v.RetiredAt})
}

// addFlagged gives a tenant that has no policy but is named by a flag its own:
// Everyone's under the flag.
func (s *Snapshot) addFlagged(base schemas.Policy, flags []namedFlag) {
	for _, f := range flags {
		for _, tenant := range f.Tenants {
			if _, ok := s.policies[tenant]; !ok && tenant != schemas.Everyone {
				s.policies[tenant] = effective(tenant, base, flags)
			}
		}
	}
}

type namedFlag struct {
	name string
	Flag
}

// activeFlags are the flags that are on, by name: the order they are laid
// over a policy, the last one on top.
func activeFlags(entries map[key]entry) []namedFlag {
	var out []namedFlag
	for k, e := range entries {
		if f, ok := e.value.(Flag); ok && f.On {
			out = append(out, namedFlag{k.name, f})
		}
	}
	slices.SortFunc(out, func(a, b namedFlag) int { return strings.Compare(a.name, b.name) })
	return out
}

func effective(tenant string, p schemas.Policy, flags []namedFlag) *schemas.Policy {
	for _, f := range flags {
		if slices.Contains(f.Tenants, tenant) || slices.Contains(f.Tenants, schemas.Everyone) {
			p = f.Patch.Under(p)
		}
	}
	return &p
}

// maxAdmitted is how many tenants without a policy an open Everyone admits
// (DESIGN section 3.2).
const maxAdmitted = 10_000

// admitted remembers which tenants without a policy were let in. It is safe
// for concurrent use.
type admitted struct {
	mu    sync.RWMutex
	names map[string]bool
}

func (a *admitted) admit(tenant string) bool {
	a.mu.RLock()
	known := a.names[tenant]
	a.mu.RUnlock()
	if known || !schemas.ValidTenant(tenant) {
		return known
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.names) >= maxAdmitted {
		return a.names[tenant]
	}
	a.names[strings.Clone(tenant)] = true // the name may point into a record
	return true
}
