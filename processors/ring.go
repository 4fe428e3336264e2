package processors

import "time"

// Window is how long a key is remembered, in whole seconds of the partition's
// clock: a key of second s is forgotten at second s + 86,400.
const Window = 24 * time.Hour

const windowSeconds = int64(Window / time.Second)

const (
	chunkKeys     = 4096    // keys a chunk: 64 KiB
	forgetAtOnce  = 1 << 16 // keys taken out of the index by one commit
	MaxKeysBound  = maxPlaces
	DefaultMaxKey = 1 << 24
)

// A ring remembers keys in the order in which they came, for one Window. It is
// exact: a FIFO of all keys and an index over it; no filter.
//
//	chunks  [key key key …][key …][… key]            16 bytes a key
//	         ▲ head  ▲ live             ▲ tail
//	groups  one for each second with keys: second, place of its first key
//
// Keys before live are forgotten and no longer found; they stay where they are
// until commit, so that a rollback only has to move live and tail back.
type ring struct {
	chunks  [][]key
	base    uint64 // seq of chunks[0][0]
	head    uint64 // first key that is in the index
	live    uint64 // first key that counts
	tail    uint64 // seq of the next key
	groups  []group
	current int // first group whose keys count
	idx     index
	spare   []key // one chunk, for reuse
	max     uint64
	early   uint64 // keys forgotten before their time, for want of room
	bare    bool   // there is no index yet; see build
}

type group struct {
	second uint32 // of the clock, since 1970
	first  uint32 // low 32 bits of the seq of its first key
}

func newRing(max int) ring { return ring{max: uint64(max)} }

// expire forgets what is a window old at clock (ms).
func (r *ring) expire(clock int64) {
	limit := clock/1000 - windowSeconds
	for r.current < len(r.groups) && int64(r.groups[r.current].second) <= limit {
		r.current++
		if r.current < len(r.groups) {
			r.live = max(r.live, r.wide(r.groups[r.current].first))
		} else {
			r.live = r.tail
		}
	}
}

// wide is the seq, at most tail and less than 2^32 before it, with these low
// bits.
func (r *ring) wide(low uint32) uint64 { return r.tail - uint64(uint32(r.tail)-low) }

// seq is the seq, before tail, that an index entry's place means.
func (r *ring) seq(place uint32) uint64 {
	return r.tail - 1 - (r.tail-1-uint64(place))&placeMask
}

func (r *ring) at(seq uint64) *key {
	i := seq - r.base
	return &r.chunks[i/chunkKeys][i%chunkKeys]
}

func (r *ring) holds(place uint32, k *key) bool {
	seq := r.seq(place)
	return seq >= r.live && *r.at(seq) == *k
}

func (r *ring) has(k *key) bool { return r.idx.find(k, r) }

// push remembers k at clock (ms). At the bound the oldest key makes room.
func (r *ring) push(k *key, clock int64) {
	if r.tail-r.live >= r.max {
		r.live++
		r.early++
	}
	if r.tail-r.base == uint64(len(r.chunks))*chunkKeys {
		r.chunks = append(r.chunks, r.chunk())
	}
	second := uint32(clock / 1000)
	if n := len(r.groups); n == 0 || n == r.current || r.groups[n-1].second < second {
		r.groups = append(r.groups, group{second, uint32(r.tail)})
	}
	r.tail++
	*r.at(r.tail - 1) = *k
	if !r.bare {
		r.idx.add(k, r.tail-1, r)
	}
}

// build makes the index of a bare ring, at once and of the right size.
func (r *ring) build() {
	var keys [256]int
	for seq := r.head; seq < r.tail; seq++ {
		keys[r.at(seq)[0]]++
	}
	r.idx.reserve(&keys)
	for seq := r.head; seq < r.tail; seq++ {
		r.idx.add(r.at(seq), seq, r)
	}
	r.bare = false
}

func (r *ring) chunk() []key {
	if c := r.spare; c != nil {
		r.spare = nil
		return c
	}
	return make([]key, chunkKeys)
}

// A ringMark is a state of the ring that truncate can go back to, until the
// next commit.
type ringMark struct {
	live, tail, early uint64
	groups, current   int
}

func (r *ring) mark() ringMark {
	return ringMark{r.live, r.tail, r.early, len(r.groups), r.current}
}

func (r *ring) rollback(m ringMark) {
	for seq := r.tail; seq > m.tail; seq-- {
		r.idx.remove(r.at(seq-1), seq-1)
	}
	r.live, r.tail, r.early, r.current = m.live, m.tail, m.early, m.current
	r.groups = r.groups[:m.groups]
}

// commit gives back the memory of forgotten keys, of forgetAtOnce at most: the
// rest goes with the next commits.
func (r *ring) commit() {
	for end := min(r.live, r.head+forgetAtOnce); r.head < end; r.head++ {
		if !r.bare {
			r.idx.remove(r.at(r.head), r.head)
		}
	}
	if n := int((r.head - r.base) / chunkKeys); n > 0 {
		r.spare = r.chunks[n-1]
		kept := copy(r.chunks, r.chunks[n:])
		clear(r.chunks[kept:])
		r.chunks = r.chunks[:kept]
		r.base += uint64(n) * chunkKeys
	}
	if r.current > 1024 && r.current > len(r.groups)/32 {
		r.groups = r.groups[:copy(r.groups, r.groups[r.current:])]
		r.current = 0
	}
}

func (r *ring) len() int { return int(r.tail - r.live) }

func (r *ring) bytes() int {
	return len(r.chunks)*chunkKeys*len(key{}) + 8*cap(r.groups) + r.idx.bytes()
}
