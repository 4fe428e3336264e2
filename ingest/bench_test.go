package ingest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/spillway/spillway/ingest/binding"
)

// discard is a ResponseWriter that remembers the status alone.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

const delta = `{"specversion":"1.0","id":"req-123-456-%d","source":"/load","type":"ai.inference.TokenDelta","subject":"chat.123","time":"2026-01-02T03:04:05.678Z","data":{"request_id":"req-123-456","seq":17,"text":" token"}}`

func benchBody(n int) (contentType, body string) {
	events := make([]string, n)
	for i := range events {
		events[i] = fmt.Sprintf(delta, i)
	}
	if n == 1 {
		return binding.TypeStructured, events[0]
	}
	return binding.TypeBatch, "[" + strings.Join(events, ",") + "]"
}

// BenchmarkBuild is what ingest itself does with a request: token, parsing,
// Avro, headers, checks; no HTTP server and no Kafka.
func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{1, 20} {
		b.Run(fmt.Sprintf("events=%d", n), func(b *testing.B) {
			s := start(b, nil)
			defer s.stop()
			contentType, body := benchBody(n)
			r := httptest.NewRequest(http.MethodPost, Path, nil)
			r.Header.Set("Authorization", "Bearer "+s.producer("acme"))
			r.Header.Set("Content-Type", contentType)
			r.ContentLength = int64(len(body))
			b.ReportAllocs()
			for b.Loop() {
				r.Body = io.NopCloser(strings.NewReader(body))
				if _, refused := prepare(s.in, r); refused != nil {
					b.Fatal(refused.Message)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/event")
		})
	}
}

// BenchmarkServe is a request from socket to acknowledgement and back, the
// embedded broker's work and the client's included, 64 at a time.
func BenchmarkServe(b *testing.B) {
	for _, n := range []int{1, 20} {
		b.Run(fmt.Sprintf("events=%d", n), func(b *testing.B) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			s := start(b, func(c *Config) { c.Listener = listener })
			defer s.stop()
			for s.in.Ready() != nil {
				<-time.After(time.Millisecond)
			}
			contentType, body := benchBody(n)
			bearer := "Bearer " + s.producer("acme")
			transport := &http.Transport{MaxIdleConnsPerHost: 64}
			defer transport.CloseIdleConnections()
			url := "http://" + listener.Addr().String() + Path
			b.SetParallelism(32)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
					if err != nil {
						b.Error(err)
						return
					}
					r.Header.Set("Authorization", bearer)
					r.Header.Set("Content-Type", contentType)
					resp, err := transport.RoundTrip(r)
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					if resp.StatusCode != http.StatusAccepted {
						b.Error(resp.Status)
						return
					}
				}
			})
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/event")
		})
	}
}

// BenchmarkHandler is the handler with the producer and the broker, without
// the HTTP server, 64 requests at a time.
func BenchmarkHandler(b *testing.B) {
	for _, n := range []int{1, 20} {
		b.Run(fmt.Sprintf("events=%d", n), func(b *testing.B) {
			s := start(b, nil)
			defer s.stop()
			for s.in.Ready() != nil {
				<-time.After(time.Millisecond)
			}
			contentType, body := benchBody(n)
			bearer := "Bearer " + s.producer("acme")
			handler := s.in.Handler()
			b.SetParallelism(32)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				r := httptest.NewRequest(http.MethodPost, Path, nil)
				r.Header.Set("Authorization", bearer)
				r.Header.Set("Content-Type", contentType)
				r.ContentLength = int64(len(body))
				w := &discard{header: http.Header{}}
				for pb.Next() {
					r.Body = io.NopCloser(strings.NewReader(body))
					handler.ServeHTTP(w, r)
					if w.status != http.StatusAccepted {
						b.Error(w.status)
						return
					}
				}
			})
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/event")
		})
	}
}
