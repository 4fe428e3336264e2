package broker

import (
	"encoding/binary"
	"hash/crc32"
)

// Layout of a record batch, version 2 (KIP-98), as far as it is touched here.
//
//	 0 first offset 8     21 attributes 2          57 number of records 4
//	 8 length 4           23 last offset delta 4   61 records, compressed as one
//	12 leader epoch 4     27 first timestamp 8
//	16 magic 1            35 max timestamp 8
//	17 crc32c 4 (of 21…)  43 producer id, epoch, sequence 14
//
// A record: length varint, attributes 1, timestamp delta varlong, offset delta
// varint, key, value, headers. It was made at first timestamp + its delta, or,
// if attribute bit 3 is set, at max timestamp.
const (
	atLength  = 8
	atMagic   = 16
	atCRC     = 17
	atAttrs   = 21
	atFirst   = 27
	atMax     = 35
	atRecords = 61

	codecBits     = 0x07
	appendTimeBit = 0x08
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// What stamp did to a batch.
type change int

const (
	untouched change = iota // damaged, or no batch at all: kfake will say so
	stamped
	rewritten // stamped, and records were rewritten: their times differed
)

// stamp gives every record of a batch the time ms and returns the batch,
// changed in place unless it had to be compressed again.
//
// The append time bit would say the same in one bit. But kfake, seeing it,
// writes its own clock into the batch and leaves the checksum wrong, so the
// records' deltas become 0 instead. They must: records that keep the spread of
// their producer's linger overlap those of the next batch, and a clock that
// adds up the advances of record times, as route's does, would run fast.
//
// A batch with a wrong checksum stays as it is, so that damage on the way is
// found. Records that cannot be walked, and those that decompress to more than
// any client of Spillway reads, keep their deltas: nobody will see them.
func stamp(b []byte, ms int64) ([]byte, change) {
	if !sound(b) {
		return b, untouched
	}
	b, did := flatten(b)
	attrs := binary.BigEndian.Uint16(b[atAttrs:])
	binary.BigEndian.PutUint16(b[atAttrs:], attrs&^appendTimeBit)
	binary.BigEndian.PutUint64(b[atFirst:], uint64(ms))
	binary.BigEndian.PutUint64(b[atMax:], uint64(ms))
	seal(b)
	return b, did
}

// unmark clears the append time bit that a producer has set itself, which only
// a broker may: kfake would damage the batch (see stamp).
func unmark(b []byte) {
	if len(b) < atRecords || b[atAttrs+1]&appendTimeBit == 0 || !sound(b) {
		return
	}
	b[atAttrs+1] &^= appendTimeBit
	seal(b)
}

// sound says whether b is exactly one undamaged batch of version 2.
func sound(b []byte) bool {
	return len(b) >= atRecords && b[atMagic] == 2 &&
		int(binary.BigEndian.Uint32(b[atLength:])) == len(b)-atLength-4 &&
		binary.BigEndian.Uint32(b[atCRC:]) == crc32.Checksum(b[atAttrs:], castagnoli)
}

func seal(b []byte) {
	binary.BigEndian.PutUint32(b[atCRC:], crc32.Checksum(b[atAttrs:], castagnoli))
}

// flatten makes all timestamp deltas of a batch 0.
func flatten(b []byte) ([]byte, change) {
	codec := codec(b[atAttrs+1] & codecBits)
	if codec == 0 {
		return b, flattenRecords(b[atRecords:])
	}
	plain, err := decompress(codec, b[atRecords:])
	if err != nil || flattenRecords(plain) != rewritten {
		return b, stamped
	}
	packed, err := compress(codec, plain)
	if err != nil {
		return b, stamped
	}
	b = append(b[:atRecords:atRecords], packed...)
	binary.BigEndian.PutUint32(b[atLength:], uint32(len(b)-atLength-4))
	return b, rewritten
}

// flattenRecords writes zero deltas in place, each as long as the delta it
// replaces: 0x80 0x80 0x00 is a long spelling of 0 that every varint reader takes.
func flattenRecords(r []byte) change {
	did := stamped
	for len(r) > 0 {
		size, n := binary.Varint(r)
		if n <= 0 || size < 2 || size > int64(len(r)-n) {
			return did
		}
		record := r[n : n+int(size)]
		r = r[n+int(size):]
		delta, n := binary.Varint(record[1:])
		if n <= 0 {
			return did
		}
		if delta != 0 {
			zero(record[1 : 1+n])
			did = rewritten
		}
	}
	return did
}

func zero(varint []byte) {
	for i := range varint {
		varint[i] = 0x80
	}
	varint[len(varint)-1] = 0
}
