package broker

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const appendMillis = int64(1_800_000_000_000)

// makeBatch encodes one batch whose records carry the given timestamp deltas.
func makeBatch(t testing.TB, c codec, first int64, deltas ...int64) []byte {
	t.Helper()
	var records []byte
	last := first
	for i, d := range deltas {
		r := kmsg.NewRecord()
		r.TimestampDelta64 = d
		r.OffsetDelta = int32(i)
		r.Key = []byte("acme")
		r.Value = bytes.Repeat([]byte{byte(i)}, 40)
		r.Headers = []kmsg.Header{{Key: "ce_id", Value: []byte("1")}}
		r.Length = int32(len(r.AppendTo(nil)) - 1) // written as one byte while it is 0
		records = r.AppendTo(records)
		last = max(last, first+d)
	}
	if c != 0 {
		var err error
		if records, err = compress(c, records); err != nil {
			t.Fatal(err)
		}
	}
	b := kmsg.RecordBatch{
		Magic: 2, Attributes: int16(c), LastOffsetDelta: int32(len(deltas) - 1),
		FirstTimestamp: first, MaxTimestamp: last,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1,
		NumRecords: int32(len(deltas)), Records: records,
	}
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[atLength:], uint32(len(raw)-12))
	seal(raw)
	return raw
}

// readBatch decodes a batch as any client would and returns its records' times.
func readBatch(t testing.TB, raw []byte) (kmsg.RecordBatch, []int64, []kmsg.Record) {
	t.Helper()
	var b kmsg.RecordBatch
	if err := b.ReadFrom(raw); err != nil {
		t.Fatal(err)
	}
	if uint32(b.CRC) != crc32.Checksum(raw[atAttrs:], castagnoli) {
		t.Fatal("checksum is wrong")
	}
	if int(b.Length) != len(raw)-12 {
		t.Fatalf("length = %d, want %d", b.Length, len(raw)-12)
	}
	plain := b.Records
	if c := codec(b.Attributes & codecBits); c != 0 {
		var err error
		if plain, err = decompress(c, plain); err != nil {
			t.Fatal(err)
		}
	}
	var times []int64
	var records []kmsg.Record
	for len(plain) > 0 {
		size, n := binary.Varint(plain)
		var r kmsg.Record
		if err := r.ReadFrom(plain[:n+int(size)]); err != nil {
			t.Fatal(err)
		}
		plain = plain[n+int(size):]
		times = append(times, b.FirstTimestamp+r.TimestampDelta64)
		records = append(records, r)
	}
	return b, times, records
}

func TestStampMakesEveryRecordNow(t *testing.T) {
	deltas := map[string][]int64{
		"one record":          {0},
		"same millisecond":    {0, 0, 0},
		"a linger apart":      {0, 3, 9, 10},
		"backwards":           {0, -5, 2},
		"1970 and 2100":       {0, 4_102_444_800_000, -4_102_444_800_000},
		"the ends of time":    {0, 1<<63 - 1, -1 << 63},
		"first is not at now": {77},
	}
	for name, ds := range deltas {
		for c := codec(0); c <= codecZstd; c++ {
			in := makeBatch(t, c, 1000, ds...)
			_, _, before := readBatch(t, bytes.Clone(in))
			out, did := stamp(bytes.Clone(in), appendMillis)
			b, times, after := readBatch(t, out)
			if b.MaxTimestamp != appendMillis || b.Attributes != int16(c) {
				t.Errorf("%s, codec %d: max timestamp %d, attributes %d", name, c, b.MaxTimestamp, b.Attributes)
			}
			for i, at := range times {
				if at != appendMillis {
					t.Errorf("%s, codec %d: record %d is at %d", name, c, i, at)
				}
			}
			if len(after) != len(ds) {
				t.Fatalf("%s, codec %d: %d records of %d", name, c, len(after), len(ds))
			}
			for i := range after {
				if !bytes.Equal(after[i].Value, before[i].Value) || after[i].OffsetDelta != before[i].OffsetDelta || string(after[i].Headers[0].Key) != "ce_id" {
					t.Errorf("%s, codec %d: record %d is not the one produced", name, c, i)
				}
			}
			flat := true
			for _, d := range ds {
				flat = flat && d == 0
			}
			if want := map[bool]change{true: stamped, false: rewritten}[flat]; did != want {
				t.Errorf("%s, codec %d: did %d, want %d", name, c, did, want)
			}
		}
	}
}

func TestStampKeepsProducerAndTransaction(t *testing.T) {
	in := makeBatch(t, 0, 1000, 0, 4)
	binary.BigEndian.PutUint16(in[atAttrs:], 0x10|appendTimeBit) // transactional, and the bit a client must not set
	binary.BigEndian.PutUint64(in[43:], 77)
	seal(in)
	out, _ := stamp(in, appendMillis)
	b, _, _ := readBatch(t, out)
	if b.Attributes != 0x10 || b.ProducerID != 77 {
		t.Errorf("attributes %#x, producer %d", b.Attributes, b.ProducerID)
	}
}

func TestStampLeavesDamageAlone(t *testing.T) {
	good := makeBatch(t, 0, 1000, 0, 4)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	old := bytes.Clone(good)
	old[atMagic] = 1
	for name, in := range map[string][]byte{
		"empty": {}, "short": good[:60], "cut": good[:len(good)-1], "long": append(bytes.Clone(good), 0),
		"flipped": flipped, "old format": old,
	} {
		out, did := stamp(bytes.Clone(in), appendMillis)
		if did != untouched || !bytes.Equal(in, out) {
			t.Errorf("%s: did %d", name, did)
		}
		unmark(out)
		if !bytes.Equal(in, out) {
			t.Errorf("%s: unmarked", name)
		}
	}
}

func TestStampBoundsDecompression(t *testing.T) {
	for c := codecGzip; c <= codecZstd; c++ {
		bomb, err := compress(c, make([]byte, maxPlainBytes+1))
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := decompress(c, bomb); err == nil {
			t.Errorf("codec %d: decompressed %d bytes", c, len(plain))
		}
		b := append(makeBatch(t, 0, 1000, 0)[:atRecords:atRecords], bomb...)
		b[atAttrs+1] = byte(c)
		binary.BigEndian.PutUint32(b[atLength:], uint32(len(b)-12))
		seal(b)
		out, did := stamp(bytes.Clone(b), appendMillis)
		if did != stamped || !bytes.Equal(out[atRecords:], b[atRecords:]) || !sound(out) {
			t.Errorf("codec %d: did %d", c, did)
		}
	}
}

func TestDecompressReadsJavaSnappy(t *testing.T) {
	block, err := compress(codecSnappy, []byte("hello "))
	if err != nil {
		t.Fatal(err)
	}
	src := append(append([]byte{}, xerial...), 0, 0, 0, 1, 0, 0, 0, 1)
	for range 2 {
		src = append(binary.BigEndian.AppendUint32(src, uint32(len(block))), block...)
	}
	got, err := decompress(codecSnappy, src)
	if err != nil || string(got) != "hello hello " {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := decompress(codecSnappy, src[:len(src)-1]); err == nil {
		t.Error("a cut block was read")
	}
}

func TestUnmark(t *testing.T) {
	b := makeBatch(t, 0, 1000, 0)
	b[atAttrs+1] |= appendTimeBit
	seal(b)
	unmark(b)
	if got, times, _ := readBatch(t, b); got.Attributes != 0 || times[0] != 1000 {
		t.Errorf("attributes %d, time %d", got.Attributes, times[0])
	}
}

// FuzzStamp: whatever a producer sends, no panic, bounded memory, and the
// result is either the same bytes or a sound batch at the new time that keeps
// its size unless it was compressed.
func FuzzStamp(f *testing.F) {
	for c := codec(0); c <= codecZstd; c++ {
		f.Add(makeBatch(f, c, 1000, 0, 5, -3))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) >= atRecords { // let the fuzzer past the checksum
			in = bytes.Clone(in)
			in[atMagic] = 2
			binary.BigEndian.PutUint32(in[atLength:], uint32(len(in)-12))
			seal(in)
		}
		out, did := stamp(bytes.Clone(in), appendMillis)
		if did == untouched {
			if !bytes.Equal(in, out) {
				t.Fatal("untouched batch changed")
			}
			return
		}
		if !sound(out) || int64(binary.BigEndian.Uint64(out[atMax:])) != appendMillis {
			t.Fatal("stamped batch is not sound")
		}
		if in[atAttrs+1]&codecBits == 0 && len(in) != len(out) {
			t.Fatalf("plain batch of %d bytes became %d", len(in), len(out))
		}
		again, did := stamp(bytes.Clone(out), appendMillis)
		if did != stamped || !bytes.Equal(out, again) {
			t.Fatal("a second stamp of the same time changed the batch")
		}
	})
}
