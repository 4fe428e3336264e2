package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/spillway/spillway/processors/audit/table"
	"github.com/spillway/spillway/schemas"
)

// reading says what one reader reads.
type reading struct {
	name, group string
	topics      []string
	isolation   kgo.IsolationLevel
}

// A reader is one member of one group and its batch:
//
//	poll ─▶ add rows ─▶ (rows, bytes or 250 ms) ─▶ insert ─┬▶ acknowledged ─▶ commit ─▶ poll
//	                                                 ▲     └▶ failed: pause ─┐
//	                                                 └───────────────────────┘
//
// While it inserts it does not poll, so a ClickHouse that is down or slow holds
// one batch and the client's one prefetched response a broker in memory, and
// the topics hold the rest.
type reader struct {
	reading
	sink  *Sink
	cl    *kgo.Client
	batch *batch

	gone   map[string]time.Time // topics that could not be found since they were last read: when
	passed bool                 // an offset is not there
	asked  time.Time            // when Kafka was last asked for the ids

	idMu sync.Mutex // guards:
	ids  map[string]schemas.TopicID

	// mu is held while anything is in flight that a revocation must wait for: an
	// attempt to insert, a commit, and the pair of them. It is free in pauses.
	mu    sync.Mutex
	acked offsets // guarded by mu: inserted, not committed yet
}

func newReader(s *Sink, what reading) *reader {
	return &reader{reading: what, sink: s, batch: newBatch(s), gone: map[string]time.Time{}, acked: offsets{}, ids: map[string]schemas.TopicID{}}
}

// read runs readers, one after another, until ctx ends and the last batch is
// written.
func (s *Sink) read(ctx context.Context, what reading) error {
	return s.anew(ctx, func() error { return s.readOnce(ctx, what) })
}

// anew repeats once for as long as it ends with errRecreated. The pauses
// between grow, until one life was a long one: each costs Kafka a rebalance.
func (s *Sink) anew(ctx context.Context, once func() error) error {
	pause := firstPause
	for {
		began := s.cfg.Now()
		if err := once(); !errors.Is(err, errRecreated) {
			return err
		}
		if s.cfg.Now().Sub(began) > readAgain {
			pause = firstPause
		}
		if wait(ctx, pause) != nil {
			return nil // what was read is written
		}
		pause = min(2*pause, lastPause)
	}
}

func (s *Sink) readOnce(ctx context.Context, what reading) error {
	r := newReader(s, what)
	cl, err := kgo.NewClient(append(append([]kgo.Opt{}, s.cfg.Kafka...), r.options()...)...)
	if err != nil {
		return fmt.Errorf("audit: Kafka client of %s: %w", what.name, err)
	}
	r.cl = cl
	defer cl.CloseAllowingRebalance()
	for ctx.Err() == nil {
		if err := r.fill(ctx); err != nil {
			return err
		}
		recreated := r.isRecreated(ctx)
		if err := r.flush(ctx); err != nil {
			return err
		}
		if recreated && ctx.Err() == nil {
			return errRecreated
		}
	}
	return r.drain(ctx)
}

// drain writes what is left, in one attempt: if ClickHouse is down now, the
// next start reads it again.
func (r *reader) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.sink.cfg.DrainTimeout)
	defer cancel()
	over, end := context.WithCancel(ctx)
	end() // no time for names
	r.batch.settle(over)
	done, err := r.attempt(ctx)
	if !done && err == nil {
		r.sink.cfg.Logger.Warn("the last batch is not in ClickHouse; the next start reads it again from the topics", "topic", r.topics[0])
	}
	return err
}

func (r *reader) options() []kgo.Opt {
	return []kgo.Opt{
		kgo.ConsumerGroup(r.group), kgo.ConsumeTopics(r.topics...), kgo.FetchIsolationLevel(r.isolation),
		kgo.InstanceID("audit/" + r.sink.cfg.Node + "/" + r.name), kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(6 * time.Second), kgo.HeartbeatInterval(2 * time.Second),
		// The defaults would begin at the end after data loss, or skip.
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NoResetOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsRevoked(r.release), kgo.OnPartitionsLost(r.release), kgo.AdjustFetchOffsetsFn(r.adjust),
		// Few large responses: half of the flush interval is no delay that counts.
		kgo.FetchMinBytes(512 << 10), kgo.FetchMaxWait(max(r.sink.cfg.FlushEvery/2, 10*time.Millisecond)),
		kgo.FetchMaxBytes(16 << 20), kgo.FetchMaxPartitionBytes(4 << 20),
		kgo.MaxDecompressBatchBytes(schemas.MaxRouteBatch),
	}
}

// maxPoll bounds the records taken at once, and so how far a batch grows over
// its bounds: one receipt is as many rows as it has deliveries.
const maxPoll = 1000

// fill polls until the batch is full, or its time is over since something came.
func (r *reader) fill(ctx context.Context) error {
	first := ctx
	within := askTopics
	if r.pending() { // do not wait for records to repeat a commit
		within = r.sink.cfg.FlushEvery
	}
	if r.pending() || len(r.gone) > 0 { // nor to ask again for a topic
		var cancel context.CancelFunc
		first, cancel = context.WithTimeout(ctx, within)
		defer cancel()
	}
	if err := r.take(ctx, r.cl.PollRecords(first, maxPoll)); err != nil {
		return err
	}
	due, cancel := context.WithTimeout(ctx, r.sink.cfg.FlushEvery)
	defer cancel()
	for due.Err() == nil && r.batch.rows() < r.sink.cfg.MaxRows && r.batch.bytes < r.sink.cfg.MaxBytes {
		if err := r.take(ctx, r.cl.PollRecords(due, maxPoll)); err != nil {
			return err
		}
	}
	return nil
}

// pending reports whether a commit failed and must be repeated.
func (r *reader) pending() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.acked) > 0
}

// take adds what was polled to the batch. A rebalance waits until it is done,
// so looking up names has a bound for all records together.
func (r *reader) take(ctx context.Context, fetches kgo.Fetches) (fatal error) {
	defer r.cl.AllowRebalance()
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	fetches.EachError(func(topic string, partition int32, err error) {
		fatal = errors.Join(fatal, r.fetchError(topic, partition, err))
	})
	fetches.EachTopic(func(t kgo.FetchTopic) {
		t.EachPartition(func(p kgo.FetchPartition) {
			if len(p.Records) > 0 && t.TopicID == (schemas.TopicID{}) {
				fatal = fmt.Errorf("audit: Kafka gives no id of topic %s; it must be 4.0 or newer", t.Topic)
				return
			}
			r.got(t.Topic, t.TopicID, len(p.Records))
			r.batch.add(ctx, t.TopicID, kgo.FetchTopicPartition{Topic: t.Topic, FetchPartition: p})
		})
	})
	return fatal
}

// got notes that a topic was read, under which id.
func (r *reader) got(topic string, id schemas.TopicID, records int) {
	if records == 0 {
		return
	}
	delete(r.gone, topic)
	r.sink.health.good(r.reads(topic))
	r.idMu.Lock()
	r.ids[topic] = id
	r.idMu.Unlock()
}

// fetchError handles what a poll reports about a partition: a batch that cannot
// be decompressed becomes a row and is passed, the rest the client retries.
func (r *reader) fetchError(topic string, partition int32, err error) error {
	var tooLarge *kgo.ErrDecompressTooLarge
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	case errors.As(err, &tooLarge):
		r.batch.skip(tooLarge)
		r.cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: {partition: {Epoch: tooLarge.Epoch, Offset: tooLarge.NextOffset}}})
	case errors.Is(err, kgo.ErrClientClosed):
		return fmt.Errorf("audit: %w", err)
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed), errors.Is(err, kerr.FencedInstanceID):
		return fmt.Errorf("audit: read %s: %w", topic, err)
	default:
		why := kafkaReason(err)
		if why == topicGone {
			r.gone[topic] = r.sink.cfg.Now()
		}
		r.passed = r.passed || why == offsetGone
		r.sink.health.bad(r.reads(topic), partKafka, why, fmt.Errorf("the audit cannot read %s/%d: %w", topic, partition, err))
	}
	return nil
}

// release is told that partitions are no longer ours. It returns when what is
// in flight is answered; what was not committed by then, the next owner reads
// again: rows of the batch that come twice are one.
func (r *reader) release(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acked.drop(lost)
	r.batch.next.drop(lost)
}

// flush inserts the batch and commits, however often it takes. It gives up
// when ctx ends: what was not committed is read again.
func (r *reader) flush(ctx context.Context) error {
	r.batch.settle(ctx)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		done, err := r.attempt(ctx)
		if done || err != nil {
			return err
		}
		if wait(ctx, pause) != nil {
			return nil
		}
	}
}

// attempt inserts each table that is not acknowledged yet, then commits.
//
//	crash before an acknowledgement    read and inserted again: rows may come twice
//	crash before the commit            the same
//	commit fails                       repeated with the next batch, or by the next owner
func (r *reader) attempt(ctx context.Context) (done bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	oldest := r.batch.oldest
	if err := r.insert(ctx); err != nil {
		r.insertFailed(ctx, err)
		return false, nil
	}
	r.sink.health.good(r.name)
	r.acked.merge(r.batch.next)
	r.batch.reset()
	if oldest > 0 {
		age := r.sink.cfg.Now().Sub(time.UnixMilli(oldest))
		r.sink.metrics.lag.WithLabelValues(r.name).Set(age.Seconds())
	}
	if h := r.sink.hooks.beforeCommit; h != nil {
		if err := h(); err != nil {
			return false, err
		}
	}
	return true, r.commit(ctx)
}

// insertFailed says so. A database that was dropped is made anew.
func (r *reader) insertFailed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if why := table.Diagnose(err).Reason; r.sink.cfg.Migrate && (why == table.UnknownTable || why == table.UnknownDatabase) {
		if made := r.sink.prepareTables(ctx); made != nil {
			err = made
		}
	}
	r.sink.clickHouseFailed(r.name, err)
}

func (r *reader) insert(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.sink.cfg.InsertTimeout)
	defer cancel()
	for _, t := range r.batch.tables {
		if t.Rows == 0 {
			continue
		}
		began := r.sink.cfg.Now()
		if err := t.Insert(ctx, r.sink.conn); err != nil {
			r.sink.metrics.retries.WithLabelValues(t.Name).Inc()
			return err
		}
		r.sink.metrics.inserted(t.Name, t.Rows, r.sink.cfg.Now().Sub(began))
		t.Reset() // acknowledged: the next attempt does not repeat it
	}
	return nil
}

// commit tells the group what is written. The caller holds mu. What cannot be
// committed now stays in acked, and goes with the next commit.
func (r *reader) commit(ctx context.Context) error {
	if len(r.acked) == 0 {
		return nil
	}
	var failed error
	ctx = kgo.PreCommitFnContext(ctx, r.mark)
	r.cl.CommitOffsetsSync(ctx, r.acked, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, res *kmsg.OffsetCommitResponse, err error) {
		failed = err
		if err == nil {
			failed = firstCommitError(res)
		}
	})
	if failed == nil {
		r.acked = offsets{}
		r.sink.metrics.commits.WithLabelValues("ok").Inc()
		return nil
	}
	r.sink.metrics.commits.WithLabelValues("failed").Inc()
	if errors.Is(failed, kerr.FencedInstanceID) {
		return fmt.Errorf("audit: another process runs as node %s: %w", r.sink.cfg.Node, failed)
	}
	if ctx.Err() == nil {
		r.sink.cfg.Logger.Warn("commit of offsets failed; it goes with the next one", "err", failed)
	}
	return nil
}

func firstCommitError(res *kmsg.OffsetCommitResponse) error {
	for _, t := range res.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("partition %s/%d: %w", t.Topic, p.Partition, err)
			}
		}
	}
	return nil
}
