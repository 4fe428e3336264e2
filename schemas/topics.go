package schemas

import (
	"fmt"
	"strconv"
	"time"
)

// DefaultPrefix is what topic names begin with unless configured otherwise.
const DefaultPrefix = "spillway."

// Size bounds of DESIGN section 3.2, in bytes.
const (
	MaxEvent       = 1 << 20  // an event, as Avro and as JSON
	MaxClientBatch = 16 << 20 // a batch as clients read it, decompressed; topics anyone may write
	MaxRouteBatch  = 20 << 20 // topics written by Spillway alone: what can be read is never too large to write on
)

// DefaultPartitions is P, the number of partitions of `events`, unless
// `spillway setup` is told otherwise. It is fixed for a prefix.
const DefaultPartitions = 12

// RetryTiers are the delays of the retry topics, shortest first.
var RetryTiers = []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second}

// Topics names the topics of one deployment. The zero value has no prefix;
// use Topics{Prefix: DefaultPrefix}.
type Topics struct{ Prefix string }

// Events is the one log that every event enters by.
func (t Topics) Events() string { return t.Prefix + "events" }

// Fanout holds what the fan-out nodes of a region deliver, ready to send.
func (t Topics) Fanout(region string) string { return t.Prefix + "fanout." + region }

// Overflow holds events that wait for a token of their tenant's bucket.
func (t Topics) Overflow() string { return t.Prefix + "overflow" }

// Work holds slow events that wait for a worker.
func (t Topics) Work() string { return t.Prefix + "work" }

// Retry is the retry topic of one tier: `retry.16s`.
func (t Topics) Retry(tier time.Duration) string {
	return t.Prefix + "retry." + strconv.Itoa(int(tier/time.Second)) + "s"
}

// Dead holds dead letters: the original bytes and why.
func (t Topics) Dead() string { return t.Prefix + "dead" }

// Audit holds Transition, Receipt and SessionRange records.
func (t Topics) Audit() string { return t.Prefix + "audit" }

// RouteState is what route must remember, packed.
func (t Topics) RouteState() string { return t.Prefix + "route.state" }

// Control is the compacted topic of tenants, endpoints and flags.
func (t Topics) Control() string { return t.Prefix + "control" }

// Nodes holds the heartbeats of fan-out nodes.
func (t Topics) Nodes() string { return t.Prefix + "nodes" }

// A TopicSpec says how one topic must be: `spillway setup` creates it so, or
// reports each difference.
type TopicSpec struct {
	Name       string
	Partitions int32
	Config     map[string]string // topic configuration entries that are checked
}

// Layout lists all topics of a deployment (DESIGN section 3.1).
func (t Topics) Layout(partitions int32, regions []string, compactControl bool) []TopicSpec {
	const day = 24 * time.Hour
	specs := []TopicSpec{
		spec(t.Events(), partitions, 7*day, MaxClientBatch, "message.timestamp.type", "LogAppendTime"),
		spec(t.Overflow(), partitions, 7*day, MaxRouteBatch),
		spec(t.Work(), partitions, 7*day, MaxRouteBatch),
		spec(t.Dead(), partitions, 30*day, MaxRouteBatch),
		spec(t.Audit(), partitions, 7*day, MaxRouteBatch, "message.timestamp.type", "LogAppendTime"),
		spec(t.RouteState(), partitions, 4*day, MaxRouteBatch),
		spec(t.Nodes(), 1, time.Hour, MaxRouteBatch, "message.timestamp.type", "LogAppendTime"),
	}
	for _, region := range regions {
		specs = append(specs, spec(t.Fanout(region), partitions, day, MaxRouteBatch))
	}
	for _, tier := range RetryTiers {
		specs = append(specs, spec(t.Retry(tier), partitions, 7*day, MaxRouteBatch))
	}
	control := TopicSpec{Name: t.Control(), Partitions: 1, Config: map[string]string{
		"cleanup.policy": "compact", "max.message.bytes": fmt.Sprint(MaxRouteBatch),
	}}
	if !compactControl { // the embedded broker's compaction can lose committed values
		control.Config["cleanup.policy"] = "delete"
		control.Config["retention.ms"] = "-1"
	}
	return append(specs, control)
}

func spec(name string, partitions int32, keep time.Duration, maxBatch int, extra ...string) TopicSpec {
	c := map[string]string{
		"cleanup.policy":    "delete",
		"retention.ms":      strconv.FormatInt(keep.Milliseconds(), 10),
		"max.message.bytes": strconv.Itoa(maxBatch),
	}
	for i := 0; i+1 < len(extra); i += 2 {
		c[extra[i]] = extra[i+1]
	}
	return TopicSpec{Name: name, Partitions: partitions, Config: c}
}

// HomePartition is the one partition of `events` that decides about a key:
// murmur2(key) mod partitions, as Kafka's Java client and franz-go compute it.
// Roles use it with a manual partitioner, never a count from metadata.
func HomePartition(key []byte, partitions int32) int32 {
	return int32((murmur2(key) & 0x7fffffff) % uint32(partitions))
}

// murmur2 is the hash of org.apache.kafka.common.utils.Utils.murmur2.
func murmur2(b []byte) uint32 {
	const (
		seed uint32 = 0x9747b28c
		m    uint32 = 0x5bd1e995
		r           = 24
	)
	h := seed ^ uint32(len(b))
	for len(b) >= 4 {
		k := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
		b = b[4:]
		k *= m
		k ^= k >> r
		k *= m
		h *= m
		h ^= k
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(b[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
