package route

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/schemas"
)

// TestRestartRemembers: keys, quota and who is behind outlive the process.
func TestRestartRemembers(t *testing.T) {
	s := newStage(t)
	s.control.set("acme", schemas.Policy{Quota: 4, Fast: schemas.Rate{Rate: 1e6}})
	s.control.set("globex", schemas.Policy{Fast: schemas.Rate{Rate: 0.001, Burst: 1, MaxBacklog: schemas.Duration(24 * time.Hour)}})
	_, stop := s.run(s.config(0))
	s.produce(record("acme", "m-1", "x"), record("acme", "m-2", "x"), record("globex", "g-1", "x"), record("globex", "g-2", "x"))
	s.settled()
	stop()
	_, stop = s.run(s.config(3)) // another machine
	s.produce(record("acme", "m-1", "x"), record("acme", "m-3", "x"), record("acme", "m-4", "x"), record("acme", "m-5", "x"))
	s.control.set("globex", schemas.Policy{Fast: schemas.Rate{Rate: 1e5, Burst: 1e9, MaxBacklog: schemas.Duration(24 * time.Hour)}})
	s.produce(record("globex", "g-3", "x")) // a token now, but behind
	s.settled()
	stop()
	got := map[string]string{}
	for _, tr := range s.transitions(9) {
		got[tr.EventID] += fmt.Sprintf("%s %s %s;", tr.Status, tr.Path, tr.Reason)
	}
	for id, want := range map[string]string{
		"m-1": "processing fast ;duplicate  duplicate;", "m-2": "processing fast ;", "m-3": "processing fast ;", "m-4": "processing fast ;",
		"m-5": "dead  over_quota;", "g-1": "processing fast ;", "g-2": "pending overflow rate_limited;", "g-3": "pending overflow behind;",
	} {
		if got[id] != want {
			t.Errorf("%s: %q, want %q", id, got[id], want)
		}
	}
	s.checkState()
}

// TestStateRefused: a state that does not fit the committed offset is refused
// with its reason, the other partitions go on, and once a person accepts, so
// does this one, with nothing remembered.
func TestStateRefused(t *testing.T) {
	t.Parallel()
	home := schemas.HomePartition([]byte("acme"), partitions)
	group := topics.Prefix + "route"
	commit := func(s *stage, admin *kadm.Client, change func(*kadm.Offset)) {
		offsets, err := admin.FetchOffsets(s.ctx(), group)
		if err != nil {
			s.t.Fatal(err)
		}
		o, _ := offsets.Lookup(topics.Events(), home)
		change(&o.Offset)
		to := kadm.Offsets{}
		to.Add(o.Offset)
		if err := admin.CommitAllOffsets(s.ctx(), group, to); err != nil {
			s.t.Fatal(err)
		}
	}
	trim := func(s *stage, admin *kadm.Client, to int64) {
		o := kadm.Offsets{}
		o.AddOffset(topics.RouteState(), home, to, -1)
		deleted, err := admin.DeleteRecords(s.ctx(), o)
		if err := errors.Join(err, deleted.Error()); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, c := range []struct {
		reason  string
		change  func(*stage, *kadm.Client)
		decided int // how often m-0 is, in the end
	}{
		{noState, func(s *stage, admin *kadm.Client) { commit(s, admin, func(o *kadm.Offset) { o.Metadata = "" }) }, 2},
		{stateDiffers, func(s *stage, admin *kadm.Client) { commit(s, admin, func(o *kadm.Offset) { o.At-- }) }, 2},
		{stateDiffers, func(s *stage, admin *kadm.Client) {
			commit(s, admin, func(o *kadm.Offset) {
				p, err := parsePointer(o.Metadata)
				if err != nil {
					s.t.Fatal(err)
				}
				p.last += 1000
				o.Metadata = p.String()
			})
		}, 2},
		{stateGone, func(s *stage, admin *kadm.Client) { trim(s, admin, 1) }, 2},
		{recreated, func(s *stage, admin *kadm.Client) {
			commit(s, admin, func(o *kadm.Offset) {
				p, _ := parsePointer(o.Metadata)
				p.topic[3]++
				o.Metadata = p.String()
			})
		}, 3}, // from the start
		{noCommit, func(s *stage, admin *kadm.Client) {
			if _, err := admin.DeleteGroup(s.ctx(), group); err != nil {
				s.t.Fatal(err)
			}
		}, 2},
	} {
		t.Run(c.reason, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			admin := kadm.NewClient(s.producer)
			_, stop := s.run(s.config(0))
			for i := range 3 { // several records of route.state
				s.produce(record("acme", fmt.Sprint("m-", i), "x"))
				s.settled()
			}
			stop()
			c.change(s, admin)
			r, stop := s.run(s.config(0))
			s.notReady(r, "is refused")
			refused := r.Refused()
			if len(refused) == 0 || refused[0].Reason != c.reason {
				t.Fatalf("refused: %+v, want %s", refused, c.reason)
			}
			other := elsewhere(t, home)
			if c.reason != noCommit { // there all partitions are
				s.produce(record(other, "goes on", "x"))
				s.decided("goes on")
			}
			before := s.count(topics.Audit())
			if _, err := r.Accept(partitions + 7); err == nil {
				t.Error("a partition that is not refused was accepted")
			}
			if _, err := r.Accept(home); err != nil {
				t.Fatal(err)
			}
			s.produce(record("acme", "m-0", "x"), record("acme", "new", "x"))
			s.decided("new")
			var m0 []string
			for _, tr := range s.transitions(before + 2) {
				if tr.EventID == "m-0" {
					m0 = append(m0, tr.Status.String())
				}
			}
			if want := []string{"processing", "processing", "duplicate"}; !slices.Equal(m0, want[:c.decided]) {
				t.Errorf("m-0: %v, want it forgotten", m0)
			}
			stop()
			_, stop = s.run(s.config(0)) // what was accepted is the state now
			s.produce(record("acme", "new", "x"), record("acme", "newer", "x"))
			s.decided("newer")
			stop()
			n := 0
			for _, tr := range s.transitions(s.count(topics.Audit())) {
				if tr.EventID == "new" && tr.Status == schemas.Processing {
					n++
				}
			}
			if n != 1 {
				t.Errorf("new was let through %d times", n)
			}
		})
	}
}

// TestAcceptedPartitionMayBeIdle: a partition that was accepted keeps its place
// though nothing comes for it, and nothing is committed.
func TestAcceptedPartitionMayBeIdle(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	_, stop := s.run(s.config(0))
	s.produce(record("acme", "before", "x"))
	s.settled()
	stop()
	home := schemas.HomePartition([]byte("acme"), partitions)
	to := kadm.Offsets{}
	to.AddOffset(topics.Events(), home, 100, -1)
	if err := kadm.NewClient(s.producer).CommitAllOffsets(s.ctx(), topics.Prefix+"route", to); err != nil {
		t.Fatal(err)
	}
	var later atomic.Int64
	cfg := s.config(0)
	cfg.Sessions, cfg.Now = 1, func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	r, _ := s.run(cfg)
	s.notReady(r, "is refused")
	if _, err := r.Accept(home); err != nil {
		t.Fatal(err)
	}
	s.until(patience, func() string { return some(len(r.Refused()), "partitions are refused") })
	other := elsewhere(t, home)
	for i := range 3 { // each is a cycle, in which what is not owned is dropped
		later.Add(int64(time.Minute))
		id := fmt.Sprint("cycle-", i)
		s.produce(record(other, id, "x"))
		s.decided(id)
	}
	s.produce(record("acme", "after", "x"))
	s.decided("after")
}

// decided waits until audit has a word about the event.
func (s *stage) decided(id string) {
	s.t.Helper()
	for n := 1; ; {
		list := s.transitions(n)
		for _, tr := range list {
			if tr.EventID == id {
				return
			}
		}
		n = len(list) + 1
	}
}

// TestOldStateIsForgotten: a partition that was idle until retention deleted
// its state begins empty, for all it knew is older than a day.
func TestOldStateIsForgotten(t *testing.T) {
	s := newStage(t)
	_, stop := s.run(s.config(0))
	s.produce(record("acme", "m-1", "x"))
	s.settled()
	stop()
	home := schemas.HomePartition([]byte("acme"), partitions)
	o := kadm.Offsets{}
	ends, err := kadm.NewClient(s.producer).ListEndOffsets(s.ctx(), topics.RouteState())
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(topics.RouteState(), home)
	o.AddOffset(topics.RouteState(), home, end.Offset, -1)
	if _, err := kadm.NewClient(s.producer).DeleteRecords(s.ctx(), o); err != nil {
		t.Fatal(err)
	}
	cfg := s.config(0)
	cfg.Now = func() time.Time { return time.Now().Add(processors.Window + time.Minute) }
	r, _ := s.run(cfg)
	s.produce(record("acme", "m-2", "x"))
	s.read(topics.Fanout("eu"), 2)
	if refused := r.Refused(); len(refused) > 0 {
		t.Errorf("refused: %+v", refused)
	}
}

// TestPointer is read back as it was written, and nothing else is.
func TestPointer(t *testing.T) {
	p := pointer{schemas.TopicID{1, 2, 3}, 70, 1_790_000_000_000, 4}
	got, err := parsePointer(p.String())
	if err != nil || got != p {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "member-1", "2 " + p.String()[2:], "1 AQID 3 4 5", strings.Replace(p.String(), " 70 ", " -1 ", 1), strings.Replace(p.String(), " 4", " 99", 1), strings.Repeat("x", 10_000)} {
		if _, err := parsePointer(bad); err == nil || len(err.Error()) > 300 {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
}
