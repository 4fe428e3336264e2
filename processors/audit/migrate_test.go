package audit

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spillway/spillway/schemas"
)

func TestMigrateTwiceThenCheck(t *testing.T) {
	cfg := MigrateConfig{Server: testServer(t)}
	differs, err := Check(t.Context(), cfg)
	all := len(differs)
	if err != nil || all < 2 {
		t.Fatalf("check of nothing: %q, %v", differs, err)
	}
	applied, err := Migrate(t.Context(), cfg)
	if err != nil || len(applied) != all || !slices.IsSorted(applied) {
		t.Fatalf("applied %q: %v", applied, err)
	}
	if applied, err = Migrate(t.Context(), cfg); err != nil || len(applied) != 0 {
		t.Fatalf("second run applied %q: %v", applied, err)
	}
	if differs, err := Check(t.Context(), cfg); err != nil || len(differs) != 0 {
		t.Fatalf("check: %q, %v", differs, err)
	}
	conn := connect(t, cfg.Server)
	if n := count(t, conn, "SELECT count() FROM reasons FINAL"); n != uint64(len(schemas.Reasons())) {
		t.Errorf("%d reasons, want %d", n, len(schemas.Reasons()))
	}
}

func TestMigrateAfterCrashInTheMiddle(t *testing.T) {
	cfg := MigrateConfig{Server: testServer(t)}
	if _, err := Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, cfg.Server)
	for _, s := range []string{"DROP TABLE migrations", "DROP TABLE receipts", "DROP TABLE v_status_now", "INSERT INTO events (tenant, accepted_at) VALUES ('a', now())"} {
		if err := conn.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if applied, err := Migrate(t.Context(), cfg); err != nil || len(applied) < 2 {
		t.Fatalf("applied %q: %v", applied, err)
	}
	if differs, err := Check(t.Context(), cfg); err != nil || len(differs) != 0 {
		t.Fatalf("check: %q, %v", differs, err)
	}
	if n := count(t, conn, "SELECT count() FROM v_status_now WHERE tenant = 'a'"); n != 1 {
		t.Errorf("the row that was there: %d", n)
	}
}

func TestCheckSaysWhatDiffers(t *testing.T) {
	cfg := MigrateConfig{Server: testServer(t)}
	if _, err := Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, cfg.Server)
	for _, s := range []string{"DROP TABLE v_latency_minute", "INSERT INTO migrations (name, sum) VALUES ('0001_tables', 'other')"} {
		if err := conn.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Retention.History = 200 * 24 * time.Hour
	differs, err := Check(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(differs, "\n")
	for _, want := range []string{"v_latency_minute is gone", "0001_tables was applied with another content", "transitions: retention is not 200 days", "receipts: retention"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
	if _, err := Migrate(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "another build") {
		t.Errorf("migrate over another build's: %v", err)
	}
}

func TestRetentionIsAltered(t *testing.T) {
	const day = 24 * time.Hour
	cfg := MigrateConfig{Server: testServer(t)}
	for _, r := range []Retention{{}, {Payload: 2 * day, DeadLetters: 3 * day, History: 4 * day}, {}} {
		cfg.Retention = r
		if _, err := Migrate(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		if differs, err := Check(t.Context(), cfg); err != nil || len(differs) != 0 {
			t.Fatalf("%+v: %q, %v", r, differs, err)
		}
	}
	cfg.Retention.Payload = 36 * time.Hour
	if _, err := Migrate(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "Payload") {
		t.Errorf("36 h: %v", err)
	}
}
