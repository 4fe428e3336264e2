// Package boot is what a role's process does before and beside the role: it
// checks its connections, opens the admin port, and holds what the roles of one
// process share.
//
//	Config ─ New ─▶ Host ─┬─ Conns       Kafka, registry, ClickHouse
//	                      ├─ Follow      the snapshot of `control`
//	                      ├─ Registry    the schemas, SystemIDs those of our own records
//	                      └─ Keys        whose tokens are good
//
//	Alone:  check connections ─▶ wire ─▶ run ─ SIGTERM ─▶ drain ─▶ nil
//	            └──── a line that names the setting ────────────▶ error
//
// It knows no role; `spillway dev` wires all of them on one Host.
package boot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spillway/spillway/control"
	"github.com/spillway/spillway/control/admin"
	"github.com/spillway/spillway/control/connect"
	"github.com/spillway/spillway/control/keys"
	"github.com/spillway/spillway/control/process"
	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/registry"
)

// Config is what every role's process is told.
type Config struct {
	Connect     connect.Config // its Logger and Now are set by New
	Topics      schemas.Topics
	AuthKeys    string // JWKS file; "" is none
	AuthJWKS    string // address of a JWKS; "" is none
	AdminListen string // where health and metrics are asked for
	Node        string // this process's name
	Version     admin.Version
	FirstLoad   time.Duration // how long a role waits for all schemas before it begins without some of them; 0 is 10 s
	Log         *slog.Logger
	Now         func() time.Time
}

// A Host is what the roles of one process share. One goroutine wires them.
type Host struct {
	*process.Process
	Conns  *connect.Connections
	Topics schemas.Topics
	Node   string
	cfg    Config

	follower *control.Follower // see Follow
	schemas  *registry.Client  // see Registry
	keys     *keys.Ring        // see Keys
}

// New checks cfg. It connects to nothing and opens nothing yet.
func New(ctx context.Context, cfg Config) (*Host, error) {
	cfg.Connect.Logger, cfg.Connect.Now = cfg.Log, cfg.Now
	conns, err := connect.New(cfg.Connect)
	if err != nil {
		return nil, err
	}
	h := &Host{Process: process.New(ctx, cfg.Version, cfg.Log), Conns: conns, Topics: cfg.Topics, Node: cfg.Node, cfg: cfg}
	h.OnHangup("certificates", conns.Reload)
	return h, nil
}

// Authenticates reports whether it is told whose tokens are good.
func (h *Host) Authenticates() bool { return h.cfg.AuthKeys != "" || h.cfg.AuthJWKS != "" }

// A Plan is what a role's subcommand says about it.
type Plan struct {
	Use   connect.Use // what must be reachable and allowed before it begins
	Wire  func(*Host) error
	Check io.Writer // not nil: connect, say so here, and end
}

// Alone runs one role as a process of its own. The error of a connection that
// cannot work is one line that names the setting.
func Alone(ctx context.Context, cfg Config, plan Plan) error {
	h, err := New(ctx, cfg)
	if err != nil {
		return err
	}
	if plan.Check != nil {
		err = h.try(plan)
		h.End(nil)
		return cmp.Or(err, h.Wait())
	}
	if err := h.begin(plan); err != nil {
		h.End(nil)
		stopped := h.Wait()
		if ctx.Err() != nil { // SIGTERM came first: nothing had begun that could be left half done
			return stopped
		}
		return err
	}
	h.Admin.Started()
	h.Log.Info("running", "node", h.Node)
	return h.Conns.Explain(h.Wait())
}

func (h *Host) begin(plan Plan) error {
	if err := h.ServeAdmin(); err != nil {
		return err
	}
	if err := h.Conns.Check(h.Context(), plan.Use); err != nil {
		return err
	}
	watcher := h.Conns.Watch(plan.Use)
	h.Start("connections", watcher)
	h.Admin.Lacks("connections", watcher.Lacking)
	if err := plan.Wire(h); err != nil {
		return h.Conns.Explain(err)
	}
	if plan.Use.Spare {
		h.Admin.Spare("registry") // it was needed to begin
	}
	return nil
}

// try says whether the role could begin.
func (h *Host) try(plan Plan) error {
	plan.Use.Exist, plan.Use.Later = true, false
	if h.Authenticates() {
		if _, err := h.Keys(); err != nil {
			return err
		}
	}
	if err := h.Conns.Check(h.Context(), plan.Use); err != nil {
		return err
	}
	for _, line := range h.Conns.Lines(plan.Use) {
		fmt.Fprintln(plan.Check, line)
	}
	return nil
}

// ServeAdmin opens the admin port, and has operators show a token if others
// than this machine can reach it.
func (h *Host) ServeAdmin() error {
	if !h.Authenticates() {
		return h.Process.ServeAdmin(h.cfg.AdminListen, "--admin-listen", nil)
	}
	ring, err := h.Keys()
	if err != nil {
		return err
	}
	return h.Process.ServeAdmin(h.cfg.AdminListen, "--admin-listen", func(token string) error {
		claims, err := ring.Verify(token)
		if err == nil && (claims.Role != schemas.RoleOperator || claims.Tenant != schemas.Everyone) {
			err = errors.New("role: want operator, and tenant: want *")
		}
		return err
	})
}
