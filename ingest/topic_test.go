package ingest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// TestTopicMadeAnew deletes events and creates it again: ingest refuses at
// once, says why, and goes on with the new topic by itself.
func TestTopicMadeAnew(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *stack) {
		post := func() result {
			return s.do(call{target: Path + "?type=demo.Message", token: s.producer("acme"), body: hi})
		}
		if r := post(); r.status != 202 {
			t.Fatalf("%d %s", r.status, r.body)
		}
		before := s.in.log.Load().id
		admin := kadm.NewClient(s.in.client)
		if gone, err := admin.DeleteTopic(t.Context(), s.in.topic); errors.Join(err, gone.Err) != nil {
			t.Fatal(err, gone.Err)
		}
		time.Sleep(topicEvery + time.Second) //nolint:forbidigo // moves the bubble's clock
		if err := s.in.Ready(); err == nil || !strings.Contains(err.Error(), s.in.topic) {
			t.Errorf("ready without its topic: %v", err)
		}
		began := time.Now()
		if r := post(); r.status != 503 || r.Error.Code != "kafka_unavailable" || r.header.Get("Retry-After") == "" || time.Since(began) > 100*time.Millisecond {
			t.Errorf("%d %s after %s", r.status, r.body, time.Since(began))
		}
		if _, err := admin.CreateTopic(t.Context(), s.in.cfg.Partitions, 1, nil, s.in.topic); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * topicRetry) //nolint:forbidigo // moves the bubble's clock
		if err := s.in.Ready(); err != nil {
			t.Errorf("not ready with the new topic: %v", err)
		}
		if r := post(); r.status != 202 {
			t.Errorf("%d %s", r.status, r.body)
		}
		if s.in.log.Load().id == before {
			t.Error("the new topic has the id of the old one")
		}
	})
}
