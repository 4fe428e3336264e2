package audit

import (
	"context"
	"strings"
	"time"

	"github.com/spillway/spillway/schemas"
)

// Bounds of asking the registry: see Config.Resolve.
const (
	resolveTimeout = 200 * time.Millisecond // for all records of a poll
	resolveRest    = 30 * time.Second
	maxUnknown     = 1024 // ids remembered as unknown; more forget them all
)

// names gives an event what no header says, as route does: its type from the
// schema, its id and channel from the tenant's policy. Owned by one reader.
type names struct {
	cfg     *Config
	unknown map[int32]time.Time // by schema id: when it may be asked again
	buf     []byte
}

func newNames(cfg *Config) *names { return &names{cfg: cfg, unknown: map[int32]time.Time{}} }

// complete fills ev. What cannot be known before ctx ends stays empty.
func (n *names) complete(ctx context.Context, ev *schemas.Event) {
	if ev.Type == "" && ev.SchemaID >= 0 {
		ev.Type = n.typeOf(ctx, ev.SchemaID)
	}
	if n.cfg.Tenants != nil && (ev.ID == "" || ev.Channel == "") {
		if p, ok := n.cfg.Tenants.Policy(ev.Tenant); ok {
			n.fromPayload(ev, p.Types[ev.Type])
		}
	}
	if ev.Channel == "" {
		ev.Channel = schemas.DefaultChannel
	}
}

// typeOf is the name of a schema's record, "" if nobody can say.
func (n *names) typeOf(ctx context.Context, id int32) string {
	if n.cfg.Schemas == nil {
		return ""
	}
	if s, _ := n.cfg.Schemas.Schema(id); s != nil {
		return s.Name()
	}
	now := n.cfg.Now()
	if n.cfg.Resolve == nil || now.Before(n.unknown[id]) || ctx.Err() != nil {
		return ""
	}
	if err := n.cfg.Resolve(ctx, id); err == nil {
		if s, _ := n.cfg.Schemas.Schema(id); s != nil {
			return s.Name()
		}
	}
	if len(n.unknown) == maxUnknown {
		clear(n.unknown)
	}
	n.unknown[id] = now.Add(resolveRest)
	return ""
}

// fromPayload fills id and channel by the policy's templates. An event whose
// body does not decode has none, for route did not look either.
func (n *names) fromPayload(ev *schemas.Event, t schemas.Type) {
	needsID, needsChannel := ev.ID == "" && t.ID != "", ev.Channel == "" && t.Channel != ""
	if !needsID && !needsChannel || n.cfg.Schemas == nil {
		return
	}
	s, _ := n.cfg.Schemas.Schema(ev.SchemaID)
	_, body, ok := schemas.WireHeader(ev.Value)
	if s == nil || !ok {
		return
	}
	if _, bad, _ := s.AppendJSON(n.buf[:0], body, schemas.MaxEvent); bad != "" {
		return
	}
	expand := func(template string) (string, bool) {
		return expandTemplate(template, func(dst []byte, field string) ([]byte, bool) { return s.AppendField(dst, body, field) })
	}
	if needsID {
		id, ok := expand(t.ID)
		if !ok || id == "" || len(id) > schemas.MaxID {
			return
		}
		ev.ID = id
	}
	if needsChannel {
		if channel, ok := expand(t.Channel); ok && schemas.ValidChannel(channel) {
			ev.Channel = channel
		}
	}
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
