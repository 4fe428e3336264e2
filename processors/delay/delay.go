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

func (p partition) String() string {
	if p.topic == "" {
		return "the group"
	}
	return fmt.Sprintf("%s/%d", p.topic, p.number)
}

// Delay is the role.
type Delay struct {
	cfg      Config
	m        *metrics
	give     returner
	consumer *kgo.Client
	producer *kgo.Client

	topicIDs map[string][16]byte // as polls named them; owned by Run
	room     chan struct{}       // capacity 1, never closed: in-flight has room again

	commitMu sync.Mutex // one commit at a time, and none while partitions leave; taken before mu

	mu            sync.Mutex // guards all below; never held over the network
	owned         map[partition]*waiting
	payloads      *payloads
	inFlight      int
	inFlightBytes int64
	noRoom        bool      // Run waits for room
	moved         time.Time // last progress, or last time nothing was due
	due           bool      // something is due and not given back
	faults        map[faultAt]*fault
	fatal         error // why Run must end
}

// waiting is one partition that is ours.
type waiting struct {
	Lookahead
	tp        partition
	since     time.Time // when it was assigned
	begun     bool      // its first offset is known
	from      int64     // that offset; below 0 it is the log's start
	committed int64
	paused    string    // why it is read no further, "" while it is
	retryAt   time.Time // an error of reading ahead pauses it until then
	leaving   bool      // being revoked: nothing more is released

	hold   time.Duration // how long the last failed reading of a payload holds it
	heldBy time.Time     // nothing is released before
}

// position is the offset that is read next, below 0 if it is the log's start.
func (w *waiting) position() int64 {
	if next := w.Next(); next > 0 {
		return max(next, w.from)
	}
	return w.from
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
		topicIDs: map[string][16]byte{}, room: make(chan struct{}, 1),
		owned: map[partition]*waiting{}, payloads: newPayloads(cfg.PayloadBytes), moved: cfg.Now(), faults: map[faultAt]*fault{},
	}, nil
}

// Ready says why nothing is given back, if something should be, or which
// partition is not read.
func (d *Delay) Ready() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fatal != nil {
		return d.fatal
	}
	if err := d.standing(notReady, faultGrace); err != nil {
		return err
	}
	for _, w := range d.owned {
		if w.paused == pausedPinned {
			at, _ := w.Committable()
			return fmt.Errorf("%s is read no further: offset %d is not due, and %d after it are kept for a restart", w.tp, at, w.Span())
		}
	}
	return nil
}

// standing says what stands: what is due is not given back for still, or a
// partition cannot be read for broken. The caller holds mu.
func (d *Delay) standing(still, broken time.Duration) error {
	now := d.cfg.Now()
	if idle := now.Sub(d.moved); d.due && idle > still {
		return fmt.Errorf("records are due, and none has been given back for %s", idle.Round(time.Second))
	}
	for _, w := range d.owned {
		if age := now.Sub(w.since); !w.begun && age > still {
			return fmt.Errorf("%s was assigned %s ago, and its committed offset is not known", w.tp, age.Round(time.Second))
		}
	}
	return d.faulty(now, broken)
}

// stuck says whether Run must end: a return has failed, or something stands
// for too long.
func (d *Delay) stuck() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fatal != nil {
		return d.fatal
	}
	return d.standing(giveUp, giveUp)
}

// readOptions are those of the client that reads what waits. It keeps the
// markers of transactions, so that the committed offset passes them: else it
// would stay on the last one, fall below the log's start when retention takes
// it, and look like a loss.
func readOptions(opts []kgo.Opt) []kgo.Opt {
	return append(opts[:len(opts):len(opts)],
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.FetchMaxBytes(schemas.MaxRouteBatch), kgo.FetchMaxWait(500*time.Millisecond), kgo.BrokerMaxReadBytes(100<<20),
		kgo.MaxDecompressBatchBytes(maxBatchBytes))
}

// Run gives back what is due until ctx ends, then finishes what is in flight
// and commits. Its place in the group is kept for a quick return. An error
// means that something could not be given back or read; a restart reads it
// again.
func (d *Delay) Run(ctx context.Context) error {
	if err := d.open(); err != nil {
		return fmt.Errorf("delay: %w", err)
	}
	defer d.producer.Close()
	defer d.consumer.CloseAllowingRebalance() // a static member stays in the group until its session times out
	lastCommit := d.cfg.Now()
	for ctx.Err() == nil {
		d.awaitRoom(ctx)
		d.poll(ctx)
		d.releaseDue(ctx)
		if now := d.cfg.Now(); now.Sub(lastCommit) >= commitEvery {
			lastCommit = now
			d.commit(ctx)
		}
		d.consumer.AllowRebalance()
		if err := d.stuck(); err != nil && ctx.Err() == nil {
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
		kgo.RebalanceTimeout(d.cfg.DrainTimeout+2*time.Second), // a member that died while it joined holds the others up that long
		// A new group begins at the log's start; what else is out of range is
		// an error, and outOfRange decides.
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NoResetOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.AdjustFetchOffsetsFn(d.begin),
		kgo.OnPartitionsAssigned(d.assigned), kgo.OnPartitionsRevoked(d.revoked), kgo.OnPartitionsLost(d.lost),
	)...)
	if err != nil {
		d.producer.Close()
	}
	return err
}

// drain finishes what is in flight and commits. A return that Kafka refused
// meanwhile is an error too.
func (d *Delay) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.DrainTimeout)
	defer cancel()
	err := d.producer.Flush(ctx)
	if err != nil {
		err = fmt.Errorf("returns are in flight at the end and will be repeated: %w", err)
	}
	d.commit(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err = errors.Join(d.fatal, err); err != nil {
		return fmt.Errorf("delay: %w", err)
	}
	return nil
}
