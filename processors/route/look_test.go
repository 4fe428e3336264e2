package route

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/processors/route/look"
	"github.com/spillway/spillway/schemas"
)

// TestLook: for every record of events, what look tells afterwards is what
// route decided then, batch by batch and over restarts.
func TestLook(t *testing.T) {
	s := newStage(t)
	s.control.set("acme", schemas.Policy{Quota: 9, Fast: schemas.Rate{Rate: 0.01, Burst: 5, MaxBacklog: schemas.Duration(24 * time.Hour)}})
	for round := range 3 {
		cfg := s.config(0)
		cfg.MaxBatch = 3
		_, stop := s.run(cfg)
		for i := range 6 {
			s.produce(record("acme", fmt.Sprint("m-", round*4+i), "x")) // two of each round are repeats
		}
		stray := record("globex", fmt.Sprint("g-", round), "x")
		stray.Partition = (stray.Partition + 1) % partitions
		s.produce(stray)
		s.settled()
		stop()
	}
	cfg := look.Config{
		Kafka: s.kafka, Topics: topics, Partitions: partitions, Tenants: lookTenants{s.control.Policies()}, Policies: s.control.version,
		Secrets: s.control, Schemas: lookSchemas{s.registry}, Learn: func(context.Context, int) {},
	}
	seen := map[string]int{}
	for _, tr := range s.transitions(s.count(topics.Audit())) {
		partition, offset := tr.Home, tr.Cursor
		if tr.Cursor < 0 {
			partition, offset = tr.Origin.Partition, tr.Origin.Offset
		}
		report, err := look.Record(s.ctx(), cfg, topics.Events(), partition, offset)
		if err != nil {
			t.Fatalf("%s: %v", tr.EventID, err)
		}
		last := report.Answers[len(report.Answers)-1]
		got := last.Verdict + " " + last.Reason
		want := map[schemas.Status]string{
			schemas.Processing: "deliver ", schemas.Pending: "overflow " + string(tr.Reason), schemas.Dup: "duplicate duplicate", schemas.DeadStatus: "dead over_quota",
		}[tr.Status]
		if got != want || !report.Decided || report.EventID != tr.EventID || report.With != s.control.version {
			t.Errorf("%s at %d/%d: %q, want %q; %+v", tr.EventID, partition, offset, got, want, report)
		}
		seen[got]++
	}
	for _, want := range []string{"deliver ", "overflow rate_limited", "duplicate duplicate", "dead over_quota"} {
		if seen[want] == 0 {
			t.Errorf("no %s among %v", want, seen)
		}
	}
	// What it came from, by what it became.
	over := s.read(topics.Overflow(), 1)[0]
	report, err := look.Record(s.ctx(), cfg, topics.Overflow(), over.Partition, over.Offset)
	if err != nil || report.Due.IsZero() || report.EventID != header(over, schemas.HeaderID) {
		t.Errorf("by its place in overflow: %+v, %v", report, err)
	}
	if _, err := look.Record(s.ctx(), cfg, topics.Events(), over.Partition, 1_000_000); !errors.Is(err, look.ErrNotFound) {
		t.Errorf("behind the end of the log: %v", err)
	}
	if _, err := look.Record(s.ctx(), cfg, topics.Events(), partitions+1, 0); err == nil || !strings.Contains(err.Error(), "no partition") {
		t.Errorf("no such partition: %v", err)
	}
}

type lookTenants struct{ Policies }

func (lookTenants) Age() int64 { return 0 }

type lookSchemas struct{ registry *fakeRegistry }

func (l lookSchemas) Schema(id int32) (processors.Schema, int64) {
	if found, _ := l.registry.ByID(int(id)); found != nil {
		return &schema{found}, 0
	}
	return nil, -1
}
