package route

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestGroupLostWhileATransactionEnds: the group forgets a member just as it
// commits. The client's group waits for us, and the end of our transaction for
// the group's next heartbeat: one must give way.
func TestGroupLostWhileATransactionEnds(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	s := newStageOn(t, c.ListenAddrs()...)
	cfg := s.config(0)
	cfg.Sessions = 1
	s.run(cfg)
	s.produce(record("acme", "m-0", "x"))
	s.read(topics.Fanout("eu"), 1)
	s.settled()
	var forgotten atomic.Bool
	armed := time.Now()
	c.ControlKey(int16(kmsg.TxnOffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if forgotten.Load() || time.Since(armed) > patience {
			return nil, nil, false
		}
		req := r.(*kmsg.TxnOffsetCommitRequest)
		resp := req.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
		for _, t := range req.Topics { // until the heartbeat has failed: try again
			part := kmsg.NewTxnOffsetCommitResponseTopic()
			part.Topic = t.Topic
			for _, p := range t.Partitions {
				no := kmsg.NewTxnOffsetCommitResponseTopicPartition()
				no.Partition, no.ErrorCode = p.Partition, kerr.CoordinatorLoadInProgress.Code
				part.Partitions = append(part.Partitions, no)
			}
			resp.Topics = append(resp.Topics, part)
		}
		return resp, nil, true
	})
	s.produce(record("acme", "m-1", "x"))
	c.ControlKey(int16(kmsg.Heartbeat), func(r kmsg.Request) (kmsg.Response, error, bool) {
		resp := r.ResponseKind().(*kmsg.HeartbeatResponse)
		resp.ErrorCode = kerr.UnknownMemberID.Code
		time.AfterFunc(500*time.Millisecond, func() { forgotten.Store(true) }) // the client has noticed by then
		return resp, nil, true
	})
	s.read(topics.Fanout("eu"), 2)
	s.settled()
	if n := s.count(topics.Audit()); n != 2 {
		t.Errorf("%d decisions about 2 events", n)
	}
}
