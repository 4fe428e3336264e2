package keys

import (
	"crypto/sha256"
	"sync"

	"github.com/spillway/spillway/schemas"
)

// set is the keys of one moment. A new one begins with an empty cache.
type set struct {
	all   []Key
	byID  map[string][]Key
	cache cache
}

func newSet(keys []Key) *set {
	s := &set{all: keys, byID: make(map[string][]Key, len(keys))}
	for _, k := range keys {
		if k.ID != "" {
			s.byID[k.ID] = append(s.byID[k.ID], k)
		}
	}
	return s
}

func forAlgorithm(keys []Key, algorithm string) []Key {
	var out []Key
	for _, k := range keys {
		if k.Algorithm == algorithm {
			out = append(out, k)
		}
	}
	return out
}

// maxCached bounds the cache: 2 × 8192 tokens, a few MiB.
const maxCached = 8192

type tokenHash [sha256.Size]byte

// hashToken is what the cache remembers of a token: nobody can make two tokens
// that share one.
func hashToken(token string) tokenHash { return sha256.Sum256([]byte(token)) }

// cache remembers verified tokens in two generations: when the young one is
// full it becomes the old one, and what was old is forgotten. A token in use
// moves back to the young one, so it is verified again only if 8192 others came
// since its last use.
type cache struct {
	mu         sync.RWMutex
	young, old map[tokenHash]schemas.Claims
}

func (c *cache) get(h tokenHash) (schemas.Claims, bool) {
	c.mu.RLock()
	claims, young := c.young[h]
	old := false
	if !young {
		claims, old = c.old[h]
	}
	c.mu.RUnlock()
	if old {
		c.put(h, claims)
	}
	return claims, young || old
}

func (c *cache) put(h tokenHash, claims schemas.Claims) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.young) >= maxCached {
		c.old, c.young = c.young, nil
	}
	if c.young == nil {
		c.young = make(map[tokenHash]schemas.Claims)
	}
	c.young[h] = claims
}
