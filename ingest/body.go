package ingest

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spillway/spillway/ingest/binding"
	"github.com/spillway/spillway/schemas"
)

// Bounds of a request.
const (
	MaxBatchBytes  = schemas.MaxClientBatch                    // body of a batch, decompressed
	MaxEventBytes  = schemas.MaxEvent*4/3 + schemas.MaxHeaders // body of a structured event, whose data may be base64
	MaxBatchEvents = 4096
	readChunk      = 32 << 10 // bytes taken from the budget at a time while the length is not known
)

func maxBody(m binding.Mode) int64 {
	switch m {
	case binding.Batched:
		return MaxBatchBytes
	case binding.Structured:
		return MaxEventBytes
	}
	return schemas.MaxEvent
}

// readBody reads the whole body into buf, within limit and the budget. What it
// will become on its way to Kafka is as large again, so twice its size is taken.
func readBody(buf *buffer, r *http.Request, limit int64, h *hold) *binding.Refusal {
	if r.ContentLength > limit {
		return bodyTooLarge(limit)
	}
	src, refused := plainBody(r)
	if refused != nil {
		return refused
	}
	if n := r.ContentLength; n >= 0 && src == r.Body {
		if !h.takeBytes(2 * n) {
			return overloaded()
		}
		return readExactly(buf, src, int(n))
	}
	buf.b = buf.b[:0]
	for taken := int64(0); ; {
		if int64(len(buf.b)) == taken {
			if !h.takeBytes(2 * readChunk) {
				return overloaded()
			}
			taken += readChunk
		}
		if len(buf.b) == cap(buf.b) {
			buf.b = append(buf.b, 0)[:len(buf.b)]
		}
		n, err := src.Read(buf.b[len(buf.b):min(int64(cap(buf.b)), taken)])
		buf.b = buf.b[:len(buf.b)+n]
		switch {
		case int64(len(buf.b)) > limit:
			return bodyTooLarge(limit)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return bodyBroken(err)
		}
	}
}

func readExactly(buf *buffer, src io.Reader, n int) *binding.Refusal {
	if cap(buf.b) < n {
		buf.b = make([]byte, n)
	}
	buf.b = buf.b[:n]
	if _, err := io.ReadFull(src, buf.b); err != nil {
		return bodyBroken(err)
	}
	return nil
}

// plainBody is the body without its content coding.
func plainBody(r *http.Request) (io.Reader, *binding.Refusal) {
	switch coding := strings.ToLower(r.Header.Get("Content-Encoding")); coding {
	case "", "identity":
		return r.Body, nil
	case "gzip":
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, bodyBroken(err)
		}
		return z, nil
	default:
		return nil, binding.Refuse(schemas.ContentTypeUnsupport, "", "content coding %q is not taken", binding.Clip(coding)).WithFix("send gzip, or none")
	}
}

func bodyTooLarge(limit int64) *binding.Refusal {
	r := binding.Refuse(schemas.TooLarge, "", "the body has more than %d bytes", limit)
	if limit != MaxBatchBytes {
		return r.WithFix("put references to large things into events, not the things")
	}
	return r.WithFix("send smaller batches")
}

func bodyBroken(err error) *binding.Refusal {
	return binding.Refuse(schemas.Malformed, "", "the body cannot be read: %v", binding.Clip(err.Error()))
}

func overloaded() *binding.Refusal {
	return unavailable(schemas.Overloaded, time.Second, "this node has as much in flight as it may have").WithFix("send it again, with the same id")
}
