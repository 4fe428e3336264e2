package route

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/processors/route/entry"
	"github.com/spillway/spillway/schemas"
)

// cycle decides about what one poll gave and commits it. An error means that
// the client must be replaced.
func (s *session) cycle(ctx context.Context, fetches kgo.Fetches) error {
	now := s.cfg.Now()
	if err := s.takeAssignments(now); err != nil {
		return err
	}
	skips, err := s.pollErrors(ctx, fetches)
	if err != nil {
		return err
	}
	s.clean(now)
	if fetches.NumRecords() == 0 && len(skips) == 0 {
		return s.idle(ctx)
	}
	if err := s.holdsAll(fetches, skips); err != nil {
		return err
	}
	s.tenants.at(now)
	s.schemas.at(now)
	if err := s.gts.Begin(); err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	s.begun.Store(now.UnixMilli())
	defer s.begun.Store(0)
	s.learn(ctx, fetches)
	fetches.EachPartition(func(f kgo.FetchTopicPartition) { s.decideAll(f.Partition, f.Records) })
	for _, skip := range skips {
		s.skip(skip)
	}
	s.remember()
	return s.end(ctx, now)
}

// idle ends the session's memory of a revocation: without that the next
// transaction would be aborted for a rebalance that is long over.
func (s *session) idle(ctx context.Context) error {
	s.unwritten.Store(nil) // what it said has gone to another session
	if !s.revoked.Swap(false) {
		return nil
	}
	_, err := s.gts.End(ctx, kgo.TryAbort)
	return err
}

// pollErrors returns the batches that must be skipped, and says what else is
// wrong. An error means that the client's position cannot be trusted.
func (s *session) pollErrors(ctx context.Context, fetches kgo.Fetches) (skips []span, lost error) {
	var problem error
	fetches.EachError(func(topic string, partition int32, err error) {
		var tooLarge *kgo.ErrDecompressTooLarge
		var loss *kgo.ErrDataLoss
		var code *kerr.Error
		switch {
		case errors.As(err, &tooLarge):
			skips = append(skips, span{partition, tooLarge.Offset, tooLarge.NextOffset, tooLarge.Epoch,
				fmt.Sprintf("decompress to more than %d bytes", schemas.MaxClientBatch)})
			return
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, kgo.ErrClientClosed):
			return
		case errors.As(err, &loss):
			lost = err
		case errors.Is(err, kerr.OffsetOutOfRange), errors.Is(err, kerr.UnknownTopicID):
			s.stopped(ctx, partition, err)
			return
		case topic != "" && !errors.As(err, &code):
			if bad, ok := s.corrupt(ctx, partition, err); ok {
				skips = append(skips, bad)
				return
			}
		}
		problem = fmt.Errorf("partition %d of %s cannot be read: %w", partition, topic, err)
	})
	if problem == nil {
		s.problem.Store(nil)
		return skips, lost
	}
	if p := s.problem.Load(); p == nil || *p != problem.Error() {
		s.log.Error("events cannot be read", "err", problem)
	}
	s.say(problem.Error())
	return skips, lost
}

// learn asks the registry about schema ids that were never met.
func (s *session) learn(ctx context.Context, fetches kgo.Fetches) {
	fetches.EachRecord(func(r *kgo.Record) { s.schemas.miss(r.Value) })
	if waited := s.schemas.learn(ctx, s.cfg.Now); waited > 0 {
		s.metrics.registryWait.Observe(waited.Seconds())
	}
}

// holdsAll is an error if there is a partition to decide on whose state is not
// in memory: nothing may be decided without it.
func (s *session) holdsAll(fetches kgo.Fetches, skips []span) (missing error) {
	check := func(number int32) {
		if s.parts[number] == nil {
			missing = fmt.Errorf("partition %d: its state is not in memory", number)
		}
	}
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		if len(f.Records) > 0 {
			check(f.Partition)
		}
	})
	for _, skip := range skips {
		check(skip.partition)
	}
	return missing
}

// open is the state of a partition, with a transaction under way.
func (s *session) open(number int32) *partition {
	p := s.parts[number] // there: see holdsAll
	if !p.open {
		p.open, p.after = true, p.reached
		p.state.Begin()
	}
	return p
}

// decideAll walks the records of one partition down the line and writes what
// was decided.
func (s *session) decideAll(number int32, records []*kgo.Record) {
	if len(records) == 0 {
		return
	}
	p := s.open(number)
	for _, r := range records {
		if r.Offset < p.after {
			s.metrics.repeated.Inc() // decided and committed before: never again
			continue
		}
		s.decide(p, r)
		p.after = r.Offset + 1
	}
}

func (s *session) decide(p *partition, r *kgo.Record) {
	if entry.Read(&s.ev, s.topic, r, s.cfg.Secrets.SecretKey) {
		s.counts.forged++
	}
	d := s.line.Walk(&s.ev, p.state)
	if len(s.tooLarge) > 0 && s.tooLarge[placeOf{r.Partition, r.Offset}] {
		d = processors.Decision{Verdict: processors.Dead, Reason: schemas.TooLarge, Step: "valid", Detail: "Kafka refuses the record for its size"}
	}
	s.counts.add(d)
	s.counts.newest = max(s.counts.newest, s.ev.Appended)
	s.write(r, d)
}

// skip writes the place of a batch that cannot be decoded, and goes on behind
// it.
func (s *session) skip(b span) {
	p := s.open(b.partition)
	if b.next <= p.after {
		return
	}
	d := processors.Decision{Verdict: processors.Dead, Reason: schemas.UndecodableBatch, Step: "valid",
		Detail: fmt.Sprintf("offsets %d to %d of partition %d %s", b.offset, b.next-1, b.partition, b.why)}
	at := p.state.Appended() // of the last one that could be read: the log's time, not ours
	if at == 0 {
		at = s.cfg.Now().UnixMilli()
	}
	origin := schemas.Origin{Topic: s.topic, Partition: b.partition, Offset: b.offset, AcceptedAt: at}
	s.ev.Reset(origin, s.cfg.Topics.Events(), nil, nil)
	s.counts.add(d)
	s.write(&kgo.Record{Partition: b.partition, Offset: b.offset}, d)
	p.after = b.next
	s.gts.Client().SetOffsets(map[string]map[int32]kgo.EpochOffset{
		s.cfg.Topics.Events(): {b.partition: {Epoch: b.epoch, Offset: b.next}},
	})
}

// end commits the transaction, or takes it back.
//
// If we crash before End has answered, the next owner's OffsetFetch waits until
// the transaction is decided: outputs and offsets stand together, or neither.
//
// End waits for the group's next heartbeat, and a group that has lost its
// coordinator waits for us to allow it to begin anew: so after a while it may.
func (s *session) end(ctx context.Context, began time.Time) error {
	endCtx, cancel := drainContext(ctx)
	defer cancel()
	allow := time.AfterFunc(endAlone, s.gts.AllowRebalance)
	defer allow.Stop()
	try := kgo.TryCommit
	if err := s.pending.wait(); err != nil {
		s.log.Warn("a forward was not acknowledged, the batch is taken back", "err", err)
		s.takenBack("a forward was not acknowledged", err)
		s.metrics.aborts.WithLabelValues("forward").Inc()
		try = kgo.TryAbort
	}
	if try == kgo.TryCommit {
		if err := s.gts.Client().Flush(endCtx); err != nil {
			return fmt.Errorf("flush: %w", err)
		}
		if s.refused() {
			try = kgo.TryAbort
		}
	}
	if try == kgo.TryAbort && len(s.tooLarge) == 0 {
		s.again++
	}
	if try == kgo.TryCommit {
		endCtx = s.pointTo(endCtx)
	}
	committed, err := s.gts.End(endCtx, try)
	s.revoked.Store(false)
	switch {
	case err != nil:
		s.metrics.aborts.WithLabelValues("error").Inc()
		s.out.drop()
		s.counts.reset()
		return fmt.Errorf("end the transaction: %w", err)
	case !committed:
		if try == kgo.TryCommit {
			s.metrics.aborts.WithLabelValues("rebalance").Inc()
		}
		anew := s.madeAnew()
		s.out.drop()
		s.counts.reset()
		return errors.Join(s.settleAll(endCtx), anew)
	}
	s.commit(began)
	return nil
}

// commit: what the transaction said holds.
func (s *session) commit(began time.Time) {
	s.mu.Lock()
	for _, p := range s.parts {
		if p.open {
			p.hold()
			delete(s.accepted, p.number)
		}
	}
	s.noteHeld()
	s.mu.Unlock()
	s.proven, s.again = true, 0
	s.unwritten.Store(nil)
	clear(s.tooLarge)
	s.limit = min(2*s.limit, s.cfg.MaxBatch)
	s.metrics.committed(s, began)
	s.counts.reset()
	s.out.reuse()
}

// refused reports whether Kafka or its client refused a record, which makes
// the batch void. If that was for its size, the next batches are smaller, until
// one has a single event: that one is dead too_large in place of it.
func (s *session) refused() bool {
	failures := s.out.failures()
	if len(failures) == 0 {
		return false
	}
	for _, f := range failures {
		if !errors.Is(f.err, kerr.MessageTooLarge) && !errors.Is(f.err, kerr.RecordListTooLarge) {
			continue
		}
		if s.limit = max(1, s.counts.records/2); s.counts.records == 1 {
			s.tooLarge[f.of] = true
		}
	}
	s.log.Warn("records were refused, the batch is taken back", "records", len(failures), "topic", failures[0].record.Topic, "err", failures[0].err)
	s.takenBack("Kafka refuses records for "+failures[0].record.Topic, failures[0].err)
	s.metrics.aborts.WithLabelValues("produce").Inc()
	return true
}

// madeAnew is an error if a topic that was written to is another one now: the
// client knows topics by their id, and only a new one learns the new id.
func (s *session) madeAnew() error {
	for _, f := range s.out.failures() {
		if errors.Is(f.err, kerr.UnknownTopicID) {
			return fmt.Errorf("%s was deleted and made anew: %w", f.record.Topic, f.err)
		}
	}
	return nil
}

// breathe waits after batches that were taken back, longer each time, so that
// what Kafka refuses is not tried a thousand times a second.
func (s *session) breathe(ctx context.Context) {
	if s.again == 0 {
		return
	}
	timer := time.NewTimer(min(againLeast<<min(s.again-1, 10), againMost))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// takenBack says why a batch was taken back, for ready, until one has
// committed.
func (s *session) takenBack(what string, err error) {
	why := what + ": " + err.Error()
	s.unwritten.Store(&why)
}

// drainContext lives as long as ctx and drainTimeout longer: a transaction
// under way is ended, not cut (franz-go reports an error for a cut End though
// the offsets were committed).
func drainContext(ctx context.Context) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(drainTimeout, cancel)
		context.AfterFunc(out, func() { timer.Stop() })
	})
	return out, func() { stop(); cancel() }
}
