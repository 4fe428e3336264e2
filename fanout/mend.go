package fanout

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// What is done about a partition that the consumer does not go on with by
// itself. Subscribers see that their place is lost, and are told.
//
//	offset out of range ─▶ reopen: at what is there now
//	cannot be decoded ───▶ skip:   behind that batch, if it is wrong on another connection too
//	records lost ────────▶ take what comes in their place

// failed is told of each partition that could not be read.
func (s *source) failed(ctx context.Context, topic string, id int32, err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return false // the poll's own
	}
	s.report(fmt.Errorf("read %s/%d: %w", topic, id, err))
	s.mu.Lock()
	if reasonOf(err) == topicGone {
		s.lost = true
	}
	p := s.parts[id]
	s.mu.Unlock()
	if p == nil || topic != s.topic {
		return true
	}
	var code *kerr.Error
	var loss *kgo.ErrDataLoss
	switch {
	case errors.Is(err, kerr.OffsetOutOfRange):
		s.mend(ctx, p, s.reopen)
	case errors.As(err, &loss):
		p.goBack(loss.ResetTo)
	case !errors.As(err, &code) && !errors.Is(err, context.Canceled) && !errors.Is(err, kgo.ErrClientClosed):
		s.mend(ctx, p, s.skip)
	}
	return true
}

// goBack takes records from an offset on that had been read before: others
// stand there now. What is the same after all is told by its cursor.
func (p *partition) goBack(offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = min(p.next, offset)
}

// mend does heal until it works, once at a time for a partition.
func (s *source) mend(ctx context.Context, p *partition, heal func(context.Context, *partition) error) {
	if !p.mending.CompareAndSwap(false, true) {
		return
	}
	s.opening.Go(func() {
		defer p.mending.Store(false)
		select {
		case <-p.opened:
		case <-ctx.Done():
		}
		for ctx.Err() == nil && p.read() {
			try, cancel := context.WithTimeout(ctx, kafkaTimeout)
			err := heal(try, p)
			cancel()
			if s.report(err); err == nil {
				return
			}
			pause(ctx, mendFor)
		}
	})
}

// read reports whether p is being read, or should be.
func (p *partition) read() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reading && !p.closed
}

// reopen goes on at the oldest record there is: retention has passed us, or the
// log was cut.
func (s *source) reopen(ctx context.Context, p *partition) error {
	start, end, err := s.reader.bounds(ctx, p.id)
	if err != nil {
		return err
	}
	found, at, err := s.reader.probe(ctx, p.id, start, min(end, start+warmOffsets))
	if err != nil {
		return err
	}
	if at == (schemas.Cursor{}) { // the log is empty, or begins with markers
		found = start
	}
	s.restart(p, found, at)
	return nil
}

// restart goes on at an offset. first is the cursor there, zero if nobody knows
// yet.
func (s *source) restart(p *partition, offset int64, first schemas.Cursor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return
	case first == schemas.Cursor{}:
		p.tail.Break()
	case first != p.tail.Head():
		p.tail.Reset(first.Epoch, first.Offset-1)
	}
	p.next = offset
	s.cl.RemoveConsumePartitions(map[string][]int32{s.topic: {p.id}})
	s.consume(p.id, offset)
}

// skip goes on behind the batch that the consumer could not decode. Only one
// that cannot be decoded on another connection either, twice, is skipped.
func (s *source) skip(ctx context.Context, p *partition) error {
	p.mu.Lock()
	at := p.next
	p.mu.Unlock()
	c, err := s.reader.fetch(ctx, p.id, at, chunkBytes)
	switch {
	case errors.Is(err, errPassed):
		return s.reopen(ctx, p)
	case err != nil:
		return err
	case c.hole == 0: // good now, or good ones come first: the consumer has them, or reads on there
		s.retry(p, at)
		return nil
	}
	p.mu.Lock()
	moved := p.next != at
	p.mu.Unlock()
	if moved {
		return errMoved
	}
	s.m.skipped.WithLabelValues(string(schemas.UndecodableBatch)).Add(float64(c.hole))
	s.logger.Error("a batch cannot be decoded and is skipped; subscribers are told a gap", "topic", s.topic, "partition", p.id, "offset", at, "next", c.next)
	s.restart(p, c.next, schemas.Cursor{})
	return nil
}

var errMoved = errors.New("what can be decoded was read meanwhile")

// retry lets the consumer read again from an offset, if nothing came meanwhile.
func (s *source) retry(p *partition, offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.next != offset {
		return
	}
	s.cl.RemoveConsumePartitions(map[string][]int32{s.topic: {p.id}})
	s.consume(p.id, offset)
}
