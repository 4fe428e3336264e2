package processors

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"testing"
)

// TestSipHash holds the hasher to the reference vectors of SipHash-2-4-128
// (key 00..0f, input 00 01 02 …).
func TestSipHash(t *testing.T) {
	secret := make([]byte, 16)
	in := make([]byte, 2)
	for i := range secret {
		secret[i] = byte(i)
	}
	in[1] = 1
	for n, want := range []string{"a3817f04ba25a8e66df67214c7550293", "da87c1d86b99af44347659119b22fc45"} {
		got := newHasher(secret).sum(in[:n])
		if hex.EncodeToString(got[:]) != want {
			t.Errorf("%d bytes: %x, want %s", n, got, want)
		}
	}
}

func testKey(n uint64) key {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], n)
	return hasher{1, 2}.sum(b[:])
}

// TestRingAgainstMap drives ring and a map with times through random pushes,
// look-ups, commits and rollbacks: they must agree on every look-up.
func TestRingAgainstMap(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 3))
		r := newRing(maxPlaces)
		want, undo := map[uint64]int64{}, map[uint64]int64{}
		clock, undoClock := int64(1_790_000_000_000), int64(1_790_000_000_000)
		mark := r.mark()
		for range 60_000 {
			switch p := rng.IntN(1000); {
			case p < 2:
				r.rollback(mark)
				want, clock = clone(undo), undoClock
				mark = r.mark()
			case p < 10:
				r.commit()
				undo, undoClock, mark = clone(want), clock, r.mark()
			case p < 100:
				clock += rng.Int64N(2 * windowSeconds)
				r.expire(clock)
			case p == 100 && seed == 0: // everything expires at once
				clock += windowSeconds * 1000
				r.expire(clock)
			}
			n := rng.Uint64N(30_000)
			k := testKey(n)
			at, known := want[n]
			known = known && clock/1000-at/1000 < windowSeconds
			if r.has(&k) != known {
				t.Fatalf("seed %d key %d: has %v, want %v", seed, n, !known, known)
			}
			if !known {
				r.push(&k, clock)
				want[n] = clock
			}
		}
		live := 0
		for _, at := range want {
			if clock/1000-at/1000 < windowSeconds {
				live++
			}
		}
		if r.len() != live || r.early != 0 {
			t.Errorf("seed %d: %d keys, %d forgotten early, want %d and 0", seed, r.len(), r.early, live)
		}
	}
}

func clone(m map[uint64]int64) map[uint64]int64 {
	out := make(map[uint64]int64, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

func TestRingBound(t *testing.T) {
	r := newRing(100)
	for n := range uint64(250) {
		k := testKey(n)
		r.push(&k, 1_790_000_000_000)
		if n%10 == 0 {
			r.commit()
		}
	}
	oldest, newest, forgotten := testKey(150), testKey(249), testKey(149)
	if !r.has(&oldest) || !r.has(&newest) || r.has(&forgotten) {
		t.Error("at the bound the newest 100 keys must be known, and no other")
	}
	if r.len() != 100 || r.early != 150 {
		t.Errorf("%d keys, %d forgotten early, want 100 and 150", r.len(), r.early)
	}
}

// TestRingMemory: at most 22 bytes a key, at any number of keys.
func TestRingMemory(t *testing.T) {
	r := newRing(maxPlaces)
	worst := 0.0
	clock := int64(1_790_000_000_000)
	for n := range uint64(1_000_000) {
		k := testKey(n)
		clock += 86
		r.push(&k, clock)
		if n >= 200_000 && n%10_000 == 0 {
			r.commit()
			worst = max(worst, float64(r.bytes())/float64(r.len()))
		}
	}
	t.Logf("%.2f bytes a key at 1 M keys, %.2f at worst from 200 k on", float64(r.bytes())/float64(r.len()), worst)
	if got := float64(r.bytes()) / float64(r.len()); got > 22 {
		t.Errorf("%.2f bytes a key at 1 M keys, want 22 at most", got)
	}
}
