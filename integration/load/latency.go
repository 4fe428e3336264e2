package load

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// latencies is a histogram from the time an event was due to the time it
// reached a socket. Measuring from when it was due, not from when it was sent,
// corrects for coordinated omission: a sender that is held up counts too.
type latencies struct {
	mu sync.Mutex
	h  *hdrhistogram.Histogram
}

// longest is what the histogram can hold; later ones count as that.
const longest = 10 * time.Minute

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.h == nil {
		l.h = hdrhistogram.New(1, longest.Microseconds(), 3)
	}
	_ = l.h.RecordValue(min(max(d, time.Microsecond), longest).Microseconds()) // in range by construction
}

// Percentiles of a latency, in milliseconds.
type Percentiles struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50_ms"`
	P99   float64 `json:"p99_ms"`
	P999  float64 `json:"p999_ms"`
	Max   float64 `json:"max_ms"`
}

// Percentiles sums up what was added.
func (l *latencies) Percentiles() Percentiles {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.h == nil {
		return Percentiles{}
	}
	ms := func(q float64) float64 { return float64(l.h.ValueAtQuantile(q)) / 1000 }
	return Percentiles{Count: l.h.TotalCount(), P50: ms(50), P99: ms(99), P999: ms(99.9), Max: float64(l.h.Max()) / 1000}
}
