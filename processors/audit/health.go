package audit

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spillway/spillway/processors/audit/table"
)

// The parts that can keep the sink from its work, a metric label.
const (
	partClickHouse = "clickhouse"
	partKafka      = "kafka"
)

// tablesOf is who waits for the tables; the others are readers, by name.
const tablesOf = "tables"

// sayAgain is how often a fault that lasts is logged again.
const sayAgain = time.Minute

// readAgain is when a fault in reading that was not met again is over: a
// partition that can be read and has nothing new gives no sign.
const readAgain = 30 * time.Second

// watchEvery is how often faults that are over are looked for.
const watchEvery = 10 * time.Second

// health is what keeps the sink from its work now. Each fault is logged when
// its reason changes and then once a minute, however often it is tried again,
// and its end once. Safe for concurrent use.
type health struct {
	cfg *Config
	m   *metrics

	mu     sync.Mutex // guards:
	faults map[string]*fault
}

// A fault is what one who tries has met.
type fault struct {
	part, reason string
	err          error
	since, said  time.Time
	last         time.Time // met
}

func newHealth(cfg *Config, m *metrics) *health {
	first := &fault{part: partClickHouse, reason: "not_asked", since: cfg.Now(), err: errors.New("ClickHouse has not answered yet; auditing catches up from the topics when it does")}
	for _, r := range table.Reasons() { // series that are there from the start
		m.faults.WithLabelValues(partClickHouse, string(r))
	}
	for _, r := range kafkaReasons {
		m.faults.WithLabelValues(partKafka, r)
	}
	m.faults.WithLabelValues(first.part, first.reason).Set(1)
	return &health{cfg: cfg, m: m, faults: map[string]*fault{tablesOf: first}}
}

// bad says that who could not do its work, for a reason that is a metric label.
func (h *health) bad(who, part, reason string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.cfg.Now()
	h.m.failures.WithLabelValues(part, reason).Inc()
	f := h.faults[who]
	if f == nil || f.reason != reason || f.part != part {
		h.drop(who)
		f = &fault{part: part, reason: reason, since: now, said: h.lastSaid(part, reason)}
		h.faults[who] = f
		h.m.faults.WithLabelValues(part, reason).Set(1)
	}
	f.err, f.last = err, now
	if now.Sub(f.said) < sayAgain {
		return
	}
	for _, other := range h.faults {
		if other.part == part && other.reason == reason {
			other.said = now // one line for all who met it
		}
	}
	h.cfg.Logger.Warn("the audit cannot go on now; it tries again", "part", part, "reason", reason, "err", err)
}

func (h *health) lastSaid(part, reason string) (at time.Time) {
	for _, f := range h.faults {
		if f.part == part && f.reason == reason && f.said.After(at) {
			at = f.said
		}
	}
	return at
}

// good says that who does its work.
func (h *health) good(who string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over(who)
}

func (h *health) over(who string) {
	f := h.drop(who)
	if f != nil && !f.said.IsZero() && h.lastSaid(f.part, f.reason).IsZero() {
		h.cfg.Logger.Info("the audit goes on", "part", f.part, "reason", f.reason, "after", h.cfg.Now().Sub(f.since).Round(time.Millisecond))
	}
}

func (h *health) drop(who string) *fault {
	f := h.faults[who]
	if f == nil {
		return nil
	}
	delete(h.faults, who)
	for _, other := range h.faults {
		if other.part == f.part && other.reason == f.reason {
			return f
		}
	}
	h.m.faults.WithLabelValues(f.part, f.reason).Set(0)
	return f
}

// watch ends faults in reading that are over, until ctx ends, whoever asks.
func (h *health) watch(ctx context.Context) error {
	for wait(ctx, watchEvery) == nil {
		h.mu.Lock()
		h.expire()
		h.mu.Unlock()
	}
	return nil
}

// expire: the caller holds mu.
func (h *health) expire() {
	for who, f := range h.faults {
		if f.part == partKafka && h.cfg.Now().Sub(f.last) > readAgain {
			h.over(who)
		}
	}
}

// ready tells each fault once.
func (h *health) ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expire()
	var texts []string
	for _, f := range h.faults {
		texts = append(texts, f.err.Error())
	}
	if len(texts) == 0 {
		return nil
	}
	slices.Sort(texts)
	return errors.New(strings.Join(slices.Compact(texts), "; "))
}
