package route

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// forwards gives strangers' records to their home partition. It has an
// idempotent producer of its own, outside of any transaction, for `events` is
// read uncommitted. A repeat after a crash is dropped by its origin.
type forwards struct{ client *kgo.Client }

// forwardTimeout is less than the transaction's, which waits for it.
const forwardTimeout = 6 * time.Second

func newForwards(cfg *Config) (*forwards, error) {
	client, err := kgo.NewClient(append(append([]kgo.Opt{}, cfg.Kafka...),
		kgo.DefaultProduceTopic(cfg.Topics.Events()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0), kgo.MetadataMinAge(metadataMinAge), // it is also asked which topic `events` is now
		kgo.ProducerBatchMaxBytes(schemas.MaxClientBatch),
		kgo.RecordDeliveryTimeout(forwardTimeout),
	)...)
	if err != nil {
		return nil, fmt.Errorf("route: producer of forwards: %w", err)
	}
	return &forwards{client}, nil
}

func (f *forwards) close() { f.client.Close() }

// pending counts one batch's forwards.
type pending struct {
	wg  sync.WaitGroup
	mu  sync.Mutex
	err error // of the first that failed
}

func (p *pending) produce(f *forwards, r *kgo.Record) {
	p.wg.Add(1)
	// The client's own timeout ends it, not the router's: a forward that may
	// have been appended is waited for.
	f.client.Produce(context.Background(), r, func(_ *kgo.Record, err error) {
		if err != nil {
			p.mu.Lock()
			p.err = err
			p.mu.Unlock()
		}
		p.wg.Done()
	})
}

// wait returns when all are acknowledged or failed. If the process crashes
// now the offsets are not committed: they are forwarded again, and dropped.
func (p *pending) wait() error {
	p.wg.Wait()
	err := p.err
	p.err = nil
	return err
}
