package broker

import (
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// renewAfter is the number of produce requests after which the hook is
// installed anew: kfake keeps, for each hook and connection, closed ones too,
// the last request.
const renewAfter = 4096

// appendTime gives batches produced to a topic with
// message.timestamp.type=LogAppendTime the broker's clock, which kfake does not.
// kfake runs hooks on the one goroutine that also appends, directly before
// the append: so times rise with offsets in every partition, as on Kafka, and
// nothing here needs a lock.
type appendTime struct {
	cluster *kfake.Cluster
	now     func() time.Time
	metrics *metrics

	byName map[string]bool   // topic → LogAppendTime; emptied when any topic changes
	byID   map[[16]byte]bool // same, for Produce v13 and later
	last   *kmsg.ProduceRequest
	seen   int
}

func newAppendTime(c *kfake.Cluster, now func() time.Time, m *metrics) *appendTime {
	a := &appendTime{cluster: c, now: now, metrics: m}
	a.forget()
	return a
}

// install hooks the stamp into Produce, and forgetting into every request that
// may change what a topic is.
func (a *appendTime) install() {
	a.cluster.ControlKey(int16(kmsg.Produce), a.produce)
	for _, key := range []kmsg.Key{kmsg.CreateTopics, kmsg.DeleteTopics, kmsg.AlterConfigs, kmsg.IncrementalAlterConfigs} {
		a.cluster.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
			a.forget()
			return nil, nil, false
		})
	}
}

func (a *appendTime) forget() {
	a.byName = make(map[string]bool)
	a.byID = make(map[[16]byte]bool)
}

// produce stamps the request's batches and leaves the rest to kfake.
func (a *appendTime) produce(kreq kmsg.Request) (kmsg.Response, error, bool) {
	a.renew()
	req, ok := kreq.(*kmsg.ProduceRequest)
	if !ok {
		return nil, nil, false
	}
	a.release(req)
	ms := a.now().UnixMilli()
	for i := range req.Topics {
		t := &req.Topics[i]
		if a.stamps(req.Version, t) {
			a.stampAll(t.Partitions, ms)
		} else {
			unmarkAll(t.Partitions)
		}
	}
	return nil, nil, false
}

func (a *appendTime) stampAll(parts []kmsg.ProduceRequestTopicPartition, ms int64) {
	for i := range parts {
		records, did := stamp(parts[i].Records, ms)
		parts[i].Records = records
		if did >= stamped {
			a.metrics.stamped.Inc()
		}
		if did == rewritten {
			a.metrics.rewritten.Inc()
		}
	}
}

func unmarkAll(parts []kmsg.ProduceRequestTopicPartition) {
	for i := range parts {
		unmark(parts[i].Records)
	}
}

// stamps says whether the topic is configured to LogAppendTime. A topic that
// does not exist is not remembered.
func (a *appendTime) stamps(version int16, t *kmsg.ProduceRequestTopic) bool {
	if version >= 13 {
		yes, known := a.byID[t.TopicID]
		if !known {
			info := a.cluster.TopicIDInfo(t.TopicID)
			if yes = isAppendTime(info); info != nil {
				a.byID[t.TopicID] = yes
			}
		}
		return yes
	}
	yes, known := a.byName[t.Topic]
	if !known {
		info := a.cluster.TopicInfo(t.Topic)
		if yes = isAppendTime(info); info != nil {
			a.byName[t.Topic] = yes
		}
	}
	return yes
}

func isAppendTime(info *kfake.TopicInfo) bool {
	if info == nil {
		return false
	}
	v := info.Configs["message.timestamp.type"]
	return v != nil && strings.EqualFold(*v, "LogAppendTime")
}

// release drops the payload of the request before this one, which kfake has
// answered by now but still points to.
func (a *appendTime) release(req *kmsg.ProduceRequest) {
	if a.last != nil && a.last != req {
		a.last.Topics = nil
	}
	a.last = req
}

// renew replaces the hook by a fresh one now and then; see renewAfter.
func (a *appendTime) renew() {
	if a.seen++; a.seen%renewAfter == 0 {
		a.cluster.ControlKey(int16(kmsg.Produce), a.produce)
		a.cluster.DropControl()
	}
}
