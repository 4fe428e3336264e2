package server

import (
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"strings"

	chcompress "github.com/ClickHouse/ch-go/compress"
	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// decoder undoes one HTTP Content-Encoding. It holds no more than a window of
// the data, however far it expands.
func decoder(encoding string, r io.Reader) (io.Reader, error) {
	var out io.Reader
	var err error
	switch strings.ToLower(encoding) {
	case "", "identity":
		return r, nil
	case "gzip":
		out, err = gzip.NewReader(r)
	case "deflate":
		out, err = zlib.NewReader(r)
	case "br":
		return brotli.NewReader(r), nil
	case "zstd":
		out, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
	default:
		return nil, newException(codeNotImplemented, "NOT_IMPLEMENTED",
			"Content-Encoding "+encoding+" is not supported, only gzip, deflate, br and zstd")
	}
	if err != nil {
		return nil, readFault(err)
	}
	return out, nil
}

// encodings this server answers in, best first.
var encodings = []string{"zstd", "gzip", "deflate", "br"}

// chooseEncoding picks one the client accepts; "" for none. Weights are not
// looked at, as ClickHouse does not.
func chooseEncoding(accept string) string {
	for _, e := range encodings {
		for offered := range strings.SplitSeq(accept, ",") {
			name, _, _ := strings.Cut(offered, ";")
			if strings.EqualFold(strings.TrimSpace(name), e) {
				return e
			}
		}
	}
	return ""
}

// encoder applies one of encodings, at a level that costs little.
func encoder(encoding string, w io.Writer) (io.WriteCloser, error) {
	switch encoding {
	case "zstd":
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	case "gzip":
		return gzip.NewWriterLevel(w, gzip.BestSpeed)
	case "deflate":
		return zlib.NewWriterLevel(w, zlib.BestSpeed)
	case "br":
		return brotli.NewWriterLevel(w, brotli.BestSpeed), nil
	}
	return nil, errors.New("no encoder for " + encoding)
}

// blockReader reads ClickHouse's compressed blocks (checksum, method, sizes,
// data). The library reports the end of the body and a cut-off block with the
// same io.EOF inside; only the former comes before any byte of a block.
type blockReader struct {
	blocks *chcompress.Reader
	src    *countingReader
}

func newBlockReader(r io.Reader) *blockReader {
	src := &countingReader{r: r}
	return &blockReader{chcompress.NewReader(src), src}
}

func (b *blockReader) Read(p []byte) (int, error) {
	b.src.n = 0
	n, err := b.blocks.Read(p)
	switch {
	case err == nil:
		return n, nil
	case b.src.n == 0 && errors.Is(err, io.EOF):
		return 0, io.EOF
	default:
		return 0, readFault(err)
	}
}

type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// blockWriter frames what is written to it as ClickHouse's compressed blocks.
type blockWriter struct {
	w      io.Writer
	blocks *chcompress.Writer
}

// blockBytes is the largest block sent: ClickHouse's max_compress_block_size.
const blockBytes = 1 << 20

func newBlockWriter(w io.Writer, method string) *blockWriter {
	m := chcompress.LZ4
	switch method {
	case "ZSTD":
		m = chcompress.ZSTD
	case "NONE":
		m = chcompress.None
	}
	return &blockWriter{w, chcompress.NewWriter(chcompress.LevelZero, m)}
}

func (b *blockWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), blockBytes)
		if err := b.blocks.Compress(rest[:n]); err != nil {
			return 0, err
		}
		if _, err := b.w.Write(b.blocks.Data); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(p), nil
}
