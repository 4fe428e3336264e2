//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// sending is a load whose every acknowledged event is in a ledger.
//
//	stream 1 ─ c1.1, c1.2, c1.2 again, c1.3 … ─▶ ingest ─▶ ledger
//	stream 2 ─ c2.1, c2.2 …                   ─▶ Kafka  ─▶ ledger
//
// A stream sends the next event when the last one was acknowledged; one that
// was refused, or lost with its connection, is sent again with the same id.
type sending struct {
	s      *site
	ledger journal
	run    string
	good   []byte // a demo.Message
	kafka  *kgo.Client
	end    context.CancelFunc
	wg     sync.WaitGroup

	acked, ackedHTTP, refused, slowest atomic.Int64 // slowest in ms
}

// A stream is one channel of one tenant.
type stream struct {
	tenant string
	via    string // http, kafka
	pause  time.Duration
	burst  int   // events at once; 0: 1
	stray  int32 // the partition is this much away from its home
	broken bool  // the value does not decode
}

// An ackLine is what audit_records reads of an event.
type ackLine struct {
	Tenant    string `json:"tenant"`
	ID        string `json:"id"`
	Via       string `json:"via"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

var usualStreams = []stream{
	{tenant: "kill-a", via: "http", pause: 50 * time.Millisecond},
	{tenant: "kill-b", via: "http", pause: 50 * time.Millisecond},
	{tenant: "kill-a", via: "kafka", pause: 40 * time.Millisecond},
	{tenant: "kill-c", via: "kafka", pause: 40 * time.Millisecond},
	{tenant: "kill-d", via: "kafka", pause: 40 * time.Millisecond},
	{tenant: "kill-e", via: "kafka", pause: 100 * time.Millisecond, stray: 1},
	{tenant: "kill-slow", via: "kafka", pause: 4 * time.Second, burst: 15},
	{tenant: "kill-slow", via: "http", pause: 5 * time.Second, burst: 15},
	{tenant: "kill-f", via: "kafka", pause: time.Second, broken: true},
}

// startSending sends until stop, with the usual streams if none is given.
func startSending(t *testing.T, s *site, ledger string, streams ...stream) *sending {
	t.Helper()
	if len(streams) == 0 {
		streams = usualStreams
	}
	ctx, end := context.WithCancel(context.Background())
	l := &sending{
		s: s, ledger: journal{create(t, ledger)}, run: fmt.Sprintf("s%d", time.Now().UnixNano()), good: s.demoMessage(t, "hi"), end: end,
	}
	var err error
	l.kafka, err = kgo.NewClient(kgo.SeedBrokers(strings.Split(s.at().Kafka, ",")...), kgo.DefaultProduceTopic("spillway.events"),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0))
	if err != nil {
		t.Fatal(err)
	}
	for i, st := range streams {
		token := ""
		if st.via == "http" {
			token = strings.TrimSpace(s.run(t, "", "token", st.tenant, "--role", "producer"))
		}
		l.wg.Go(func() { l.stream(ctx, t, fmt.Sprintf("%s-%d", l.run, i), token, st) })
	}
	t.Cleanup(func() {
		end()
		l.wg.Wait()
		l.kafka.Close()
	})
	return l
}

// stop ends the streams; each is acknowledged for its last event first.
func (l *sending) stop(t *testing.T) {
	t.Helper()
	l.end()
	l.wg.Wait()
	t.Logf("sent: %d acknowledged, %d refused or cut off and sent again, slowest answer %d ms", l.acked.Load(), l.refused.Load(), l.slowest.Load())
	if l.acked.Load() == 0 {
		t.Error("nothing was acknowledged")
	}
}

func (l *sending) stream(ctx context.Context, t *testing.T, channel, token string, st stream) {
	tick := time.NewTicker(st.pause)
	defer tick.Stop()
	for n := 1; ; {
		for range max(st.burst, 1) {
			id := fmt.Sprintf("%s.%d", channel, n)
			times := 1
			if n%16 == 0 {
				times = 2 // a repeat, as of a producer that did not see the answer
			}
			for range times {
				if !l.send(t, channel, id, token, st) {
					return
				}
			}
			n++
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// send sends one event until it is acknowledged, 90 s at most.
func (l *sending) send(t *testing.T, channel, id, token string, st stream) bool {
	deadline := time.Now().Add(90 * time.Second)
	for {
		at, err := l.once(channel, id, token, st)
		if err == nil {
			l.acked.Add(1)
			if st.via == "http" {
				l.ackedHTTP.Add(1)
			}
			l.ledger.write(t, ackLine{st.tenant, id, st.via, at.Partition, at.Offset})
			return true
		}
		l.refused.Add(1)
		if !errors.Is(err, errAgain) || time.Now().After(deadline) {
			t.Errorf("%s of %s by %s: %v", id, st.tenant, st.via, err)
			return false
		}
		<-time.After(100 * time.Millisecond)
	}
}

// errAgain means that the same event must be sent again.
var errAgain = errors.New("not acknowledged")

func (l *sending) once(channel, id, token string, st stream) (at ackLine, err error) {
	if st.via == "http" {
		return l.post(channel, id, token)
	}
	value := l.good
	if st.broken {
		value = append(bytes.Clone(l.good[:5]), 0xff)
	}
	r := &kgo.Record{
		Key: []byte(st.tenant), Value: value, Partition: (homeOf(st.tenant) + st.stray) % 12,
		Headers: []kgo.RecordHeader{{Key: "ce_id", Value: []byte(id)}, {Key: "ce_subject", Value: []byte(channel)}},
	}
	if err := l.kafka.ProduceSync(context.Background(), r).FirstErr(); err != nil {
		return at, fmt.Errorf("%w: %w", errAgain, err)
	}
	return ackLine{Partition: r.Partition, Offset: r.Offset}, nil
}

// patient is longer than ingest may take for its answer.
var patient = &http.Client{Timeout: 15 * time.Second}

func (l *sending) post(channel, id, token string) (at ackLine, err error) {
	req, err := http.NewRequest(http.MethodPost, l.s.at().Ingest+"/v1/events?type=demo.Message&subject="+channel+"&id="+id, strings.NewReader(`{"text":"hi"}`))
	if err != nil {
		return at, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	began := time.Now()
	resp, err := patient.Do(req)
	if err != nil {
		return at, fmt.Errorf("%w: %w", errAgain, err)
	}
	defer resp.Body.Close()
	if took := time.Since(began).Milliseconds(); took > l.slowest.Load() {
		l.slowest.Store(took)
	}
	text, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return at, fmt.Errorf("%w: %w", errAgain, err)
	case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "":
		return at, fmt.Errorf("503 without Retry-After: %s", text)
	case resp.StatusCode == http.StatusServiceUnavailable, resp.StatusCode == http.StatusTooManyRequests:
		return at, fmt.Errorf("%w: %s: %s", errAgain, resp.Status, text)
	case resp.StatusCode != http.StatusAccepted:
		return at, fmt.Errorf("%s: %s", resp.Status, text)
	}
	var answer struct {
		Events []struct {
			Partition int32  `json:"partition"`
			Offset    *int64 `json:"offset"`
		} `json:"events"`
	}
	if err := json.Unmarshal(text, &answer); err != nil || len(answer.Events) != 1 {
		return at, fmt.Errorf("answer %s: %w", text, err)
	}
	at = ackLine{Partition: answer.Events[0].Partition, Offset: -1}
	if o := answer.Events[0].Offset; o != nil {
		at.Offset = *o
	}
	return at, nil
}

// homeOf is where Kafka's own partitioner puts a key among 12 partitions.
func homeOf(key string) int32 {
	r := &kgo.Record{Key: []byte(key)}
	return int32(kgo.StickyKeyPartitioner(nil).ForTopic("").Partition(r, 12))
}
