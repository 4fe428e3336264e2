package control

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

func TestRecordsReadBack(t *testing.T) {
	policy := schemas.Policy{
		State: "active", Regions: []string{"eu"}, Quota: 7, MaxConnections: 3,
		Fast:  schemas.Rate{Rate: 0.5, Burst: 2, Overflow: "drop", MaxBacklog: schemas.Duration(1500 * time.Millisecond)},
		Types: map[string]schemas.Type{"a.B": {Class: "slow", Endpoint: "e", Order: "strict", Channel: "c.{x}", ID: "{y}"}},
	}
	for name, value := range map[string]any{
		"cluster/settings": Settings{12, time.UnixMilli(1700000000123).UTC()},
		"secret/s1":        storedSecret{useReturn, make([]byte, 32), 5, 6},
		"tenant/acme":      policy,
		"tenant/*":         schemas.Policy{Open: true},
		"endpoint/gpt":     schemas.Endpoint{URL: "http://x", Timeout: schemas.Duration(time.Minute), MaxConcurrency: 4, Capacity: 2.5, Format: "openai"},
		"flag/f":           Flag{true, []string{"acme"}, policy},
	} {
		b, err := encodeRecord(entry{41, value}, map[string]int32{schemas.PolicyName: 9})
		if err != nil {
			t.Fatal(err)
		}
		k, e, err := decodeRecord([]byte(name), b)
		if err != nil || k.String() != name || e.version != 41 || !reflect.DeepEqual(e.value, value) {
			t.Errorf("%s: got %+v %+v, %v", name, k, e, err)
		}
		if _, _, err := decodeRecord([]byte(name), append(b, 0)); err == nil {
			t.Errorf("%s: trailing byte was taken", name)
		}
		if _, _, err := decodeRecord([]byte(name), b[:len(b)-1]); err == nil {
			t.Errorf("%s: cut record was taken", name)
		}
	}
}

func TestFollowerSeesChangesAtOnce(t *testing.T) {
	kafka := controlTopic(t)
	f := follow(t, kafka)
	if _, ok := f.Policy("acme"); ok || f.Version() != -1 {
		t.Fatal("an empty topic knows a tenant")
	}
	before := f.FreshAt()
	put(t, kafka, true, record(t, "acme", KindTenant, 1, schemas.Policy{Fast: schemas.Rate{Rate: 2000}}))
	took := until(t, "acme is known", func() bool { _, ok := f.Policy("acme"); return ok })
	if t.Logf("seen after %s", took); took > time.Second { // 100 ms and less where the machine is not busy
		t.Errorf("took %s", took)
	}
	p, _ := f.Policy("acme")
	if p.Fast.Rate != 2000 || p.Slow.Rate != 10 || p.State != "active" {
		t.Errorf("%+v", p)
	}
	if again, _ := f.Policy("acme"); again != p {
		t.Error("the pointer changed within a snapshot")
	}
	put(t, kafka, false, record(t, "ghost", KindTenant, 2, schemas.Policy{}))
	put(t, kafka, true, record(t, "acme", KindTenant, 0, nil))
	until(t, "acme is gone", func() bool { _, ok := f.Policy("acme"); return !ok })
	if _, ok := f.Policy("ghost"); ok {
		t.Error("an aborted record counts")
	}
	until(t, "freshness advances past the marker", func() bool { return f.FreshAt().After(before.Add(time.Second)) })
	if err := f.Ready(); err != nil {
		t.Error(err)
	}
}

func TestFollowerKeepsRunningOverGarbage(t *testing.T) {
	kafka := controlTopic(t)
	nan := record(t, "nan", KindTenant, 1, schemas.Policy{Fast: schemas.Rate{Rate: -1}})
	put(t, kafka, true,
		record(t, "acme", KindTenant, 1, schemas.Policy{Quota: 1}),
		&kgo.Record{Key: []byte("tenant/acme"), Value: []byte("garbage")},
		&kgo.Record{Key: []byte("tenant/../x"), Value: nan.Value},
		&kgo.Record{Key: nil, Value: nan.Value},
		&kgo.Record{Key: []byte("new/kind"), Value: nan.Value},
		nan,
		record(t, "globex", KindTenant, 2, schemas.Policy{Quota: 2}),
	)
	f := follow(t, kafka)
	for tenant, quota := range map[string]int64{"acme": 1, "globex": 2} {
		if p, ok := f.Policy(tenant); !ok || p.Quota != quota {
			t.Errorf("%s: %+v %v", tenant, p, ok)
		}
	}
	if f.bad != 5 {
		t.Errorf("%d records skipped, want 5", f.bad)
	}
}

func TestFollowerKeepsItsLastSnapshot(t *testing.T) {
	c, kafka := cluster(t)
	makeTopic(t, kafka)
	put(t, kafka, true, record(t, "acme", KindTenant, 1, schemas.Policy{Quota: 1}))
	var ahead atomic.Int64
	f, err := NewFollower(FollowerConfig{
		Kafka: kafka, Topics: topics, Logger: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, f.Run)
	until(t, "ready", func() bool { return f.Ready() == nil })
	c.Close()
	ahead.Store(int64(time.Minute))
	until(t, "not ready", func() bool { return strings.Contains(fmt.Sprint(f.Ready()), "last read 1m") })
	if _, ok := f.Policy("acme"); !ok {
		t.Error("the snapshot is gone with the broker")
	}
}

func TestWaitSaysWhatIsMissing(t *testing.T) {
	_, kafka := cluster(t)
	f, err := NewFollower(FollowerConfig{Kafka: kafka, Topics: topics, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	run(t, f.Run)
	until(t, "an error is seen", func() bool { return strings.Contains(fmt.Sprint(f.Ready()), "cannot be read") })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Wait(ctx); err == nil || !strings.Contains(err.Error(), "t.control") {
		t.Errorf("got %v", err)
	}
	makeTopic(t, kafka)
	until(t, "the topic is found", func() bool { return f.Ready() == nil })
}

func TestSnapshotMergesAndLaysFlags(t *testing.T) {
	entries := map[key]entry{
		{KindTenant, "*"}:    {1, schemas.Policy{Open: true, Regions: []string{"eu"}, Quota: 5}},
		{KindTenant, "acme"}: {1, schemas.Policy{Fast: schemas.Rate{Rate: 7}}},
		{KindFlag, "b"}:      {1, Flag{true, []string{"acme", "new"}, schemas.Policy{Quota: 9}}},
		{KindFlag, "a"}:      {1, Flag{true, []string{"*"}, schemas.Policy{Quota: 8}}},
		{KindFlag, "off"}:    {1, Flag{false, []string{"*"}, schemas.Policy{Quota: 1}}},
	}
	s := newSnapshot(entries, 3, &admitted{names: map[string]bool{}}, time.Now)
	for tenant, quota := range map[string]int64{"acme": 9, "new": 9, "other": 8} {
		if p, ok := s.Policy(tenant); !ok || p.Quota != quota || !slices.Equal(p.Regions, []string{"eu"}) {
			t.Errorf("%s: %+v %v", tenant, p, ok)
		}
	}
	if p, _ := s.Policy("acme"); p.Fast.Rate != 7 || p.Fast.Burst != 7 {
		t.Errorf("%+v", p)
	}
	if _, ok := s.Policy("no such/name"); ok {
		t.Error("an illegal name was admitted")
	}
	for i := range maxAdmitted {
		s.Policy(fmt.Sprint("t", i))
	}
	if _, ok := s.Policy("one-too-many"); ok {
		t.Error("more than 10,000 were admitted")
	}
	if _, ok := s.Policy("other"); !ok {
		t.Error("an admitted tenant was forgotten")
	}
}

func TestSigningSecretChangesWhenAllKnowIt(t *testing.T) {
	now := time.UnixMilli(1000)
	entries := map[key]entry{
		{KindSecret, "old"}:  {1, storedSecret{useReturn, []byte("0123456789abcdef"), 0, 2000}},
		{KindSecret, "new"}:  {1, storedSecret{useReturn, []byte("fedcba9876543210"), 2000, 0}},
		{KindSecret, "hash"}: {1, storedSecret{useDedupe, []byte("dddddddddddddddd"), 0, 0}},
	}
	s := newSnapshot(entries, 3, &admitted{}, func() time.Time { return now })
	if id := s.SigningSecret().ID; id != "old" {
		t.Errorf("signs with %s too early", id)
	}
	now = time.UnixMilli(2000)
	if id := s.SigningSecret().ID; id != "new" {
		t.Errorf("signs with %s too late", id)
	}
	for _, id := range []string{"old", "new"} {
		if _, ok := s.SecretKey(id); !ok {
			t.Errorf("%s does not verify", id)
		}
	}
	if _, ok := s.SecretKey("hash"); ok || string(s.DedupeKey()) != "dddddddddddddddd" {
		t.Error("the dedupe key is mixed up with signing")
	}
}

func FuzzRecord(f *testing.F) {
	for name, value := range map[string]any{
		"cluster/settings": Settings{Partitions: 12}, "secret/a": storedSecret{Use: useReturn, Key: make([]byte, 16)},
		"tenant/acme": schemas.DefaultPolicy([]string{"eu"}), "endpoint/e": schemas.Endpoint{URL: "http://x"},
		"flag/f": Flag{Tenants: []string{"a"}},
	} {
		b, err := encodeRecord(entry{1, value}, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(name), b)
	}
	f.Fuzz(func(t *testing.T, k, v []byte) {
		name, e, err := decodeRecord(k, v)
		if err != nil || e.value == nil {
			return
		}
		b, err := encodeRecord(e, nil)
		if err != nil {
			t.Fatalf("%+v cannot be written: %v", e, err)
		}
		if name2, e2, err := decodeRecord(k, b); err != nil || name2 != name || !reflect.DeepEqual(e2, e) {
			t.Fatalf("%+v reads back as %+v, %v", e, e2, err)
		}
		newSnapshot(map[key]entry{name: e}, 1, &admitted{}, time.Now)
	})
}

// The topic is deleted and made anew with as many records: the offsets fit, and
// it is another topic nevertheless. The last snapshot stays.
func TestFollowerNoticesAnotherTopic(t *testing.T) {
	kafka := controlTopic(t)
	put(t, kafka, true, record(t, "acme", KindTenant, 1, schemas.Policy{Fast: schemas.Rate{Rate: 2000}}))
	var ahead atomic.Int64 // of the follower's clock
	f, err := NewFollower(FollowerConfig{
		Kafka: kafka, Topics: topics, Logger: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, f.Run)
	until(t, "acme is known", func() bool { _, ok := f.Policy("acme"); return ok })
	admin := adminClient(t, kafka)
	if _, err := admin.DeleteTopic(t.Context(), topics.Control()); err != nil {
		t.Fatal(err)
	}
	makeTopic(t, kafka)
	put(t, kafka, true, record(t, "globex", KindTenant, 1, schemas.Policy{Fast: schemas.Rate{Rate: 5}}))
	until(t, "the follower has looked", func() bool {
		ahead.Add(int64(staleAfter))
		err := f.Ready()
		return err != nil && strings.Contains(err.Error(), "made anew")
	})
	if _, ok := f.Policy("acme"); !ok {
		t.Error("the last snapshot is gone")
	}
}
