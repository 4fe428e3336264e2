package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// writerConfig says which `control` to write.
type writerConfig struct {
	kafka     []kgo.Opt
	topics    schemas.Topics
	schemaIDs map[string]int32
	regions   []string
	logger    *slog.Logger
	now       func() time.Time
}

// writer is the one writer of `control`. It owns the transactional id of the
// deployment: opening another one, in any process, fences it.
//
//	open: take the id ─▶ read to the end ─▶ write … ─▶ fenced, or broken: closed for good
//
// Its methods may be called from any goroutine; they run one after another.
type writer struct {
	cfg    writerConfig
	client *kgo.Client

	mu      sync.Mutex
	entries map[key]entry
	version int64         // the next change's; at least the end offset, so that it grows over restarts
	epoch   int16         // of the producer, at its last transaction
	err     error         // why it writes no more
	broken  chan struct{} // closed when err is set
}

// errFenced is why a writer stopped: another process took over. Opening again
// would fence that one in turn, so only a restart by a person does.
var errFenced = errors.New("another control process has taken over: this one writes no more until it is restarted")

// writeTimeout bounds one transaction.
const writeTimeout = 15 * time.Second

func transactionalID(t schemas.Topics) string { return t.Prefix + "control" }

// openWriter takes the transactional id, which fences whoever had it and ends
// its open transaction, and then reads `control` to its end.
func openWriter(ctx context.Context, cfg writerConfig) (*writer, error) {
	client, err := kgo.NewClient(append(slices.Clone(cfg.kafka),
		kgo.TransactionalID(transactionalID(cfg.topics)), kgo.TransactionTimeout(10*time.Second),
		kgo.RecordDeliveryTimeout(writeTimeout), kgo.ProducerLinger(0),
		kgo.DefaultProduceTopic(cfg.topics.Control()), kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)...)
	if err != nil {
		return nil, fmt.Errorf("write control: %w", err)
	}
	w := &writer{cfg: cfg, client: client, broken: make(chan struct{})}
	if _, w.epoch, err = client.ProducerID(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("take %s: %w", transactionalID(cfg.topics), err)
	}
	// From here on nobody else can commit: the end we read to is the end.
	var end int64
	if w.entries, end, err = readToEnd(ctx, cfg); err != nil {
		client.Close()
		return nil, err
	}
	w.version = end
	for _, e := range w.entries {
		w.version = max(w.version, e.version+1)
	}
	return w, nil
}

// close gives nothing back: the id stays taken until someone else takes it.
func (w *writer) close() { w.client.Close() }

// readToEnd reads all that is committed now, and where that ends.
func readToEnd(ctx context.Context, cfg writerConfig) (map[key]entry, int64, error) {
	f, err := NewFollower(FollowerConfig{Kafka: cfg.kafka, Topics: cfg.topics, Logger: cfg.logger, Now: cfg.now})
	if err != nil {
		return nil, 0, err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- f.Run(running) }()
	err = f.Wait(ctx)
	stop()
	if err := cmp.Or(err, <-ended); err != nil {
		return nil, 0, err
	}
	return f.entries, f.position, nil // Run has ended: nobody else has them
}

// write checks the changes and writes those that change something, in one
// transaction. It returns what was written and the version they have now.
func (w *writer) write(ctx context.Context, changes []change, dryRun bool) (plan, int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return plan{}, 0, w.err
	}
	p, err := newPlan(w.entries, changes, w.cfg.regions)
	if err != nil || dryRun || len(p.changes) == 0 {
		return p, w.version, err
	}
	records := make([]*kgo.Record, 0, len(p.changes))
	for _, c := range p.changes {
		r, err := w.record(c)
		if err != nil {
			return p, 0, invalid(c.key.name, "%s", err)
		}
		if c.value != nil {
			p.entries[c.key] = entry{w.version, c.value}
		}
		records = append(records, r)
	}
	if err := w.commit(ctx, records); err != nil {
		return p, 0, err
	}
	w.entries, p.offset = p.entries, records[len(records)-1].Offset
	w.version++
	return p, w.version - 1, nil
}

func (w *writer) record(c change) (*kgo.Record, error) {
	r := &kgo.Record{Key: []byte(c.key.String())}
	if c.value == nil {
		return r, nil // a tombstone
	}
	var err error
	r.Value, err = encodeRecord(entry{w.version, c.value}, w.cfg.schemaIDs)
	return r, err
}

// commit writes records in one transaction. After any error the writer is
// closed for good, for what stands on the topic is not known any more: the
// next one reads it.
func (w *writer) commit(ctx context.Context, records []*kgo.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout) // who asked may go; what is begun is ended
	defer cancel()
	err := w.client.BeginTransaction()
	if err == nil {
		err = w.client.ProduceSync(ctx, records...).FirstErr()
		end := kgo.TransactionEndTry(err == nil)
		err = cmp.Or(err, w.client.EndTransaction(ctx, end))
	}
	if err != nil {
		return w.stop(err)
	}
	if _, w.epoch, err = w.client.ProducerID(ctx); err != nil {
		_ = w.stop(err) // what was asked is written; the next one is not
	}
	return nil
}

// stop makes the writer write no more. Called under mu.
func (w *writer) stop(err error) error {
	w.err = fmt.Errorf("write control: %w", err)
	if fencing(err) {
		w.err = errFenced
	}
	close(w.broken)
	return w.err
}

func fencing(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch) || errors.Is(err, kerr.InvalidProducerIDMapping)
}

// fenced asks Kafka who owns the transactional id, so that a writer that has
// nothing to write learns that it was fenced.
func (w *writer) fenced(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	id := transactionalID(w.cfg.topics)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	described, err := kadm.NewClient(w.client).DescribeTransactions(ctx, id)
	if err != nil {
		return fmt.Errorf("ask who writes control: %w", err)
	}
	if t, ok := described[id]; ok && t.Err == nil && t.ProducerEpoch > w.epoch {
		return w.stop(kerr.ProducerFenced)
	}
	return nil
}
