package control

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func boot(kafka []kgo.Opt, partitions int32) BootstrapConfig {
	return BootstrapConfig{Kafka: kafka, Topics: topics, Partitions: partitions, Regions: []string{"eu"}, Logger: quiet(), Now: time.Now}
}

func open(t *testing.T, kafka []kgo.Opt) *writer {
	t.Helper()
	b := boot(kafka, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	w, err := openWriter(ctx, b.writer())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

func tenant(name string, p schemas.Policy, ifMatch int64) []change {
	return []change{{key{KindTenant, name}, p, ifMatch}}
}

func TestBootstrapTwice(t *testing.T) {
	kafka := controlTopic(t)
	s, err := Bootstrap(t.Context(), boot(kafka, 6))
	if err != nil || s.Partitions != 6 {
		t.Fatalf("%+v, %v", s, err)
	}
	f := follow(t, kafka)
	first := f.Snapshot()
	if f.Partitions() != 6 || len(f.SigningSecret().Key) != 32 || len(f.DedupeKey()) != 32 {
		t.Errorf("P %d, secret %d bytes, dedupe key %d bytes", f.Partitions(), len(f.SigningSecret().Key), len(f.DedupeKey()))
	}
	w := open(t, kafka)
	for _, p := range []int32{6, 0} {
		if s, err := Bootstrap(t.Context(), boot(kafka, p)); err != nil || s.Partitions != 6 {
			t.Errorf("again with %d: %+v, %v", p, s, err)
		}
	}
	if _, err := Bootstrap(t.Context(), boot(kafka, 12)); !errors.Is(err, errPartitions) || !strings.Contains(err.Error(), "cannot become 12") {
		t.Errorf("another P: %v", err)
	}
	if _, _, err := w.write(t.Context(), tenant("acme", schemas.Policy{Quota: 1}, anyVersion), false); err != nil {
		t.Errorf("a bootstrap with nothing to do fenced the writer: %v", err)
	}
	until(t, "the tenant is there", func() bool { _, ok := f.Policy("acme"); return ok })
	if id := f.SigningSecret().ID; id != first.SigningSecret().ID {
		t.Error("the secret changed")
	}
}

func TestSecondWriterFencesTheFirst(t *testing.T) {
	kafka := controlTopic(t)
	first := open(t, kafka)
	if _, v, err := first.write(t.Context(), tenant("acme", schemas.Policy{Quota: 1}, noVersion), false); err != nil || v != 0 {
		t.Fatal(v, err)
	}
	if err := first.fenced(t.Context()); err != nil {
		t.Fatalf("fenced by nobody: %v", err)
	}
	second := open(t, kafka)
	if e := second.entries[key{KindTenant, "acme"}]; e.value == nil {
		t.Fatal("the second has not read what the first wrote")
	}
	if err := first.fenced(t.Context()); !errors.Is(err, errFenced) {
		t.Errorf("asked: %v", err)
	}
	third := open(t, kafka)
	if _, _, err := second.write(t.Context(), tenant("acme", schemas.Policy{Quota: 2}, anyVersion), false); !errors.Is(err, errFenced) {
		t.Fatalf("the fenced one writes: %v", err)
	}
	if _, _, err := second.write(t.Context(), tenant("acme", schemas.Policy{Quota: 2}, anyVersion), false); !errors.Is(err, errFenced) {
		t.Fatalf("and then: %v", err)
	}
	if _, _, err := third.write(t.Context(), tenant("acme", schemas.Policy{Quota: 3}, 0), false); err != nil {
		t.Fatal(err)
	}
	if p, ok := follow(t, kafka).Policy("acme"); !ok || p.Quota != 3 {
		t.Errorf("%+v %v", p, ok)
	}
}

func TestVersionsGrowOverRestartsAndDeletions(t *testing.T) {
	kafka := controlTopic(t)
	last := int64(-1)
	for range 3 {
		w := open(t, kafka)
		for _, c := range [][]change{tenant("a", schemas.Policy{Quota: 1}, noVersion), {{key{KindTenant, "a"}, nil, anyVersion}}} {
			_, v, err := w.write(t.Context(), c, false)
			if err != nil || v <= last {
				t.Fatalf("version %d after %d, %v", v, last, err)
			}
			last = v
		}
		w.close()
	}
}

func TestIfMatch(t *testing.T) {
	kafka := controlTopic(t)
	w := open(t, kafka)
	_, v1, err := w.write(t.Context(), tenant("a", schemas.Policy{Quota: 1}, noVersion), false)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.write(t.Context(), tenant("a", schemas.Policy{Quota: 2}, v1), false); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string][]change{
		"old version": tenant("a", schemas.Policy{Quota: 3}, v1),
		"exists":      tenant("a", schemas.Policy{Quota: 3}, noVersion),
		"never was":   tenant("b", schemas.Policy{Quota: 3}, 7),
	} {
		var refused *Error
		if _, _, err := w.write(t.Context(), c, false); !errors.As(err, &refused) || refused.Code != schemas.Conflict {
			t.Errorf("%s: %v", name, err)
		}
	}
	if p, _, err := w.write(t.Context(), tenant("a", schemas.Policy{Quota: 2}, anyVersion), false); err != nil || len(p.changes) != 0 {
		t.Errorf("the same again: %+v, %v", p.changes, err)
	}
	if p, _, err := w.write(t.Context(), tenant("a", schemas.Policy{Quota: 9}, anyVersion), true); err != nil || p.lines[0] != "~ tenant/a quota 2 → 9" || w.entries[key{KindTenant, "a"}].value.(schemas.Policy).Quota != 2 {
		t.Errorf("dry run: %+v, %v", p.lines, err)
	}
}

func TestRotation(t *testing.T) {
	kafka := controlTopic(t)
	if _, err := Bootstrap(t.Context(), boot(kafka, 0)); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	b := boot(kafka, 0)
	b.Now = func() time.Time { return now }
	w, err := openWriter(t.Context(), b.writer())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	snapshot := func() *Snapshot { return newSnapshot(w.entries, 0, &admitted{}, b.Now) }
	old := snapshot().SigningSecret().ID
	fresh, err := w.rotate(t.Context())
	if err != nil || snapshot().SigningSecret().ID != old {
		t.Fatalf("signs with %s at once, %v", fresh, err)
	}
	now = now.Add(rotateAfter)
	if snapshot().SigningSecret().ID != fresh {
		t.Error("the new secret does not sign")
	}
	if _, ok := snapshot().SecretKey(old); !ok {
		t.Error("the old secret does not verify")
	}
	now = now.Add(keepSecret + time.Second)
	if _, err := w.rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := snapshot().SecretKey(old); ok {
		t.Error("the old secret is kept for ever")
	}
}

func TestSetupCreatesThenReportsDifferences(t *testing.T) {
	_, kafka := cluster(t)
	cfg := SetupConfig{Kafka: kafka, Topics: topics, Partitions: 3, Regions: []string{"eu", "us"}, Replication: 1, Logger: quiet()}
	cfg.Check = true
	r, err := Setup(t.Context(), cfg)
	if err != nil || len(r.Missing) != 15 || len(r.Unready) != 4 || r.OK() {
		t.Fatalf("check on nothing: %+v, %v", r, err)
	}
	cfg.Check = false
	if r, err = Setup(t.Context(), cfg); err != nil || len(r.Created) != 15 || !r.OK() || r.Partitions != 3 {
		t.Fatalf("first: %+v, %v", r, err)
	}
	if r, err = Setup(t.Context(), cfg); err != nil || r.Same != 15 || len(r.Created) != 0 || !r.OK() {
		t.Fatalf("again: %v, %v", r.Lines(), err)
	}
	admin := adminClient(t, kafka)
	if _, err := admin.UpdatePartitions(t.Context(), 5, topics.Work()); err != nil {
		t.Fatal(err)
	}
	alter(t, admin, topics.Events(), "message.timestamp.type", "CreateTime")
	alter(t, admin, topics.Dead(), "cleanup.policy", "compact")
	alter(t, admin, topics.Audit(), "retention.ms", "1000")
	cfg.Check, cfg.Partitions = true, 0
	r, err = Setup(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(r.Lines(), "\n")
	for _, line := range []string{
		"! t.work partitions is 5, must be 3",
		"! t.events message.timestamp.type is CreateTime, must be LogAppendTime",
		"! t.dead cleanup.policy is compact, must be delete",
		"! t.audit retention.ms is 1000, must be 604800000",
		"11 topics as they must be, 0 created, 0 missing, 4 differences; 3 partitions",
	} {
		if !strings.Contains(got, line) {
			t.Errorf("no line %q in\n%s", line, got)
		}
	}
	cfg.Partitions = 4
	if _, err := Setup(t.Context(), cfg); !errors.Is(err, errPartitions) {
		t.Errorf("another P: %v", err)
	}
}
