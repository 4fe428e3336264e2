package ingest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/ingest/binding"
	"github.com/spillway/spillway/schemas"
)

// producerOpts are what makes a 202 true: acks=all, idempotent, and every
// record on the partition that was computed for it.
//
// RecordDeliveryTimeout fails only what was surely not written. A record whose
// request was sent and not answered is kept and sent again under its sequence
// number until Kafka says what became of it (franz-go,
// AllowIdempotentProduceCancellation): it can neither be doubled nor reordered by
// that. The request does not wait so long, see pending.wait.
func producerOpts(cfg *Config) []kgo.Opt {
	return append(append([]kgo.Opt(nil), cfg.Kafka...),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(time.Millisecond),
		kgo.ProducerBatchMaxBytes(2<<20), // one event of max_event and its headers always fits
		kgo.MaxBufferedRecords(int(cfg.MaxEvents)+1),
		kgo.ProduceRequestTimeout(cfg.AckTimeout),
		kgo.RequestTimeoutOverhead(min(cfg.AckTimeout, 2*time.Second)),
		kgo.RecordDeliveryTimeout(cfg.AckTimeout*4/5),
		kgo.MetadataMinAge(500*time.Millisecond), // a moved leader is found within the ack timeout
	)
}

// pending is the records of one request on their way to Kafka.
type pending struct {
	in         *Ingest
	hold       *hold
	partitions []int32 // distinct
	left       atomic.Int64
	done       chan struct{} // closed when left is 0

	mu        sync.Mutex
	err       error // the first one
	finished  bool
	abandoned bool // answered already, because it took too long
}

// produce hands the records to the client. It never blocks: the budget is what
// bounds the client's buffer.
func (in *Ingest) produce(records []kgo.Record, h *hold) *pending {
	p := &pending{in: in, hold: h, done: make(chan struct{})}
	p.left.Store(int64(len(records)))
	h.owners.Add(1)
	in.flying.Add(1)
	for i := range records {
		p.addPartition(records[i].Partition)
	}
	for i := range records {
		in.client.TryProduce(context.Background(), &records[i], p.acknowledged)
	}
	return p
}

func (p *pending) addPartition(n int32) {
	for _, have := range p.partitions {
		if have == n {
			return
		}
	}
	p.partitions = append(p.partitions, n)
}

// acknowledged is Kafka's answer about one record.
func (p *pending) acknowledged(_ *kgo.Record, err error) {
	if err != nil {
		p.mu.Lock()
		if p.err == nil {
			p.err = err
		}
		p.mu.Unlock()
	}
	if p.left.Add(-1) > 0 {
		return
	}
	p.mu.Lock()
	p.finished = true
	if p.abandoned {
		p.markStuck(-1)
	}
	p.mu.Unlock()
	p.hold.release()
	close(p.done)
	p.in.flying.Done()
}

// wait returns when Kafka has answered for all records, or says that it takes
// too long. In that case the partitions count as stuck until it has, and
// requests for them are refused at once.
func (p *pending) wait(ctx context.Context) *binding.Refusal {
	timer := time.NewTimer(p.in.cfg.AckTimeout)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.in.fromKafka(p.err)
	case <-ctx.Done(): // the client went away; the records go on
		return &binding.Refusal{Code: gone}
	case <-timer.C:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.finished {
		return p.in.fromKafka(p.err)
	}
	p.abandoned = true
	p.markStuck(1)
	return kafkaUnavailable("Kafka has not acknowledged in %s", p.in.cfg.AckTimeout)
}

// markStuck is called with mu held.
func (p *pending) markStuck(n int32) {
	for _, partition := range p.partitions {
		p.in.stuck[partition].Add(n)
	}
}

// accepting says no, without asking Kafka, while a partition of records is
// stuck.
func (in *Ingest) accepting(records []kgo.Record) *binding.Refusal {
	for i := range records {
		if in.stuck[records[i].Partition].Load() > 0 {
			return kafkaUnavailable("Kafka does not acknowledge events of this partition")
		}
	}
	return nil
}

func (in *Ingest) fromKafka(err error) *binding.Refusal {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kerr.MessageTooLarge):
		return binding.Refuse(schemas.TooLarge, "", "Kafka refuses a record of this size").WithFix("spillway setup --check compares the bounds of the topic")
	case errors.Is(err, kgo.ErrMaxBuffered):
		return overloaded()
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		in.lookAgain()
	}
	in.cfg.Logger.Debug("not acknowledged", "topic", in.topic, "err", err)
	in.lastError.Store(&err)
	return kafkaUnavailable("Kafka did not take it: %v", err)
}

func kafkaUnavailable(format string, args ...any) *binding.Refusal {
	return unavailable(schemas.KafkaUnavailable, 2*time.Second, format, args...).WithFix("send it again, with the same id")
}
