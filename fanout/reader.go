package fanout

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/spillway/spillway/fanout/tail"
	"github.com/spillway/spillway/schemas"
)

// chunkBytes is about what one read for a place older than the tail asks for.
const chunkBytes = 256 << 10

// maxReads is how many such reads a node has under way at once.
const maxReads = 16

// errPassed says that Kafka no longer keeps the offset asked for.
var errPassed = errors.New("the offset is older than what the topic keeps")

// A reader reads stretches of fanout.<region> at any offset, for places that
// the tail has passed. Fetches are single requests without a session, on
// their own connection, so that none waits behind the source's long poll.
// Safe for concurrent use.
type reader struct {
	cl     *kgo.Client
	adm    *kadm.Client
	topic  string
	events string
	slots  chan struct{} // one for each read under way
	m      *metrics
	names  *names

	mu      sync.Mutex // guards:
	ids     map[string]topicID
	leaders map[int32]int32 // of topic's partitions; nil: ask
}

// errUndecodable says that a batch cannot be decoded, wherever it is read.
var errUndecodable = errors.New("a batch cannot be decoded")

// A chunk is some consecutive records.
type chunk struct {
	hole    int64 // before them are so many offsets in a batch that cannot be decoded
	records []tail.Record
	offsets []int64 // of the records
	next    int64   // offset to go on from
	start   int64   // oldest offset that Kafka keeps
	end     int64   // offset after the newest committed record
	log     topicID // where offsets are good
}

// A topicID tells a topic from one of the same name that was made anew.
type topicID = [16]byte

func newReader(cl *kgo.Client, topics schemas.Topics, region string, m *metrics) *reader {
	return &reader{
		cl: cl, adm: kadm.NewClient(cl), topic: topics.Fanout(region), events: topics.Events(),
		slots: make(chan struct{}, maxReads), m: m, names: newNames(),
	}
}

// fetch reads what is committed from offset on, maxBytes or a batch at least.
// At the end of the partition it returns a chunk without records.
func (r *reader) fetch(ctx context.Context, partition int32, offset int64, maxBytes int32) (chunk, error) {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return chunk{}, fmt.Errorf("wait for a read of %s: %w", r.topic, ctx.Err())
	}
	r.m.replayReads.Inc()
	for attempt, twice := 0, false; ; attempt++ {
		c, err := r.fetchOnce(ctx, partition, offset, maxBytes)
		if attempt < 3 && kerr.IsRetriable(err) && ctx.Err() == nil {
			r.forget()
			continue
		}
		if errors.Is(err, kerr.OffsetOutOfRange) {
			return c, errPassed
		}
		if errors.Is(err, errUndecodable) {
			if !twice && ctx.Err() == nil { // what the network spoilt comes whole the next time
				twice = true
				continue
			}
			return c, nil
		}
		if err != nil {
			r.forget() // it may be that the leader is not there any more
			return c, fmt.Errorf("read %s/%d at %d: %w", r.topic, partition, offset, err)
		}
		return c, nil
	}
}

func (r *reader) fetchOnce(ctx context.Context, partition int32, offset int64, maxBytes int32) (chunk, error) {
	leader, id, err := r.leader(ctx, partition)
	if err != nil {
		return chunk{}, err
	}
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition, part.FetchOffset, part.PartitionMaxBytes = partition, offset, maxBytes
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID, topic.Partitions = r.topic, id, append(topic.Partitions, part)
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes, req.IsolationLevel, req.SessionEpoch = maxBytes, 1, -1
	req.Topics = append(req.Topics, topic)
	kresp, err := r.cl.Broker(int(leader)).RetriableRequest(ctx, req)
	if err != nil {
		return chunk{}, err
	}
	resp := kresp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return chunk{}, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return chunk{next: offset}, fmt.Errorf("the answer has %d topics", len(resp.Topics))
	}
	c, err := r.decode(&resp.Topics[0].Partitions[0], offset)
	c.log = id
	return c, err
}

func (r *reader) decode(part *kmsg.FetchResponseTopicPartition, offset int64) (chunk, error) {
	opts := kgo.ProcessFetchPartitionOpts{
		Offset: offset, Topic: r.topic, Partition: part.Partition, IsolationLevel: kgo.ReadCommitted(),
	}
	got, next := kgo.ProcessFetchPartition(opts, part, kgo.DefaultDecompressor(), nil)
	c := chunk{next: next, start: got.LogStartOffset, end: got.LastStableOffset}
	if code := (*kerr.Error)(nil); got.Err != nil && !errors.As(got.Err, &code) {
		if len(got.Records) == 0 {
			return r.over(c, opts, part)
		}
		got.Err = nil // it comes again behind those that are good
	}
	if got.Err != nil {
		return c, got.Err
	}
	for _, rec := range got.Records {
		out, err := r.names.record(rec)
		if err == nil { // the source counts the others
			c.records, c.offsets = append(c.records, out), append(c.offsets, rec.Offset)
		}
	}
	return c, nil
}

// over makes c end behind the first batch that cannot be decoded.
func (r *reader) over(c chunk, opts kgo.ProcessFetchPartitionOpts, part *kmsg.FetchResponseTopicPartition) (chunk, error) {
	for at := opts.Offset; ; {
		b, ok := schemas.BatchAt(part.RecordBatches, at)
		if !ok || b.Raw == nil {
			return c, fmt.Errorf("offset %d is not in what was read", at)
		}
		one := *part
		one.RecordBatches, opts.Offset = b.Raw, at
		got, _ := kgo.ProcessFetchPartition(opts, &one, kgo.DefaultDecompressor(), nil)
		at = b.Next
		if got.Err != nil {
			c.hole, c.next = b.Next-b.Offset, b.Next
			return c, fmt.Errorf("offsets %d to %d: %w: %w", b.Offset, b.Next-1, errUndecodable, got.Err)
		}
	}
}

// leader returns the broker that has a partition, and the topic's id.
func (r *reader) leader(ctx context.Context, partition int32) (int32, topicID, error) {
	r.mu.Lock()
	leaders, ids := r.leaders, r.ids
	r.mu.Unlock()
	if leaders == nil {
		meta, err := r.adm.Metadata(ctx, r.topic, r.events)
		if err != nil {
			return 0, topicID{}, fmt.Errorf("ask for metadata: %w", err)
		}
		if err := meta.Topics[r.topic].Err; err != nil {
			return 0, topicID{}, fmt.Errorf("ask for metadata of %s: %w", r.topic, err)
		}
		leaders, ids = make(map[int32]int32), make(map[string]topicID)
		for name, t := range meta.Topics {
			ids[name] = t.ID
		}
		for n, p := range meta.Topics[r.topic].Partitions {
			leaders[n] = p.Leader
		}
		r.mu.Lock()
		r.leaders, r.ids = leaders, ids
		r.mu.Unlock()
	}
	leader, ok := leaders[partition]
	if !ok {
		r.forget()
		return 0, topicID{}, fmt.Errorf("%s has no partition %d", r.topic, partition)
	}
	return leader, ids[r.topic], nil
}

// log is the id of the topic that offsets are good in, as it was last asked for.
func (r *reader) log(ctx context.Context, partition int32) (topicID, error) {
	_, id, err := r.leader(ctx, partition)
	return id, err
}

// logNow asks Kafka for the id of the topic.
func (r *reader) logNow(ctx context.Context) (topicID, error) {
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	topics, err := r.adm.ListTopics(ctx, r.topic)
	if err != nil {
		return topicID{}, fmt.Errorf("ask for the id of %s: %w", r.topic, err)
	}
	t := topics[r.topic]
	if t.Err != nil {
		return topicID{}, fmt.Errorf("ask for the id of %s: %w", r.topic, t.Err)
	}
	r.forget()
	return topicID(t.ID), nil
}

func (r *reader) forget() {
	r.mu.Lock()
	r.leaders, r.ids = nil, nil
	r.mu.Unlock()
}

// epoch names the log that `events` is now, as one partition sees it. It asks
// Kafka each time: a topic that was made anew has another.
func (r *reader) epoch(ctx context.Context, partition int32) (uint64, error) {
	r.forget()
	if _, _, err := r.leader(ctx, partition); err != nil {
		return 0, err
	}
	r.mu.Lock()
	id, ok := r.ids[r.events]
	r.mu.Unlock()
	if !ok || id == (topicID{}) {
		return 0, fmt.Errorf("Kafka knows no topic %s", r.events)
	}
	return schemas.Epoch(id, partition), nil
}

// bounds returns the oldest offset that is kept and the one after the newest
// committed record.
func (r *reader) bounds(ctx context.Context, partition int32) (start, end int64, err error) {
	starts, err := r.adm.ListStartOffsets(ctx, r.topic)
	if err != nil {
		return 0, 0, fmt.Errorf("ask for the oldest offset of %s: %w", r.topic, err)
	}
	ends, err := r.adm.ListCommittedOffsets(ctx, r.topic)
	if err != nil {
		return 0, 0, fmt.Errorf("ask for the newest offset of %s: %w", r.topic, err)
	}
	return listed(starts, ends, r.topic, partition)
}

func listed(starts, ends kadm.ListedOffsets, topic string, partition int32) (start, end int64, err error) {
	s, ok := starts.Lookup(topic, partition)
	e, ok2 := ends.Lookup(topic, partition)
	if !ok || !ok2 {
		return 0, 0, fmt.Errorf("%s has no partition %d", topic, partition)
	}
	if err := errors.Join(s.Err, e.Err); err != nil {
		return 0, 0, fmt.Errorf("offsets of %s/%d: %w", topic, partition, err)
	}
	return s.Offset, e.Offset, nil
}

// afterTime returns the first offset whose record was appended at ms or later;
// the end of the partition if there is none.
func (r *reader) afterTime(ctx context.Context, partition int32, ms int64) (int64, error) {
	offsets, err := r.adm.ListOffsetsAfterMilli(ctx, ms, r.topic)
	if err != nil {
		return 0, fmt.Errorf("ask %s for the offset at %d ms: %w", r.topic, ms, err)
	}
	o, ok := offsets.Lookup(r.topic, partition)
	if !ok {
		return 0, fmt.Errorf("%s has no partition %d", r.topic, partition)
	}
	return o.Offset, o.Err
}

// eventsEnd is the offset that the next record of `events` will have.
func (r *reader) eventsEnd(ctx context.Context, partition int32) (int64, error) {
	ends, err := r.adm.ListEndOffsets(ctx, r.events)
	if err != nil {
		return 0, fmt.Errorf("ask for the newest offset of %s: %w", r.events, err)
	}
	e, ok := ends.Lookup(r.events, partition)
	if !ok {
		return 0, fmt.Errorf("%s has no partition %d", r.events, partition)
	}
	return e.Offset, e.Err
}

// near is how close locate comes: so many offsets are read over instead.
const near = 64

// locate finds where to read so as to miss nothing after a place: an offset
// before which no record is after it. Cursors only grow along a partition, so
// it halves the stretch: log2(n) small reads. start is the oldest offset that
// is kept.
func (r *reader) locate(ctx context.Context, partition int32, at schemas.Cursor) (offset, start int64, err error) {
	start, end, err := r.bounds(ctx, partition)
	if err != nil {
		return 0, 0, err
	}
	lo := start
	for hi := end; hi-lo > near; {
		mid := lo + (hi-lo)/2
		found, cursor, err := r.probe(ctx, partition, mid, hi)
		if err != nil {
			return 0, 0, err
		}
		if found < hi && (cursor.Epoch != at.Epoch || cursor.Offset <= at.Offset) { // another epoch here is an older one
			lo = found
		} else {
			hi = mid
		}
	}
	return lo, start, nil
}

// probe returns offset and cursor of the first event from an offset on, or an
// offset not below end if there is none before end: transactions leave markers
// and aborted records in between.
func (r *reader) probe(ctx context.Context, partition int32, from, end int64) (int64, schemas.Cursor, error) {
	for from < end {
		c, err := r.fetch(ctx, partition, from, 1)
		if err != nil {
			return 0, schemas.Cursor{}, err
		}
		if len(c.records) > 0 {
			return c.offsets[0], schemas.Cursor{Epoch: c.records[0].Epoch, Offset: c.records[0].Cursor}, nil
		}
		if c.next <= from {
			break
		}
		from = c.next
	}
	return end, schemas.Cursor{}, nil
}
