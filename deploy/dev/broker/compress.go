package broker

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A codec is the compression number of a batch's attributes.
type codec uint8

const (
	codecGzip codec = 1 + iota
	codecSnappy
	codecLZ4
	codecZstd
)

// maxPlainBytes is the most a batch may decompress to: what Spillway's
// clients read.
const maxPlainBytes = 16 << 20

var errTooLarge = errors.New("batch decompresses to more than 16 MiB")

// xerial is the beginning of snappy as Java frames it: 16 bytes, then blocks,
// each with its length.
var xerial = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

// decompress unpacks the records of a batch, within maxPlainBytes whatever
// the data claims.
func decompress(c codec, src []byte) ([]byte, error) {
	switch c {
	case codecGzip:
		r, err := gzip.NewReader(bytes.NewReader(src))
		if err != nil {
			return nil, err
		}
		return readAll(r)
	case codecSnappy:
		if len(src) > 16 && bytes.HasPrefix(src, xerial) {
			return decompressXerial(src[16:])
		}
		return decompressSnappy(nil, src)
	case codecLZ4:
		return readAll(lz4.NewReader(bytes.NewReader(src)))
	case codecZstd:
		return zstdDecoder.DecodeAll(src, nil)
	}
	return nil, fmt.Errorf("unknown codec %d", c)
}

func readAll(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxPlainBytes+1))
	if err == nil && len(b) > maxPlainBytes {
		err = errTooLarge
	}
	return b, err
}

// decompressSnappy appends one snappy block to dst. Its length stands in
// front and would be allocated unseen.
func decompressSnappy(dst, src []byte) ([]byte, error) {
	n, err := s2.DecodedLen(src)
	if err != nil {
		return nil, err
	}
	if n > maxPlainBytes-len(dst) {
		return nil, errTooLarge
	}
	block, err := s2.Decode(nil, src)
	if len(dst) == 0 {
		return block, err
	}
	return append(dst, block...), err
}

func decompressXerial(src []byte) (dst []byte, err error) {
	for len(src) > 0 {
		if len(src) < 4 {
			return nil, io.ErrUnexpectedEOF
		}
		n := int64(binary.BigEndian.Uint32(src))
		if src = src[4:]; n > int64(len(src)) {
			return nil, io.ErrUnexpectedEOF
		}
		if dst, err = decompressSnappy(dst, src[:n]); err != nil {
			return nil, err
		}
		src = src[n:]
	}
	return dst, nil
}

var zstdDecoder = newZstdDecoder()

func newZstdDecoder() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxPlainBytes))
	if err != nil {
		panic(fmt.Sprintf("zstd decoder options are constant, but: %v", err))
	}
	return d
}

// compressors are the client library's own, by codec.
var compressors = [...]kgo.Compressor{
	codecGzip:   newCompressor(kgo.GzipCompression()),
	codecSnappy: newCompressor(kgo.SnappyCompression()),
	codecLZ4:    newCompressor(kgo.Lz4Compression()),
	codecZstd:   newCompressor(kgo.ZstdCompression()),
}

func newCompressor(c kgo.CompressionCodec) kgo.Compressor {
	z, err := kgo.DefaultCompressor(c)
	if err != nil {
		panic(fmt.Sprintf("codecs are constant, but: %v", err))
	}
	return z
}

// compress packs records as decompress found them.
func compress(c codec, plain []byte) ([]byte, error) {
	var buf bytes.Buffer
	out, used := compressors[c].Compress(&buf, plain)
	if codec(used) != c {
		return nil, fmt.Errorf("compress with codec %d", c)
	}
	return out, nil
}
