package control

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// BootstrapConfig says what a deployment begins with.
type BootstrapConfig struct {
	Kafka      []kgo.Opt
	Topics     schemas.Topics
	SchemaIDs  map[string]int32 // ids of schemas.ControlSchemas by full name; absent: 0
	Partitions int32            // P; 0: what is there, else schemas.DefaultPartitions. Another than what is there is refused
	Regions    []string         // of the default policy, which needs one
	Open       bool             // the default policy admits tenants that have none
	Logger     *slog.Logger     // nil: slog.Default()
	Now        func() time.Time // nil: time.Now
}

func (c *BootstrapConfig) validate() error {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Partitions < 0 || c.Partitions > maxPartitions {
		return fmt.Errorf("partitions: must be 0 to %d, got %d", maxPartitions, c.Partitions)
	}
	if len(c.Regions) == 0 {
		return errors.New("regions: at least one is needed")
	}
	return nil
}

func (c *BootstrapConfig) writer() writerConfig {
	return writerConfig{kafka: c.Kafka, topics: c.Topics, schemaIDs: c.SchemaIDs, regions: c.Regions, logger: c.Logger, now: c.Now}
}

// Bootstrap writes what a deployment begins with and does not have yet: its
// number of partitions, its secrets, its default policy. It returns the
// settings in force. Where nothing is missing it writes nothing and fences
// nobody. It refuses a number of partitions other than the one in force.
func Bootstrap(ctx context.Context, cfg BootstrapConfig) (Settings, error) {
	if err := cfg.validate(); err != nil {
		return Settings{}, fmt.Errorf("bootstrap control: %w", err)
	}
	entries, _, err := readToEnd(ctx, cfg.writer())
	if err != nil {
		return Settings{}, fmt.Errorf("bootstrap control: %w", err)
	}
	missing, settings, err := cfg.missing(entries)
	if err != nil || len(missing) == 0 {
		return settings, err
	}
	w, err := openWriter(ctx, cfg.writer())
	if err != nil {
		return Settings{}, fmt.Errorf("bootstrap control: %w", err)
	}
	defer w.close()
	return w.bootstrap(ctx, cfg)
}

// bootstrap is Bootstrap by a writer that is open.
func (w *writer) bootstrap(ctx context.Context, cfg BootstrapConfig) (Settings, error) {
	w.mu.Lock()
	missing, settings, err := cfg.missing(w.entries)
	w.mu.Unlock()
	if err != nil || len(missing) == 0 {
		return settings, err
	}
	_, _, err = w.write(ctx, missing, false)
	return settings, err
}

// errPartitions is why a deployment is not set up again with another P.
var errPartitions = errors.New("the number of partitions is fixed")

// missing lists what has to be written, and the settings that will be in
// force.
func (c *BootstrapConfig) missing(entries map[key]entry) ([]change, Settings, error) {
	var out []change
	at := key{KindCluster, settingsName}
	settings, there := entries[at].value.(Settings)
	switch {
	case !there:
		settings = Settings{Partitions: c.Partitions, CreatedAt: c.Now().UTC().Truncate(time.Millisecond)}
		if settings.Partitions == 0 {
			settings.Partitions = schemas.DefaultPartitions
		}
		out = append(out, change{key: at, value: settings, ifMatch: noVersion})
	case c.Partitions != 0 && c.Partitions != settings.Partitions:
		return nil, settings, fmt.Errorf("%w: the deployment %q was set up with %d on %s, it cannot become %d", errPartitions,
			c.Topics.Prefix, settings.Partitions, settings.CreatedAt.Format(time.DateOnly), c.Partitions)
	}
	used := map[string]bool{}
	for _, e := range entries {
		if s, ok := e.value.(storedSecret); ok && s.RetiredAt == 0 {
			used[s.Use] = true
		}
	}
	for _, use := range []string{useReturn, useDedupe} {
		if !used[use] {
			out = append(out, newSecret(use, 0))
		}
	}
	if _, ok := entries[key{KindTenant, schemas.Everyone}]; !ok {
		p := schemas.DefaultPolicy(c.Regions)
		p.Open = c.Open
		out = append(out, change{key: key{KindTenant, schemas.Everyone}, value: p, ifMatch: noVersion})
	}
	return out, settings, nil
}

// newSecret is a secret nobody knows, active from a time in Unix ms.
func newSecret(use string, activeFrom int64) change {
	random := make([]byte, 36)
	_, _ = rand.Read(random) // never fails (crypto/rand)
	id := hex.EncodeToString(random[:4])
	return change{key: key{KindSecret, id}, value: storedSecret{Use: use, Key: random[4:], ActiveFrom: activeFrom}, ifMatch: noVersion}
}

// Times of a rotation.
const (
	rotateAfter = time.Minute        // until the new secret signs: by then every follower has it
	keepSecret  = 7 * 24 * time.Hour // as long as `events` keeps what it signed
)

// rotate makes a new secret that signs returns from a minute on, and forgets
// those that signed nothing for 7 days. It returns the new one's id.
func (w *writer) rotate(ctx context.Context) (string, error) {
	now := w.cfg.now()
	from := now.Add(rotateAfter).UnixMilli()
	fresh := newSecret(useReturn, from)
	changes := []change{fresh}
	w.mu.Lock()
	for k, e := range w.entries {
		s, ok := e.value.(storedSecret)
		switch {
		case !ok || s.Use != useReturn:
		case s.RetiredAt == 0:
			s.RetiredAt = from
			changes = append(changes, change{k, s, e.version})
		case now.Sub(time.UnixMilli(s.RetiredAt)) > keepSecret:
			changes = append(changes, change{k, nil, e.version})
		}
	}
	w.mu.Unlock()
	_, _, err := w.write(ctx, changes, false)
	return fresh.key.name, err
}
