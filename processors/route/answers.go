package route

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/codec"
	"github.com/spillway/spillway/schemas/registry"
)

// tenants are the line's Tenants during one batch: one version of the policies.
type tenants struct {
	source Tenants
	now    Policies
	age    int64 // ms
}

// at takes the newest version for the batch that begins. They are at least as
// fresh as was said before they were taken.
func (t *tenants) at(now time.Time) {
	t.age = now.Sub(t.source.FreshAt()).Milliseconds()
	t.now = t.source.Policies()
}

func (t *tenants) Policy(tenant string) (*schemas.Policy, bool) { return t.now.Policy(tenant) }
func (t *tenants) Age() int64                                   { return t.age }

// known are the line's Schemas: those that the registry's client knows, with
// a session's own copy in front, for an id never changes its meaning.
type known struct {
	source Schemas
	byID   map[int32]*schema // at most maxKnown; at the bound it begins anew
	now    time.Time         // of the batch
	credit time.Duration     // time that may be spent waiting for the registry
	asked  []int             // memory of learn
}

const (
	maxKnown  = 10_000
	maxWait   = 50 * time.Millisecond // for the registry, in one batch
	waitShare = 20                    // 1/20 of the time at most
	maxAsked  = 16                    // ids waited for in one batch; the others are only queued
)

func newKnown(source Schemas) known {
	return known{source: source, byID: make(map[int32]*schema), credit: maxWait}
}

// at sets the time of the batch that begins.
func (k *known) at(now time.Time) {
	if !k.now.IsZero() {
		k.credit = min(maxWait, k.credit+now.Sub(k.now)/waitShare)
	}
	k.now = now
}

// Schema is what the line asks.
func (k *known) Schema(id int32) (processors.Schema, int64) {
	if s := k.byID[id]; s != nil {
		return s, 0
	}
	found, state := k.source.ByID(int(id))
	switch {
	case found != nil:
		return k.keep(id, found), 0
	case state.Answer == registry.Absent:
		return nil, max(0, k.now.Sub(state.Asked).Milliseconds())
	}
	return nil, -1
}

func (k *known) keep(id int32, s *registry.Schema) *schema {
	if len(k.byID) >= maxKnown {
		clear(k.byID)
	}
	kept := &schema{s}
	k.byID[id] = kept
	return kept
}

// miss notes an id that learn should ask about.
func (k *known) miss(value []byte) {
	id, _, ok := schemas.WireHeader(value)
	if !ok || id <= 0 || k.byID[id] != nil {
		return
	}
	if found, _ := k.source.ByID(int(id)); found != nil {
		k.keep(id, found)
		return
	}
	for _, other := range k.asked {
		if other == int(id) {
			return
		}
	}
	if len(k.asked) < maxAsked {
		k.asked = append(k.asked, int(id))
	} else {
		k.source.Ask(int(id))
	}
}

// learn asks the registry about the ids missed in this batch and waits for its
// answers a moment, so that the first event of a new schema need not go by way
// of retry. What has no answer by then waits there.
func (k *known) learn(ctx context.Context, now func() time.Time) (waited time.Duration) {
	if len(k.asked) == 0 {
		return 0
	}
	defer func() { k.asked = k.asked[:0] }()
	if k.credit < maxWait/10 {
		for _, id := range k.asked {
			k.source.Ask(id)
		}
		return 0
	}
	begin := now()
	ctx, cancel := context.WithTimeout(ctx, k.credit)
	defer cancel()
	var group errgroup.Group
	for _, id := range k.asked {
		group.Go(func() error {
			_, err := k.source.Resolve(ctx, id)
			return err
		})
	}
	_ = group.Wait() // an id without an answer stays unknown: Schema says so
	waited = now().Sub(begin)
	k.credit = max(0, k.credit-waited)
	return waited
}

// schema is a processors.Schema.
type schema struct{ *registry.Schema }

func (s *schema) Name() string { return s.Schema.Name }

func (s *schema) AppendJSON(dst, body []byte, limit int) ([]byte, schemas.Reason, string) {
	if s.Codec == nil {
		return dst, schemas.SchemaUnsupported, s.Unsupported.Error()
	}
	out, err := s.Codec.AppendJSON(dst, body, limit)
	if err == nil {
		return out, "", ""
	}
	var ce *codec.Error
	if errors.As(err, &ce) {
		return dst, ce.Reason, ce.Error()
	}
	return dst, schemas.SchemaMismatch, err.Error()
}

func (s *schema) AppendField(dst, body []byte, name string) ([]byte, bool) {
	text, ok, err := s.Codec.Field(body, name)
	if err != nil || !ok {
		return dst, false
	}
	return append(dst, text...), true
}
