package load

import (
	"bufio"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"
)

// tokensPerSecond is how fast an answer's tokens leave at speed 1.
const tokensPerSecond = 40

// A second copy is sent so much later than the first.
const (
	minRepeat = 100 * time.Millisecond
	maxRepeat = 1100 * time.Millisecond
)

// Noisy is the tenant that offers more than its limit.
const Noisy = "noisy"

// A TraceRow is one request of a trace.
type TraceRow struct {
	At        time.Duration // since the first row
	Context   int           // tokens of the prompt
	Generated int           // tokens of the answer
}

// ReadTrace reads a CSV with the columns TIMESTAMP, ContextTokens,
// GeneratedTokens, oldest first. Errors name the line.
func ReadTrace(r io.Reader) ([]TraceRow, error) {
	in := csv.NewReader(bufio.NewReader(r))
	in.FieldsPerRecord = 3
	if _, err := in.Read(); err != nil {
		return nil, fmt.Errorf("trace: header: %w", err)
	}
	var rows []TraceRow
	var first time.Time
	for {
		f, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("trace: %w", err)
		}
		line, _ := in.FieldPos(0)
		at, err := time.Parse("2006-01-02 15:04:05.9999999", f[0])
		if err != nil {
			return nil, fmt.Errorf("trace: line %d: %w", line, err)
		}
		if first.IsZero() {
			first = at
		}
		row := TraceRow{At: at.Sub(first)}
		if row.Context, err = strconv.Atoi(f[1]); err != nil {
			return nil, fmt.Errorf("trace: line %d: ContextTokens: %w", line, err)
		}
		if row.Generated, err = strconv.Atoi(f[2]); err != nil {
			return nil, fmt.Errorf("trace: line %d: GeneratedTokens: %w", line, err)
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("trace: no rows")
	}
	return rows, nil
}

// A Request is one row of the trace as it is offered: a channel on which the
// answer's tokens appear. Event seq of it is due at Start + seq × Every.
type Request struct {
	Index   int
	Tenant  string
	Channel string
	Start   time.Duration // when its first token is due, since the run's start
	Every   time.Duration // between tokens
	Events  int           // tokens within the run, and the Completed event if all were
	Tokens  int           // tokens within the run
	Context int           // tokens of its prompt
	Kafka   bool          // offered over Kafka with a foreign partitioner, not over HTTP
	Noisy   bool
}

// Due is when event seq is due, since the run's start.
func (r *Request) Due(seq int) time.Duration { return r.Start + time.Duration(seq)*r.Every }

// A Send is one thing a sender does at a time. Seq < 0 sends the malformed
// record ^Seq of the table in malformed.go.
type Send struct {
	At     time.Duration
	Req    int32
	Seq    int32
	Repeat bool // the second copy of an event
}

// A Plan is everything that will be offered, and so everything that must
// arrive. It is a pure function of its settings.
type Plan struct {
	Tenants  []string // quiet tenants, by rank
	Requests []Request
	HTTP     map[string][]Send // by tenant, by time
	Kafka    []Send            // by time
	Duration time.Duration

	Offered   int            // events, each counted once
	Repeats   int            // second copies
	Malformed map[string]int // by reason they must be dead with
}

// PlanConfig says what to make of a trace.
type PlanConfig struct {
	Trace     []TraceRow
	Speed     float64       // how many times faster than it was
	Tenants   int           // quiet tenants; the trace's requests go to them by 1/rank
	Duration  time.Duration // of the run; what is due later is not offered
	NoisyRate float64       // events a second of the tenant "noisy"; 0: it is silent
	Repeats   float64       // share of events sent twice
	Malformed float64       // malformed records as a share of events
	Kafka     float64       // share of events offered over Kafka
	Seed      uint64
	Run       string // names the run: tenants' channels and event ids begin with it
}

func (c PlanConfig) validate() error {
	switch {
	case c.Speed <= 0:
		return fmt.Errorf("speed must be > 0, got %g", c.Speed)
	case c.Tenants < 1 || c.Tenants > 1000:
		return fmt.Errorf("tenants must be 1 to 1000, got %d", c.Tenants)
	case c.Duration < time.Second || c.Duration > 24*time.Hour:
		return fmt.Errorf("duration must be 1s to 24h, got %s", c.Duration)
	case len(c.Trace) == 0:
		return fmt.Errorf("the trace has no rows")
	}
	return nil
}

// NewPlan lays out a run.
func NewPlan(c PlanConfig) (*Plan, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	p := &Plan{Duration: c.Duration, HTTP: map[string][]Send{}, Malformed: map[string]int{}}
	for i := range c.Tenants {
		p.Tenants = append(p.Tenants, fmt.Sprintf("load-%02d", i+1))
	}
	rnd := rand.New(rand.NewPCG(c.Seed, 1))
	p.addTrace(c, rnd)
	p.addNoisy(c)
	for i := range p.Requests {
		p.addSends(&p.Requests[i], c, rnd)
	}
	p.addMalformed(c, rnd)
	for _, sends := range p.HTTP {
		byTime(sends)
	}
	byTime(p.Kafka)
	return p, nil
}

func byTime(s []Send) {
	slices.SortStableFunc(s, func(a, b Send) int { return cmp.Compare(a.At, b.At) })
}

func (p *Plan) addTrace(c PlanConfig, rnd *rand.Rand) {
	cumulative := make([]float64, c.Tenants)
	sum := 0.0
	for i := range cumulative {
		sum += 1 / float64(i+1)
		cumulative[i] = sum
	}
	every := time.Duration(float64(time.Second) / (tokensPerSecond * c.Speed))
	kafka, all := 0, 0
	for _, row := range c.Trace {
		start := time.Duration(float64(row.At) / c.Speed)
		if start >= c.Duration {
			break
		}
		rank, _ := slices.BinarySearch(cumulative, rnd.Float64()*sum)
		r := Request{
			Index: len(p.Requests), Tenant: p.Tenants[min(rank, c.Tenants-1)], Start: start, Every: every, Context: row.Context,
			Tokens: min(row.Generated, int((c.Duration-start-1)/every)+1),
		}
		r.Channel = fmt.Sprintf("%s.req.%d", c.Run, r.Index)
		r.Events = r.Tokens
		if r.Tokens == row.Generated && r.Due(r.Tokens) < c.Duration {
			r.Events++ // Completed
		}
		all += r.Events
		if float64(kafka+r.Events/2) < c.Kafka*float64(all) {
			r.Kafka = true
			kafka += r.Events
		}
		p.Requests = append(p.Requests, r)
	}
}

func (p *Plan) addNoisy(c PlanConfig) {
	if c.NoisyRate <= 0 {
		return
	}
	every := time.Duration(float64(time.Second) / c.NoisyRate)
	n := int(c.Duration / every)
	p.Requests = append(p.Requests, Request{
		Index: len(p.Requests), Tenant: Noisy, Channel: c.Run + ".flood", Every: every, Events: n, Tokens: n, Noisy: true,
	})
}

// addSends adds the events of r, and second copies of some. The noisy tenant
// repeats nothing, so that its arithmetic is exact.
func (p *Plan) addSends(r *Request, c PlanConfig, rnd *rand.Rand) {
	sends := make([]Send, 0, r.Events+r.Events/16)
	for seq := range r.Events {
		s := Send{At: r.Due(seq), Req: int32(r.Index), Seq: int32(seq)}
		sends = append(sends, s)
		if !r.Noisy && rnd.Float64() < c.Repeats {
			s.At += minRepeat + time.Duration(rnd.Int64N(int64(maxRepeat-minRepeat)))
			s.Repeat = true
			sends = append(sends, s)
			p.Repeats++
		}
	}
	p.Offered += r.Events
	if r.Kafka {
		p.Kafka = append(p.Kafka, sends...)
		return
	}
	p.HTTP[r.Tenant] = append(p.HTTP[r.Tenant], sends...)
}

// addMalformed spreads malformed records over the run, each kind in turn.
func (p *Plan) addMalformed(c PlanConfig, rnd *rand.Rand) {
	n := int(c.Malformed * float64(p.Offered))
	for i := range n {
		kind := i % len(malformed)
		p.Kafka = append(p.Kafka, Send{At: time.Duration(rnd.Int64N(int64(c.Duration))), Req: int32(i), Seq: ^int32(kind)})
		p.Malformed[string(malformed[kind].reason)]++
	}
}
