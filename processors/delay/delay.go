package delay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// A partition names one partition of one topic.
type partition struct {
	topic  string
	number int32
}

// Delay is the role.
type Delay struct {
	cfg      Config
	m        *metrics
	give     returner
	consumer *kgo.Client
	producer *kgo.Client

	mu       sync.Mutex // guards all below, and is held while committing
	owned    map[partition]*waiting
	payloads *payloads
	inFlight int
	moved    time.Time // last progress, or last time nothing was due
	fatal    error     // why Run must end
	due      bool      // something is due and not given back
}

// waiting is one partition that is ours.
type waiting struct {
	Lookahead
	committed int64
	paused    bool
	leaving   bool // being revoked: nothing more is released
}

// New makes the role.
func New(cfg Config) (*Delay, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	tiers := map[string]time.Duration{}
	for _, tier := range schemas.RetryTiers {
		tiers[cfg.Topics.Retry(tier)] = tier
	}
	return &Delay{
		cfg: cfg, m: newMetrics(cfg.Registerer), give: returner{cfg.Topics, cfg.Partitions, cfg.Secrets, tiers},
		owned: map[partition]*waiting{}, payloads: newPayloads(cfg.PayloadBytes), moved: cfg.Now(),
	}, nil
}

// Ready says why nothing is given back, if something should be.
func (d *Delay) Ready() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.fatal != nil:
		return d.fatal
	case d.due && d.cfg.Now().Sub(d.moved) > notReady:
		return fmt.Errorf("records are due, and none has been given back for %s", d.cfg.Now().Sub(d.moved).Round(time.Second))
	}
	return nil
}

// readOptions are those of every client that reads what waits.
func readOptions(opts []kgo.Opt) []kgo.Opt {
	return append(opts[:len(opts):len(opts)],
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxBytes(schemas.MaxRouteBatch), kgo.FetchMaxWait(500*time.Millisecond),
		kgo.BrokerMaxReadBytes(100<<20))
}

// Run gives back what is due until ctx ends, then finishes what is in flight,
// commits, and leaves the group. An error means that something could not be
// given back; a restart reads it again.
func (d *Delay) Run(ctx context.Context) error {
	if err := d.open(); err != nil {
		return fmt.Errorf("delay: %w", err)
	}
	defer d.producer.Close()
	defer d.consumer.CloseAllowingRebalance() // static member: it keeps its place for a quick return
	lastCommit := d.cfg.Now()
	for ctx.Err() == nil {
		d.poll(ctx)
		err := d.releaseDue(ctx)
		if now := d.cfg.Now(); err == nil && now.Sub(lastCommit) >= commitEvery {
			lastCommit = now
			d.commit(ctx)
		}
		d.consumer.AllowRebalance()
		if err == nil {
			err = d.stuck()
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("delay: %w", err)
		}
	}
	return d.drain(ctx)
}

func (d *Delay) open() (err error) {
	topics := []string{d.cfg.Topics.Overflow()}
	for topic := range d.give.tiers {
		topics = append(topics, topic)
	}
	d.producer, err = kgo.NewClient(append(d.cfg.Kafka[:len(d.cfg.Kafka):len(d.cfg.Kafka)],
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(time.Millisecond),
		kgo.ProducerBatchMaxBytes(schemas.MaxClientBatch), kgo.MaxBufferedRecords(maxInFlight),
	)...)
	if err != nil {
		return err
	}
	d.consumer, err = kgo.NewClient(append(readOptions(d.cfg.Kafka),
		kgo.ConsumerGroup(d.cfg.Topics.Prefix+"delay"), kgo.InstanceID(d.cfg.Topics.Prefix+"delay/"+d.cfg.Node), kgo.ConsumeTopics(topics...),
		kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(2*time.Second),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NoResetOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(d.assigned), kgo.OnPartitionsRevoked(d.revoked), kgo.OnPartitionsLost(d.lost),
	)...)
	return err
}

// assigned resumes what an earlier owner of this very client may have left
// paused: a pause survives a rebalance.
func (d *Delay) assigned(_ context.Context, c *kgo.Client, got map[string][]int32) {
	c.ResumeFetchPartitions(got)
	d.mu.Lock()
	defer d.mu.Unlock()
	for topic, numbers := range got {
		for _, n := range numbers {
			d.owned[partition{topic, n}] = &waiting{}
		}
	}
}

// revoked waits for what is in flight, and commits it: Kafka would let us
// commit what we no longer own, so it is done now or never.
func (d *Delay) revoked(ctx context.Context, _ *kgo.Client, gone map[string][]int32) {
	d.mu.Lock()
	for topic, numbers := range gone {
		for _, n := range numbers {
			if w := d.owned[partition{topic, n}]; w != nil {
				w.leaving = true
			}
		}
	}
	d.mu.Unlock()
	if err := d.producer.Flush(ctx); err != nil {
		d.cfg.Logger.Warn("partitions leave with returns in flight; the next owner repeats them", "err", err)
	}
	d.commit(ctx)
	d.lost(ctx, nil, gone)
}

func (d *Delay) lost(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for topic, numbers := range gone {
		for _, n := range numbers {
			delete(d.owned, partition{topic, n})
			d.payloads.forget(partition{topic, n})
		}
	}
}

// poll reads ahead until something is due, a return is acknowledged, or
// maxPoll is over.
func (d *Delay) poll(ctx context.Context) {
	wait := d.untilDue()
	if wait <= 0 {
		wait = time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, min(wait, maxPoll))
	defer cancel()
	fetches := d.consumer.PollRecords(ctx, pollRecords)
	fetches.EachError(func(topic string, n int32, err error) {
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			d.cfg.Logger.Warn("reading ahead", "topic", topic, "partition", n, "err", err)
		}
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		tp := partition{p.Topic, p.Partition}
		w := d.owned[tp]
		if w == nil {
			return // revoked meanwhile: the next owner reads it
		}
		for _, r := range p.Records {
			d.add(tp, w, r)
		}
		if w.Len() >= d.cfg.MaxRecords && !w.paused {
			w.paused = true
			d.consumer.PauseFetchPartitions(map[string][]int32{p.Topic: {p.Partition}})
		}
	})
}

// add looks at one record. One that cannot be read is due at once, and becomes
// a dead letter.
func (d *Delay) add(tp partition, w *waiting, r *kgo.Record) {
	due, tier := int64(0), d.give.tiers[r.Topic]
	if n, err := readNote(r, tier); err == nil {
		due = n.wake(r, tier)
	}
	w.Add(due, r.Offset)
	d.payloads.keep(tp, r)
}

// untilDue is how long nothing is due.
func (d *Delay) untilDue() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.cfg.Now().UnixMilli()
	next := now + maxPoll.Milliseconds()
	waiting := 0
	for _, w := range d.owned {
		waiting += w.Waiting()
		if due, ok := w.NextDue(); ok && !w.leaving {
			next = min(next, due)
		}
	}
	d.m.waiting.Set(float64(waiting))
	d.m.payloads.Set(float64(d.payloads.size))
	return time.Duration(next-now) * time.Millisecond
}

// stuck says whether returns have failed, or stand for too long.
func (d *Delay) stuck() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fatal != nil {
		return d.fatal
	}
	if d.due && d.cfg.Now().Sub(d.moved) > giveUp {
		return fmt.Errorf("records are due, and none has been given back for %s", giveUp)
	}
	return nil
}

// drain finishes what is in flight and commits.
func (d *Delay) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.DrainTimeout)
	defer cancel()
	err := d.producer.Flush(ctx)
	d.commit(ctx)
	if err != nil {
		return fmt.Errorf("delay: returns are in flight at the end and will be repeated: %w", err)
	}
	return nil
}
