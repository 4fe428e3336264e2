//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestBadInput sends what costs more than a malformed record: each must end in
// `dead` with its reason, and the good record behind it in the same partition
// must be delivered. The other ways to be malformed are part of every load run.
func TestBadInput(t *testing.T) { onEach(t, testBadInput) }

func testBadInput(t *testing.T, s *site) {
	good := s.demoMessage(t, "still here")
	referrer := s.register(t, "interop.Referrer", `{"schema":"{\"type\":\"record\",\"name\":\"Referrer\",\"namespace\":\"interop\",\"fields\":[{\"name\":\"m\",\"type\":\"demo.Message\"}]}",
 "references":[{"name":"demo.Message","subject":"demo.Message","version":1}]}`)
	for i, c := range []struct {
		name, reason string
		record       *kgo.Record
		compressed   bool
	}{
		{"10 MB header", "headers_too_large", &kgo.Record{Value: good, Headers: []kgo.RecordHeader{{Key: "x-big", Value: bytes.Repeat([]byte("x"), 10<<20)}}}, false},
		{"batch that decompresses to half a gigabyte", "undecodable_batch", &kgo.Record{Value: make([]byte, 1<<29)}, true},
		{"schema with a reference", "schema_unsupported", &kgo.Record{Value: append(wire(referrer), good[5:]...)}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := fmt.Sprintf("bad-%d-%d", time.Now().UnixNano(), i)
			client := s.kafka(t, c.compressed)
			c.record.Key, c.record.Partition = []byte("acme"), 0
			c.record.Headers = append(c.record.Headers, kgo.RecordHeader{Key: "ce_id", Value: []byte(id)})
			begin := time.Now()
			after := &kgo.Record{Key: []byte("acme"), Partition: 0, Value: good, Headers: []kgo.RecordHeader{
				{Key: "ce_id", Value: []byte(id + "-good")}, {Key: "ce_subject", Value: []byte(id)},
			}}
			if err := client.ProduceSync(t.Context(), c.record).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := client.ProduceSync(t.Context(), after).FirstErr(); err != nil {
				t.Fatal(err)
			}
			out := s.run(t, "", "sub", "acme", id, "--from", "begin", "--count", "1", "--timeout", "30s", "--output", "json")
			if !strings.Contains(out, id+"-good") {
				t.Errorf("the record behind it: %s", out)
			}
			s.expectDead(t, begin, c.reason)
		})
	}
	t.Run("forged return", func(t *testing.T) {
		id := fmt.Sprintf("forged-%d", time.Now().UnixNano())
		r := &kgo.Record{Key: []byte("acme"), Value: good, Headers: []kgo.RecordHeader{
			{Key: "ce_id", Value: []byte(id)}, {Key: "ce_subject", Value: []byte(id)},
			{Key: "spillway-return", Value: []byte("release;AAAAAAAAAAAAAAAAAAAAAA;0;1;2;overflow;0;1;0;;s1;AAAAAAAAAAAAAAAAAAAAAA")},
		}}
		if err := s.kafka(t, false).ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		out := s.run(t, "", "sub", "acme", id, "--from", "begin", "--count", "1", "--timeout", "30s", "--output", "json")
		if !strings.Contains(out, id) {
			t.Errorf("an event with a forged return is an event like any other: %s", out)
		}
	})
}

// kafka is a producer as any user has it, for records of any size.
func (s *site) kafka(t *testing.T, compressed bool) *kgo.Client {
	t.Helper()
	codec := kgo.NoCompression()
	if compressed {
		codec = kgo.GzipCompression()
	}
	c, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(s.at().Kafka, ",")...), kgo.DefaultProduceTopic("spillway.events"),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(codec), kgo.ProducerBatchMaxBytes(600<<20), kgo.BrokerMaxWriteBytes(1<<30))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func wire(id int) []byte { return binary.BigEndian.AppendUint32([]byte{0}, uint32(id)) }

// demoMessage is a demo.Message in the wire format.
func (s *site) demoMessage(t *testing.T, text string) []byte {
	t.Helper()
	return []byte(s.run(t, `{"text":"`+text+`"}`, "schemas", "encode", "demo.Message", "-"))
}

// register registers a schema as any client would and returns its id.
func (s *site) register(t *testing.T, subject, body string) int {
	t.Helper()
	resp, err := http.Post(s.at().Registry+"/subjects/"+subject+"/versions", "application/vnd.schemaregistry.v1+json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ ID int }
	if err := json.Unmarshal(text, &got); err != nil || got.ID == 0 {
		t.Fatalf("register %s: %s", subject, text)
	}
	return got.ID
}

// expectDead waits for a dead letter with this reason.
func (s *site) expectDead(t *testing.T, since time.Time, reason string) {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(s.at().Kafka, ",")...), kgo.ConsumeTopics("spillway.dead"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AfterMilli(since.Add(-time.Second).UnixMilli())), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.BrokerMaxReadBytes(100<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	seen := map[string]int{}
	for seen[reason] == 0 {
		fetches := c.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("no dead letter %s; seen %v", reason, seen)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			for _, h := range r.Headers {
				if h.Key == "spillway-reason" {
					seen[string(h.Value)]++
				}
			}
		})
	}
}
