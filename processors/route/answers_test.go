package route

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/registry"
)

// slowRegistry answers no question in time.
type slowRegistry struct {
	*fakeRegistry
	queued []int
}

func (s *slowRegistry) Ask(id int) bool { s.queued = append(s.queued, id); return true }

func (s *slowRegistry) Resolve(ctx context.Context, _ int) (*registry.Schema, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestLearnIsBounded: a registry that does not answer costs a batch 50 ms at
// most, and all batches together a small share of the time; what is not waited
// for is queued.
func TestLearnIsBounded(t *testing.T) {
	slow := &slowRegistry{fakeRegistry: newFakeRegistry(t)}
	k := newKnown(slow)
	now := time.Now()
	k.at(now)
	for id := range 40 {
		k.miss(schemas.AppendWireHeader(nil, int32(100+id)))
	}
	if len(k.asked) != maxAsked || len(slow.queued) != 40-maxAsked {
		t.Errorf("%d asked and %d queued, want %d and %d", len(k.asked), len(slow.queued), maxAsked, 40-maxAsked)
	}
	if waited := k.learn(t.Context(), time.Now); waited < maxWait/2 || waited > 20*maxWait {
		t.Errorf("waited %s, want about %s", waited, maxWait)
	}
	slow.queued = nil
	k.at(now.Add(20 * time.Millisecond))
	k.miss(schemas.AppendWireHeader(nil, 200))
	if waited := k.learn(t.Context(), time.Now); waited != 0 || len(slow.queued) != 1 {
		t.Errorf("without credit: waited %s, queued %v", waited, slow.queued)
	}
	k.at(now.Add(time.Minute))
	if k.credit != maxWait {
		t.Errorf("credit after a minute is %s, want %s", k.credit, maxWait)
	}
	if s, age := k.Schema(200); s != nil || age >= 0 {
		t.Errorf("an id without an answer: %v, %d", s, age)
	}
}

// TestOutputKeeps: what is handed out for one transaction never moves or
// overlaps, however much of it there is.
func TestOutputKeeps(t *testing.T) {
	var o output
	for range 3 {
		var kept [][]byte
		for i := range 5000 {
			b := o.buffer(i % 700)
			for range i % 900 { // more than was asked for, now and then
				b = append(b, byte(i))
			}
			kept = append(kept, o.keep(b))
			r := o.record(placeOf{1, int64(i)})
			r.Partition = int32(i)
			h := append(o.headersOf(2), kgo.RecordHeader{Key: "a"}, kgo.RecordHeader{Key: "b"})
			if len(h) != 2 || cap(h) != 2 {
				t.Fatalf("headers have room for %d", cap(h))
			}
		}
		for i, b := range kept {
			if len(b) != i%900 {
				t.Fatalf("buffer %d has %d bytes, want %d", i, len(b), i%900)
			}
			for _, c := range b {
				if c != byte(i) {
					t.Fatalf("buffer %d was written over", i)
				}
			}
			if r := &o.records[i/recordChunk][i%recordChunk]; r.Partition != int32(i) || o.eventOf(r).offset != int64(i) {
				t.Fatalf("record %d has moved", i)
			}
		}
		o.reuse()
	}
}

func TestTraceID(t *testing.T) {
	for in, want := range map[string]string{
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01": "4bf92f3577b34da6a3ce929d0e0e4736",
		"00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01": "",
		"": "", "00-4bf92f35": "",
	} {
		if got := traceID(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
