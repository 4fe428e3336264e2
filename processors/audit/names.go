package audit

import (
	"context"
	"errors"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/registry"
)

// Bounds of asking the registry: see Config.Resolve.
const (
	resolveTimeout = 200 * time.Millisecond // for all records of a poll
	settleTimeout  = 5 * time.Second        // for all records of a batch that wait
	resolveRest    = 30 * time.Second
	maxUnknown     = 1024 // ids remembered as unknown, and ids that wait; more forget them all
	maxSettle      = 16   // questions at once
)

// names gives an event what no header says, as route does: its type from the
// schema, its id and channel from the tenant's policy. What the registry does
// not answer at once is asked again before the batch is inserted:
//
//	known ─────────────────────────────────────────────▶ filled
//	asked, within the poll's 200 ms ─┬─ a schema ──────▶ filled
//	                                 ├─ no such one ───▶ empty, and not asked for 30 s
//	                                 └─ no answer ─▶ late ─ settle, 5 s ─┬─▶ filled
//	                                                                     └─▶ empty; nobody waits for 30 s
//
// Owned by one reader.
type names struct {
	cfg     *Config
	unknown map[int32]time.Time // by schema id: when it may be asked again
	late    map[int32]struct{}  // without an answer, to be asked again by settle
	away    time.Time           // until then the registry is not waited for
	buf     []byte
}

func newNames(cfg *Config) *names {
	return &names{cfg: cfg, unknown: map[int32]time.Time{}, late: map[int32]struct{}{}}
}

// complete fills ev. It reports true if the registry has not said yet what ev
// needs: complete it again after settle. What is not known then stays empty.
func (n *names) complete(ctx context.Context, ev *schemas.Event) (late bool) {
	if ev.Type == "" && ev.SchemaID >= 0 {
		var s processors.Schema
		if s, late = n.schema(ctx, ev.SchemaID); s != nil {
			ev.Type = s.Name()
		}
	}
	if n.cfg.Tenants != nil && (ev.ID == "" || ev.Channel == "") {
		if p, ok := n.cfg.Tenants.Policy(ev.Tenant); ok {
			late = n.fromPayload(ctx, ev, p.Types[ev.Type]) || late
		}
	}
	if ev.Channel == "" {
		ev.Channel = schemas.DefaultChannel
	}
	return late
}

// schema is that of an id, nil if it is not known. It reports true if it is
// worth waiting for an answer.
func (n *names) schema(ctx context.Context, id int32) (s processors.Schema, late bool) {
	if n.cfg.Schemas == nil {
		return nil, false
	}
	if s, _ := n.cfg.Schemas.Schema(id); s != nil {
		return s, false
	}
	now := n.cfg.Now()
	if n.cfg.Resolve == nil || now.Before(n.unknown[id]) {
		return nil, false
	}
	if _, late := n.late[id]; late {
		return nil, true
	}
	worth := !now.Before(n.away) && len(n.late) < maxUnknown
	err := ctx.Err()
	if err == nil {
		if err = n.cfg.Resolve(ctx, id); err == nil {
			s, _ = n.cfg.Schemas.Schema(id)
			return s, false
		}
	} else if !worth {
		return nil, false // not asked, so nothing is learnt about it
	}
	if worth && !errors.Is(err, registry.ErrAbsent) {
		n.late[id] = struct{}{}
		return nil, true
	}
	n.rest(id, now)
	return nil, false
}

// rest leaves an id in peace for a while.
func (n *names) rest(id int32, now time.Time) {
	if len(n.unknown) >= maxUnknown {
		clear(n.unknown)
	}
	n.unknown[id] = now.Add(resolveRest)
}

// settle waits for the registry's answers about what is late, until ctx ends or
// for 5 s. If that was in vain nobody waits for the next 30 s, so that the sink
// writes most of the time while the registry is away.
func (n *names) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(maxSettle)
	for id := range n.late {
		g.Go(func() error { return n.learn(ctx, id) })
	}
	err := g.Wait()
	now := n.cfg.Now()
	if err != nil {
		n.away = now.Add(resolveRest)
	}
	for id := range n.late {
		n.rest(id, now) // those that are known now are not looked for here
	}
	clear(n.late)
}

// learn asks until there is an answer, or ctx ends.
func (n *names) learn(ctx context.Context, id int32) error {
	for pause := firstPause; ; pause = min(2*pause, time.Second) {
		err := n.cfg.Resolve(ctx, id)
		if err == nil || errors.Is(err, registry.ErrAbsent) {
			return nil
		}
		if wait(ctx, pause) != nil {
			return err
		}
	}
}

// fromPayload fills id and channel by the policy's templates. An event whose
// body does not decode has none, for route did not look either.
func (n *names) fromPayload(ctx context.Context, ev *schemas.Event, t schemas.Type) (late bool) {
	needsID, needsChannel := ev.ID == "" && t.ID != "", ev.Channel == "" && t.Channel != ""
	_, body, ok := schemas.WireHeader(ev.Value)
	if !needsID && !needsChannel || !ok {
		return false
	}
	s, late := n.schema(ctx, ev.SchemaID)
	if s == nil {
		return late
	}
	if _, bad, _ := s.AppendJSON(n.buf[:0], body, schemas.MaxEvent); bad != "" {
		return false
	}
	expand := func(template string) (string, bool) {
		return expandTemplate(template, func(dst []byte, field string) ([]byte, bool) { return s.AppendField(dst, body, field) })
	}
	if needsID {
		id, ok := expand(t.ID)
		if !ok || id == "" || len(id) > schemas.MaxID {
			return false
		}
		ev.ID = id
	}
	if needsChannel {
		if channel, ok := expand(t.Channel); ok && schemas.ValidChannel(channel) {
			ev.Channel = channel
		}
	}
	return false
}

// expandTemplate puts the fields that "chat.{chat_id}" names in their places.
func expandTemplate(template string, field func(dst []byte, name string) ([]byte, bool)) (string, bool) {
	var out []byte
	for template != "" {
		before, rest, braced := strings.Cut(template, "{")
		out = append(out, before...)
		if !braced {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return "", false
		}
		var ok bool
		if out, ok = field(out, name); !ok {
			return "", false
		}
		template = after
	}
	return string(out), true
}
