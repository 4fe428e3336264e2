package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/spillway/spillway/schemas"
)

// FollowerConfig says which `control` to follow.
type FollowerConfig struct {
	Kafka      []kgo.Opt             // brokers, TLS, SASL, client id
	Topics     schemas.Topics        // names of the deployment
	Logger     *slog.Logger          // nil: slog.Default()
	Registerer prometheus.Registerer // nil: measured but not shown
	Now        func() time.Time      // nil: time.Now
}

// Follower keeps the newest Snapshot of `control`. Its look-ups never block;
// when `control` cannot be read it keeps the last one. All methods may be
// called at any time from any goroutine.
type Follower struct {
	cfg      FollowerConfig
	metrics  *metrics
	ready    chan struct{} // closed at the first complete snapshot
	snapshot atomic.Pointer[Snapshot]
	admitted *admitted

	mu       sync.Mutex
	entries  map[key]entry
	version  int64        // offset of the newest record
	bad      int          // records skipped
	position int64        // everything before it has been read
	settled  bool         // position is not inside a transaction
	changed  bool         // entries differ from the snapshot's
	topic    kadm.TopicID // of what is followed; zero before the first check
	target   int64        // end offset that position must reach, -1 if it has
	targetAt time.Time    // when target was fetched
	freshAt  time.Time
	complete bool
	err      error // why control cannot be read now
}

const (
	checkEvery = time.Second            // between checks of the end offset
	bootEvery  = 100 * time.Millisecond // the same, until the first one succeeds
	staleAfter = 10 * time.Second       // Ready complains when the snapshot is older
	maxLogged  = 100                    // bad records that are logged, each once; all are counted
)

// NewFollower returns a follower. Run makes it follow.
func NewFollower(cfg FollowerConfig) (*Follower, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	f := &Follower{
		cfg: cfg, metrics: newMetrics(cfg.Registerer), ready: make(chan struct{}),
		admitted: &admitted{names: map[string]bool{}}, entries: map[key]entry{}, version: -1, target: -1, settled: true,
	}
	f.snapshot.Store(newSnapshot(nil, -1, f.admitted, cfg.Now))
	if err := kgo.ValidateOpts(f.options()...); err != nil {
		return nil, fmt.Errorf("follow control: %w", err)
	}
	return f, nil
}

func (f *Follower) options() []kgo.Opt {
	topic := f.cfg.Topics.Control()
	return append(append([]kgo.Opt{}, f.cfg.Kafka...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(schemas.MaxRouteBatch), kgo.BrokerMaxReadBytes(2*schemas.MaxRouteBatch),
		kgo.KeepControlRecords(), // their offsets tell that the end was reached
		kgo.UnknownTopicRetries(-1),
		kgo.MetadataMinAge(bootEvery),
	)
}

// Run follows until ctx ends, and returns nil then. It does not return because
// Kafka is away.
func (f *Follower) Run(ctx context.Context) error {
	client, err := kgo.NewClient(f.options()...)
	if err != nil {
		return fmt.Errorf("follow control: %w", err)
	}
	defer client.Close()
	var group errgroup.Group
	group.Go(func() error { f.checkEnd(ctx, kadm.NewClient(client)); return nil })
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil || fetches.IsClientClosed() {
			return group.Wait()
		}
		f.take(fetches)
	}
}

// Wait returns nil when the first complete snapshot is there, or why it is
// not when ctx ends.
func (f *Follower) Wait(ctx context.Context) error {
	select {
	case <-f.ready:
		return nil
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return fmt.Errorf("read %s: %w", f.cfg.Topics.Control(), f.err)
	}
	return fmt.Errorf("read %s: %w", f.cfg.Topics.Control(), ctx.Err())
}

// Snapshot is the newest snapshot; it is empty, never nil, before the first
// complete one.
func (f *Follower) Snapshot() *Snapshot { return f.snapshot.Load() }

// FreshAt is the time, on this process's clock, at which the end offset was
// fetched that the snapshot has been read to: it knows everything that was
// committed before. It is zero before the first complete snapshot.
func (f *Follower) FreshAt() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.freshAt
}

// Ready reports why the snapshot is not complete or not fresh.
func (f *Follower) Ready() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	age := f.cfg.Now().Sub(f.freshAt)
	switch {
	case f.complete && age <= staleAfter:
		return nil
	case f.complete && f.err != nil:
		return fmt.Errorf("control was last read %s ago: %w", age.Round(time.Second), f.err)
	case f.complete:
		return fmt.Errorf("control was last read %s ago", age.Round(time.Second))
	case f.err != nil:
		return fmt.Errorf("control cannot be read: %w", f.err)
	}
	return errors.New("control has not been read to its end yet")
}

// The newest snapshot's methods.

// Partitions is Snapshot.Partitions of the newest snapshot.
func (f *Follower) Partitions() int32 { return f.Snapshot().Partitions() }

// Version is Snapshot.Version of the newest snapshot.
func (f *Follower) Version() int64 { return f.Snapshot().Version() }

// Policy is Snapshot.Policy of the newest snapshot.
func (f *Follower) Policy(tenant string) (*schemas.Policy, bool) { return f.Snapshot().Policy(tenant) }

// Endpoint is Snapshot.Endpoint of the newest snapshot.
func (f *Follower) Endpoint(name string) (schemas.Endpoint, bool) { return f.Snapshot().Endpoint(name) }

// SigningSecret is Snapshot.SigningSecret of the newest snapshot.
func (f *Follower) SigningSecret() schemas.Secret { return f.Snapshot().SigningSecret() }

// SecretKey is Snapshot.SecretKey of the newest snapshot.
func (f *Follower) SecretKey(id string) ([]byte, bool) { return f.Snapshot().SecretKey(id) }

// DedupeKey is Snapshot.DedupeKey of the newest snapshot.
func (f *Follower) DedupeKey() []byte { return f.Snapshot().DedupeKey() }

// take applies one poll. A new snapshot is published only at the end of a
// transaction, so that nobody sees half of an `apply`.
func (f *Follower) take(fetches kgo.Fetches) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fetches.EachRecord(func(r *kgo.Record) {
		f.position = r.Offset + 1
		f.settled = r.Attrs.IsControl() || !r.Attrs.IsTransactional()
		if !r.Attrs.IsControl() {
			f.apply(r)
		}
	})
	fetches.EachError(func(_ string, _ int32, err error) { f.fail(err) })
	if f.complete && f.settled && f.changed {
		f.publish()
	}
	f.arrive()
}

// apply takes one record. Called under mu.
func (f *Follower) apply(r *kgo.Record) {
	f.version, f.changed = r.Offset, true
	k, e, err := decodeRecord(r.Key, r.Value)
	_, known := f.entries[k]
	switch {
	case err == nil && e.value == nil:
		delete(f.entries, k)
	case err == nil && (known || len(f.entries) < maxEntries):
		f.entries[k] = e
	default:
		f.skip(r, err)
	}
}

// skip counts a record that says nothing to this build. What was there under
// its key stays.
func (f *Follower) skip(r *kgo.Record, err error) {
	if err == nil {
		err = fmt.Errorf("control holds more than %d records", maxEntries)
	}
	f.metrics.skipped.Inc()
	if f.bad++; f.bad <= maxLogged {
		f.cfg.Logger.Error("a record of control is skipped", "topic", r.Topic, "offset", r.Offset, "err", err)
	}
}

// checkEnd asks for the end offset now and then: when the reader has come that
// far, the snapshot is as fresh as the question.
func (f *Follower) checkEnd(ctx context.Context, admin *kadm.Client) {
	tick := time.NewTicker(bootEvery)
	defer tick.Stop()
	for booting := true; ; {
		f.check(ctx, admin)
		if booting && !f.FreshAt().IsZero() {
			booting = false
			tick.Reset(checkEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (f *Follower) check(ctx context.Context, admin *kadm.Client) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	at := f.cfg.Now()
	end, err := committedEnd(ctx, admin, f.cfg.Topics.Control())
	if err == nil {
		err = f.sameTopic(ctx, admin)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case errors.Is(err, context.Canceled): // Run ends
		return
	case err != nil:
		f.fail(err)
	case end < f.position:
		f.fail(fmt.Errorf("its end %d is before %d, where it was read to: was the topic made anew? restart this process", end, f.position))
	case f.target < 0: // a target that is still ahead stays, else a busy topic would outrun us
		f.target, f.targetAt = end, at
		f.arrive()
	}
	f.metrics.age.Set(f.cfg.Now().Sub(f.freshAt).Seconds())
}

// errOther is what sameTopic returns for another topic of the same name.
var errOther = errors.New("the topic was deleted and made anew: restart this process to follow the new one")

// sameTopic returns an error if the topic is not the one that was read first:
// its offsets mean nothing then, and its secrets and tenants may be others.
func (f *Follower) sameTopic(ctx context.Context, admin *kadm.Client) error {
	name := f.cfg.Topics.Control()
	topics, err := admin.ListTopics(ctx, name)
	if err != nil {
		return err
	}
	id := topics[name].ID
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.topic == (kadm.TopicID{}) {
		f.topic = id
	}
	if f.topic != id {
		return errOther
	}
	return nil
}

// arrive marks freshness if the target is reached. Called under mu.
func (f *Follower) arrive() {
	if f.target < 0 || f.position < f.target || !f.settled {
		return
	}
	f.target, f.freshAt = -1, f.targetAt
	if f.err != nil && f.complete {
		f.cfg.Logger.Info("control is read again", "topic", f.cfg.Topics.Control())
	}
	f.err = nil
	if !f.complete {
		f.complete = true
		f.publish()
		close(f.ready)
	}
}

// fail remembers why control cannot be read. Called under mu.
func (f *Follower) fail(err error) {
	if f.err == nil && f.complete {
		f.cfg.Logger.Warn("control cannot be read, the last snapshot stays", "topic", f.cfg.Topics.Control(), "err", err)
	}
	f.err = err
}

// publish makes what was read the newest snapshot. Called under mu.
func (f *Follower) publish() {
	f.changed = false
	f.snapshot.Store(newSnapshot(f.entries, f.version, f.admitted, f.cfg.Now))
	f.metrics.version.Set(float64(f.version))
}

// committedEnd is the offset that a reader of committed records can reach.
func committedEnd(ctx context.Context, admin *kadm.Client, topic string) (int64, error) {
	ends, err := admin.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return 0, err
	}
	end, ok := ends.Lookup(topic, 0)
	if !ok {
		return 0, errors.New("the topic does not exist: run spillway setup")
	}
	return end.Offset, end.Err
}
