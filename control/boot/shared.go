package boot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"github.com/spillway/spillway/control"
	"github.com/spillway/spillway/control/connect"
	"github.com/spillway/spillway/control/keys"
	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/compat"
	"github.com/spillway/spillway/schemas/registry"
)

// firstLook bounds how long a role waits for its first look at control and
// registry before it gives up with the reason.
const firstLook = 30 * time.Second

// firstLoad is Config.FirstLoad: it covers a registry that starts with us, and
// is short beside the 16 s that an event of an unknown schema waits.
const firstLoad = 10 * time.Second

// againIn is the pause before the registry is asked once more for our ids.
const againIn = 500 * time.Millisecond

// Follow returns the process's one follower of `control`, with a complete
// snapshot.
func (h *Host) Follow() (*control.Follower, error) {
	if h.follower != nil {
		return h.follower, nil
	}
	f, err := control.NewFollower(control.FollowerConfig{
		Kafka: h.Conns.Kafka(), Topics: h.Topics, Logger: h.Log, Registerer: h.Metrics, Now: h.cfg.Now,
	})
	if err != nil {
		return nil, err
	}
	h.Start("follower", f)
	ctx, cancel := context.WithTimeout(h.Context(), firstLook)
	defer cancel()
	if err := f.Wait(ctx); err != nil {
		return nil, fmt.Errorf("read %s: %w (was `spillway setup` run?)", h.Topics.Control(), err)
	}
	if f.Partitions() == 0 {
		return nil, fmt.Errorf("%s says no number of partitions: run `spillway setup` first", h.Topics.Control())
	}
	h.follower = f
	return f, nil
}

// MayFanOut checks what is known only once control has been read: whether the
// topics of the regions may be written.
func (h *Host) MayFanOut(follower *control.Follower) error {
	policy, ok := follower.Policy(schemas.Everyone)
	if !ok {
		return nil
	}
	var needs []connect.Need
	for _, region := range policy.Regions {
		needs = append(needs, connect.Topic(h.Topics.Fanout(region), connect.Write))
	}
	return h.Conns.Check(h.Context(), connect.Use{Kafka: true, Needs: needs})
}

// Registry returns the process's one registry client, with every schema known
// if the registry says them within FirstLoad. What is missing then is loaded
// beside the role; metric spillway_registry_loaded tells when all is there.
func (h *Host) Registry() (*registry.Client, error) {
	if h.schemas != nil {
		return h.schemas, nil
	}
	c, err := registry.New(registry.Config{
		URLs: h.cfg.Connect.Registry.URLs, HTTP: h.Conns.Registry(), Topic: h.Topics.Events(), Logger: h.Log, Registerer: h.Metrics,
	})
	if err != nil {
		return nil, err
	}
	waits := new(atomic.Bool)
	waits.Store(true)
	h.Admin.Check("registry", func() error {
		if waits.Load() {
			return loads(c.Ready())
		}
		return c.Ready()
	})
	loaded := make(chan struct{})
	h.Run("registry client", func(ctx context.Context) error {
		defer c.Close()
		if c.Load(ctx) == nil {
			close(loaded)
		}
		<-ctx.Done() // Load's only error is its end
		return nil
	})
	if err := h.load(loaded); err != nil {
		return nil, err
	}
	waits.Store(false)
	h.schemas = c
	return c, nil
}

// loads is why a role that waits for the schemas is not ready.
func loads(why error) error {
	if why == nil {
		return errors.New("loads the schemas")
	}
	return fmt.Errorf("loads the schemas: %w", why)
}

// load waits for all schemas, FirstLoad at most.
func (h *Host) load(loaded <-chan struct{}) error {
	most := cmp.Or(h.cfg.FirstLoad, firstLoad)
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-loaded:
	case <-timer.C:
		h.Log.Warn("begins without all schemas: those that are missing are asked for when an event needs them, and loaded meanwhile", "after", most)
	case <-h.Context().Done():
		return fmt.Errorf("load the schemas: %w", context.Cause(h.Context()))
	}
	return nil
}

// SystemIDs are the registry's ids of Spillway's own records. A registry that
// does not answer is asked again until firstLook is over.
func (h *Host) SystemIDs() (map[string]int32, error) {
	c, err := h.Registry()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(h.Context(), firstLook)
	defer cancel()
	tick := time.NewTicker(againIn)
	defer tick.Stop()
	for {
		ids, err := RegisterSystem(ctx, c)
		if err == nil || !errors.Is(err, registry.ErrUnavailable) {
			return ids, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}

// RegisterSystem registers Spillway's own schemas, which does nothing to those
// that are there, and returns their ids.
func RegisterSystem(ctx context.Context, c *registry.Client) (map[string]int32, error) {
	ctx, cancel := context.WithTimeout(ctx, firstLook)
	defer cancel()
	ids := map[string]int32{}
	for name, text := range systemSchemas() {
		s, err := c.Register(ctx, name, text, compat.FullTransitive)
		if err != nil {
			return nil, fmt.Errorf("register %s: %w", name, err)
		}
		ids[name] = int32(s.ID)
	}
	return ids, nil
}

// LookUpSystem returns the ids of Spillway's own schemas and registers none.
func LookUpSystem(ctx context.Context, c *registry.Client) (map[string]int32, error) {
	ids := map[string]int32{}
	for name := range systemSchemas() {
		s, err := c.Latest(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("schema %s: %w", name, err)
		}
		ids[name] = int32(s.ID)
	}
	return ids, nil
}

func systemSchemas() map[string]string {
	all := schemas.SystemSchemas()
	maps.Copy(all, schemas.ControlSchemas())
	return all
}

// Keys returns the process's keys; SIGHUP reads the file again.
func (h *Host) Keys() (*keys.Ring, error) {
	if h.keys != nil {
		return h.keys, nil
	}
	if !h.Authenticates() {
		return nil, errors.New("whose tokens are good? give --auth-keys or --auth-jwks")
	}
	r, err := keys.New(keys.Config{File: h.cfg.AuthKeys, URL: h.cfg.AuthJWKS, Now: h.cfg.Now, Logger: h.Log, Registerer: h.Metrics})
	if err != nil {
		return nil, err
	}
	h.Start("keys", r)
	h.OnHangup("keys", r.Reload)
	h.keys = r
	return r, nil
}
