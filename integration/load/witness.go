package load

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// A witness reads what Spillway says of this run's events: dead letters and
// the decisions on `audit`, as any Kafka client could.
type witness struct {
	run    string
	topics schemas.Topics
	client *kgo.Client
	ids    transitionIDs

	mu         sync.Mutex
	dead       map[string]int // malformed records, by reason
	overQuota  int            // events of the noisy tenant that were too much
	deadOther  map[string]int // good events that are dead for another reason
	duplicates int
	waited     int // good events that waited for their schema or tenant
}

// transitionIDs are the schema ids under which Transitions are written.
type transitionIDs map[int32]bool

// newWitness begins at the ends of dead and audit as they are now.
func newWitness(ctx context.Context, opts []kgo.Opt, topics schemas.Topics, run string, ids transitionIDs) (*witness, error) {
	w := &witness{run: run, topics: topics, ids: ids, dead: map[string]int{}, deadOther: map[string]int{}}
	base, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, err
	}
	defer base.Close()
	ends, err := kadm.NewClient(base).ListEndOffsets(ctx, topics.Dead(), topics.Audit())
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ends of %s and %s: %w", topics.Dead(), topics.Audit(), err)
	}
	from := map[string]map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) {
		if from[o.Topic] == nil {
			from[o.Topic] = map[int32]kgo.Offset{}
		}
		from[o.Topic][o.Partition] = kgo.NewOffset().At(o.Offset)
	})
	opts = append(opts, kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(16<<20), kgo.BrokerMaxReadBytes(64<<20))
	w.client, err = kgo.NewClient(opts...)
	return w, err
}

// watch reads until ctx ends.
func (w *witness) watch(ctx context.Context) {
	defer w.client.Close()
	for ctx.Err() == nil {
		fetches := w.client.PollFetches(ctx)
		w.mu.Lock()
		fetches.EachRecord(w.note)
		w.mu.Unlock()
	}
}

func (w *witness) note(r *kgo.Record) {
	if r.Topic == w.topics.Audit() {
		w.noteDecision(r)
		return
	}
	var id, reason, run string
	for _, h := range r.Headers {
		switch h.Key {
		case schemas.HeaderID:
			id = string(h.Value)
		case schemas.HeaderReason:
			reason = string(h.Value)
		case runHeader:
			run = string(h.Value)
		}
	}
	switch {
	case run == w.run, strings.HasPrefix(id, w.run+"-bad-"):
		w.dead[reason]++
	case !strings.HasPrefix(id, w.run+"-"):
	case reason == string(schemas.OverQuota) && string(r.Key) == Noisy:
		w.overQuota++
	default:
		w.deadOther[reason]++
	}
}

func (w *witness) noteDecision(r *kgo.Record) {
	id, body, ok := schemas.WireHeader(r.Value)
	if !ok || !w.ids[id] {
		return
	}
	t, err := schemas.DecodeTransition(body)
	if err != nil || !strings.HasPrefix(t.EventID, w.run+"-") {
		return
	}
	switch {
	case t.Status == schemas.Dup:
		w.duplicates++
	case (t.Reason == schemas.AwaitSchema || t.Reason == schemas.AwaitTenant) && !strings.HasPrefix(t.EventID, w.run+"-bad-"):
		w.waited++
	}
}

// A Verdict is what Spillway said of a run's events.
type Verdict struct {
	Duplicates int            `json:"duplicates"`
	Dead       map[string]int `json:"dead"`       // malformed records by reason
	OverQuota  int            `json:"over_quota"` // of the noisy tenant
	DeadGood   map[string]int `json:"dead_good"`  // good events that died: must be empty
	Waited     int            `json:"waited"`     // good events that waited for their schema or tenant: they may come later than others (DESIGN section 1)
}

func (w *witness) verdict() Verdict {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Verdict{Duplicates: w.duplicates, Dead: maps.Clone(w.dead), OverQuota: w.overQuota, DeadGood: maps.Clone(w.deadOther), Waited: w.waited}
}
