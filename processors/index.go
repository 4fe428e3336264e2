package processors

import "encoding/binary"

// An index finds a key's place in the ring. It has no pointers into the ring
// and keeps no keys: 4 bytes an entry, 27 bits of place and 5 bits of tag.
//
//	key ─ byte 0 ──▶ segment ─ bytes 4-8, 8-12 ──▶ two buckets of 16 entries
//
// An entry lies in the less full of its two buckets, so a look-up reads two
// cache lines whatever the load, and forgetting clears one word. When both are
// full one of their entries moves to its other bucket; when those are full too,
// the segment, a 256th of the index, is made an eighth larger: growth never
// stops the line for long, and memory follows the number of keys. A segment
// never shrinks.
type index struct{ segments [256][]uint32 }

const (
	bucketEntries = 16
	placeBits     = 27
	placeMask     = 1<<placeBits - 1
	maxPlaces     = 1 << 26 // keys at once; half of the places, so that a place names one key
)

// An entry is 0 if it is empty: tags begin at 1.
func entryOf(k *key, seq uint64) uint32 { return tagOf(k) | uint32(seq)&placeMask }

func tagOf(k *key) uint32 { return (1 + uint32(k[12])%31) << placeBits }

func buckets(segment []uint32, k *key) (a, b []uint32) {
	n := uint64(len(segment) / bucketEntries)
	i := uint64(binary.LittleEndian.Uint32(k[4:])) * n >> 32 * bucketEntries
	j := uint64(binary.LittleEndian.Uint32(k[8:])) * n >> 32 * bucketEntries
	return segment[i : i+bucketEntries : i+bucketEntries], segment[j : j+bucketEntries : j+bucketEntries]
}

// find calls is for each place that may hold k until it says yes.
func (x *index) find(k *key, r *ring) bool {
	segment := x.segments[k[0]]
	if segment == nil {
		return false
	}
	a, b := buckets(segment, k)
	tag := tagOf(k)
	for _, bucket := range [...][]uint32{a, b} {
		for _, e := range bucket {
			if e&^placeMask == tag && r.holds(e&placeMask, k) {
				return true
			}
		}
	}
	return false
}

// add enters k at seq; r has the keys of the other entries.
func (x *index) add(k *key, seq uint64, r *ring) {
	for e := entryOf(k, seq); !place(x.segments[k[0]], k, e) && !displace(x.segments[k[0]], k, e, r); {
		x.grow(k[0], r)
	}
}

// displace puts e into a bucket of k in place of an entry that finds room in
// its other bucket. It reports false if none does.
func displace(segment []uint32, k *key, e uint32, r *ring) bool {
	if segment == nil {
		return false
	}
	a, b := buckets(segment, k)
	for _, bucket := range [...][]uint32{a, b} {
		for i, other := range bucket {
			if place(segment, r.at(r.seq(other&placeMask)), other) {
				bucket[i] = e
				return true
			}
		}
	}
	return false
}

// reserve makes room for so many keys in each segment.
func (x *index) reserve(keys *[256]int) {
	for s, n := range keys {
		n += n / 16 // full to 94 %: displace finds room up to there
		x.segments[s] = make([]uint32, (n/bucketEntries+1)*bucketEntries)
	}
}

// place puts e into the less full bucket of k. It reports false if both are
// full.
func place(segment []uint32, k *key, e uint32) bool {
	if segment == nil {
		return false
	}
	a, b := buckets(segment, k)
	i, freeA := free(a)
	j, freeB := free(b)
	switch {
	case freeA >= freeB && freeA > 0:
		a[i] = e
	case freeB > 0:
		b[j] = e
	default:
		return false
	}
	return true
}

func free(bucket []uint32) (first, count int) {
	for i, e := range bucket {
		if e == 0 {
			first = i
			count++
		}
	}
	return first, count
}

func (x *index) grow(s byte, r *ring) {
	old := x.segments[s]
	n := len(old) / bucketEntries
next:
	for {
		n += n/8 + 1
		grown := make([]uint32, n*bucketEntries)
		for _, e := range old {
			if e != 0 && !place(grown, r.at(r.seq(e&placeMask)), e) {
				continue next
			}
		}
		x.segments[s] = grown
		return
	}
}

// remove takes out the entry of k at seq.
func (x *index) remove(k *key, seq uint64) {
	segment := x.segments[k[0]]
	want := entryOf(k, seq)
	a, b := buckets(segment, k)
	for _, bucket := range [...][]uint32{a, b} {
		for i, e := range bucket {
			if e == want {
				bucket[i] = 0
				return
			}
		}
	}
	panic("processors: a key of the ring is not in its index")
}

func (x *index) bytes() (n int) {
	for _, s := range x.segments {
		n += 4 * len(s)
	}
	return n
}
