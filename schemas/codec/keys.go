package codec

import (
	"bytes"
)

// keySet finds repeated keys of one map: by looking through the first 32,
// then with a hash table, so that many keys cost no more than few.
type keySet struct {
	few  [32][]byte
	n    int
	many map[string]struct{}
}

// add reports whether key is new. The bytes of key must not change while the
// set is in use.
func (k *keySet) add(key []byte) bool {
	if k.many == nil {
		for _, have := range k.few[:k.n] {
			if bytes.Equal(have, key) {
				return false
			}
		}
		if k.n < len(k.few) {
			k.few[k.n] = key
			k.n++
			return true
		}
		k.many = make(map[string]struct{}, 2*len(k.few))
		for _, have := range k.few {
			k.many[string(have)] = struct{}{}
		}
	}
	if _, have := k.many[string(key)]; have {
		return false
	}
	k.many[string(key)] = struct{}{}
	return true
}
