package fanout

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/fanout/tail"
	"github.com/spillway/spillway/schemas"
)

// warmOffsets is how far before its end a partition is read when its first
// client comes, so that those who come back after a restart find the tail.
const warmOffsets = 2000

// warmBytes is about how much of that is kept at most, warmLeast how many
// offsets at least: events of a megabyte must not fill the memory, nor the time
// that opening has.
const (
	warmBytes = 16 << 20
	warmLeast = 64
)

// fetchWait is how long the broker holds a fetch when nothing is new. What is
// new is answered at once; the wait only bounds how soon a partition that was
// just added takes part.
const fetchWait = 250 * time.Millisecond

// A source reads those partitions of fanout.<region> that have clients, all
// with one consumer, and appends them to their tails.
//
//	acquire ─▶ opening ─▶ open ─▶ idle (no client) ─▶ closed
//	              │         ▲         │ keepWarm
//	              ▼         └─────────┘ acquire
//	            failed: the next acquire tries again
type source struct {
	cl     *kgo.Client
	reader *reader
	set    *tail.Set
	topic  string
	logger *slog.Logger
	now    func() time.Time
	m      *metrics

	mu    sync.Mutex // guards:
	parts map[int32]*partition
	log   topicID // of the topic that is read; zero: none was yet
	lost  bool    // reads fail as of a topic that is no more
	fault fault

	opening sync.WaitGroup
}

// A partition is one that is read, or will be.
type partition struct {
	id     int32
	opened chan struct{} // closed when tail or err is set

	err  error // why it could not be opened
	tail *tail.Tail
	bare bool // there was no record, but there have been some

	refs  int       // clients; guarded by source.mu
	since time.Time // when the last one left; guarded by source.mu

	mending atomic.Bool // an error that stops its reading is seen to

	mu      sync.Mutex // guards; taken after source.mu:
	next    int64      // offset to come
	reading bool       // the consumer was told to read it
	closed  bool
	batch   []tail.Record // scratch
}

func newSource(cfg *Config, cl *kgo.Client, r *reader, set *tail.Set, m *metrics) *source {
	return &source{
		cl: cl, reader: r, set: set, topic: cfg.Topics.Fanout(cfg.Region), logger: cfg.Logger, now: cfg.Now, m: m,
		parts: make(map[int32]*partition),
	}
}

// acquire returns a partition that is being read, and starts to read it if
// need be. Each needs a release.
func (s *source) acquire(ctx context.Context, id int32) (*partition, error) {
	s.mu.Lock()
	p := s.parts[id]
	if p == nil {
		p = &partition{id: id, opened: make(chan struct{})}
		s.parts[id] = p
		s.opening.Go(func() { s.open(p) })
	}
	p.refs++
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	select {
	case <-p.opened:
	case <-ctx.Done():
		s.release(p)
		return nil, fmt.Errorf("open partition %d: %w", id, ctx.Err())
	}
	if p.err != nil {
		s.release(p)
		return nil, p.err
	}
	return p, nil
}

func (s *source) release(p *partition) {
	s.mu.Lock()
	p.refs--
	p.since = s.now()
	s.mu.Unlock()
}

// open is for whoever waits by now, so no client's end cuts it short.
func (s *source) open(p *partition) {
	ctx, cancel := context.WithTimeout(context.Background(), kafkaTimeout)
	defer cancel()
	defer close(p.opened)
	log, err := s.warm(ctx, p)
	s.report(err)
	if err != nil {
		p.err = fmt.Errorf("open partition %d of %s: %w", p.id, s.topic, err)
		s.mu.Lock()
		delete(s.parts, p.id)
		s.mu.Unlock()
		return
	}
	s.mu.Lock() // else what is made anew now would not know of it
	defer s.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reading = true; s.log != log { // what was warmed is of a topic that is no more
		p.tail.Break()
		p.next = 0
	}
	s.consume(p.id, p.next)
}

func (s *source) consume(id int32, offset int64) {
	s.cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{s.topic: {id: kgo.NewOffset().At(offset)}})
}

// warm fills the tail with the newest records, finds the end of the log, and
// says which log it is.
func (s *source) warm(ctx context.Context, p *partition) (log topicID, err error) {
	epoch, err := s.reader.epoch(ctx, p.id)
	if err != nil {
		return log, err
	}
	if log, err = s.reading(ctx, p.id); err != nil {
		return log, err
	}
	start, end, err := s.reader.bounds(ctx, p.id)
	if err != nil {
		return log, err
	}
	var records []tail.Record
	p.next = end
	for back := int64(warmOffsets); ; back *= 8 {
		from := max(start, end-back)
		if records, p.next, err = s.readTo(ctx, p.id, from, end); err != nil {
			return log, err
		}
		if len(records) > 0 || from == start {
			break
		}
	}
	if len(records) == 0 {
		p.bare = start > 0
		p.tail = s.set.Open(p.id, epoch, -1)
		p.tail.Break() // whoever comes with a place has it from elsewhere
		return log, nil
	}
	first := &records[0]
	p.tail = s.set.Open(p.id, first.Epoch, first.Cursor-1)
	s.append(p, records)
	if p.tail.Head().Epoch != epoch { // `events` was made anew and has nothing yet
		p.tail.Reset(epoch, -1)
	}
	return log, nil
}

// readTo reads up to end: what is behind the last batch that cannot be decoded,
// and only the newest part of it where events are large.
func (s *source) readTo(ctx context.Context, id int32, from, end int64) (all []tail.Record, next int64, err error) {
	var size int64
	for next = from; next < end; {
		c, err := s.reader.fetch(ctx, id, next, 1<<20)
		if err != nil {
			return nil, 0, err
		}
		if c.hole > 0 {
			all, size, from = nil, 0, next
		}
		all = append(all, c.records...)
		for i := range c.records {
			size += int64(len(c.records[i].JSON))
		}
		if c.next <= next {
			break // what follows is not committed yet
		}
		next = c.next
		if fit := max(warmLeast, (next-from)*warmBytes/max(size, 1)); end-next > fit {
			all, size, next = nil, 0, end-fit
			from = next
		}
	}
	return all, next, nil
}

// run polls until ctx ends.
func (s *source) run(ctx context.Context) {
	for {
		poll, cancel := context.WithTimeout(ctx, pollFor)
		fetches := s.cl.PollFetches(poll)
		cancel()
		if ctx.Err() != nil || fetches.IsClientClosed() {
			s.opening.Wait()
			return
		}
		failed := false
		fetches.EachError(func(topic string, id int32, err error) { failed = s.failed(ctx, topic, id, err) || failed })
		fetches.EachPartition(s.take)
		s.remake(ctx)
		if failed { // the client asks again at once, however often
			pause(ctx, failedFor)
		}
	}
}

func (s *source) take(ftp kgo.FetchTopicPartition) {
	if len(ftp.Records) == 0 {
		return
	}
	s.mu.Lock()
	p := s.parts[ftp.Partition]
	s.lost = false
	s.fault.over()
	s.mu.Unlock()
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || !p.reading { // read for one that was closed
		return
	}
	seen := s.now().UnixMicro()
	batch := p.batch[:0]
	for _, rec := range ftp.Records {
		if rec.Offset < p.next {
			continue
		}
		p.next = rec.Offset + 1
		r, err := s.reader.names.record(rec)
		if err != nil {
			s.m.skipped.WithLabelValues(string(schemas.Malformed)).Inc()
			continue
		}
		r.Seen = seen
		batch = append(batch, r)
	}
	s.append(p, batch)
	clear(batch)
	p.batch = batch[:0]
}

func (s *source) append(p *partition, batch []tail.Record) {
	skipped := p.tail.Append(batch)
	s.m.events.Add(float64(len(batch) - skipped))
	if skipped > 0 {
		s.m.skipped.WithLabelValues(string(schemas.Duplicate)).Add(float64(skipped))
	}
}

// sweep stops reading partitions that have had no client for a while.
func (s *source) sweep(now time.Time) {
	s.mu.Lock()
	var idle []*partition
	for id, p := range s.parts {
		select {
		case <-p.opened:
		default:
			continue
		}
		if p.refs == 0 && now.Sub(p.since) >= keepWarm {
			idle = append(idle, p)
			delete(s.parts, id)
			p.mu.Lock()
			p.closed = true
			p.mu.Unlock()
			s.cl.RemoveConsumePartitions(map[string][]int32{s.topic: {id}}) // before anyone opens it again
		}
	}
	s.mu.Unlock()
	for _, p := range idle {
		p.mu.Lock()
		s.set.Close(p.tail)
		p.mu.Unlock()
	}
}

// events is how many events the tails hold.
func (s *source) events() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, p := range s.parts {
		select {
		case <-p.opened:
			if p.tail != nil {
				n += p.tail.Events()
			}
		default:
		}
	}
	return float64(n)
}
