package route

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/spillway/spillway/processors"
)

// A partition is what a session knows of one partition of `events`.
type partition struct {
	number  int32
	state   *processors.State
	wholes  []whole // records of route.state at which a restore of state may begin, oldest first; none: it began empty
	at      pointer // what the committed offset says
	reached int64   // the state knows all records before this offset; -1: it has seen none, and nothing is committed

	// Of the transaction under way.
	open        bool // there is one, or its outcome is in doubt
	after       int64
	written     []written // its records of route.state
	next        pointer   // what its commit says
	wholesAfter []whole
}

// settle undoes the open transaction, if the committed offset o says that it
// was. It reports false if the state reaches elsewhere.
func (p *partition) settle(o int64) bool {
	if o != p.reached {
		return false
	}
	if p.open {
		p.state.Rollback()
	}
	p.open, p.written = false, p.written[:0]
	return true
}

// hold makes what the open transaction changed the partition's state.
func (p *partition) hold() {
	p.state.Commit()
	p.reached, p.open = p.after, false
	if len(p.written) > 0 {
		p.at = p.next
		p.wholes, p.wholesAfter = p.wholesAfter, p.wholes
		p.written = p.written[:0]
	}
}

// takeAssignments takes over the partitions that were assigned since the last
// poll. An error means that what is in memory is of no use for one of them.
func (s *session) takeAssignments(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, number := range s.gone { // before: it may have come back meanwhile
		delete(s.refusedParts, number)
	}
	s.gone = s.gone[:0]
	for number, why := range s.refusals {
		if why.reason == unreadable && s.tryAgain.IsZero() {
			s.tryAgain = now.Add(restoreAgain)
		}
		s.refuse(number, why)
		delete(s.parts, number)
	}
	clear(s.refusals)
	var lost error
	for number, st := range s.starts {
		delete(s.refusedParts, number)
		if st.state != nil {
			s.parts[number] = &partition{number: number, state: st.state, wholes: st.wholes, at: st.from, reached: st.at}
		} else if p := s.parts[number]; p == nil || !p.settle(st.at) {
			delete(s.parts, number)
			lost = fmt.Errorf("partition %d: its state in memory does not reach to the committed offset %d", number, st.at)
		}
	}
	clear(s.starts)
	s.tellRefused()
	s.noteHeld()
	if s.anew && lost == nil {
		lost = errors.New("a person has accepted that a refused partition goes on")
	}
	s.anew = false
	if lost == nil && !s.tryAgain.IsZero() && !now.Before(s.tryAgain) {
		lost = errors.New("states could not be restored: they are read again")
	}
	return lost
}

// noteHeld tells assigned which states are in memory. s.mu is held.
func (s *session) noteHeld() {
	clear(s.held)
	for number, p := range s.parts {
		if !p.open {
			s.held[number] = p.reached
		}
	}
}

// clean drops the states of partitions that another session owns now. Nothing
// depends on when: a state that is wrong is found out when its partition is
// assigned again. An accepted partition counts as owned once it has committed.
func (s *session) clean(now time.Time) {
	s.metrics.observe(s, now)
	if now.Sub(s.cleaned) < 10*idleTick {
		return
	}
	s.cleaned = now
	owned := s.gts.Client().CommittedOffsets()[s.cfg.Topics.Events()]
	s.mu.Lock()
	defer s.mu.Unlock()
	for number, p := range s.parts {
		_, accepted := s.accepted[number]
		if _, ok := owned[number]; !ok && !accepted && p.reached >= 0 && !p.open {
			delete(s.parts, number)
		}
	}
	s.noteHeld()
}

// committed asks the broker for the committed offsets of `events`, waiting
// until no transaction holds them in doubt.
func (s *session) committed(ctx context.Context) (map[int32]int64, error) {
	admin := kadm.NewClient(s.gts.Client())
	for {
		offsets, err := admin.FetchOffsets(kadm.RequireStable(ctx), s.cfg.group())
		if err == nil {
			err = offsets.Error()
		}
		if err == nil {
			out := make(map[int32]int64)
			for number, o := range offsets[s.cfg.Topics.Events()] {
				out[number] = o.At
			}
			return out, nil
		}
		if !errors.Is(err, kerr.UnstableOffsetCommit) {
			return nil, fmt.Errorf("fetch committed offsets: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("fetch committed offsets: %w", ctx.Err())
		case <-time.After(rebuildLeast):
		}
	}
}

// settleAll settles every open state by the broker's word. An error means that
// the client's position cannot be trusted.
func (s *session) settleAll(ctx context.Context) error {
	offsets, err := s.committed(ctx)
	if err != nil {
		return err
	}
	for number, p := range s.parts {
		if !p.open {
			continue
		}
		o, ok := offsets[number]
		if !ok {
			o = -1
		}
		if !p.settle(o) {
			return fmt.Errorf("partition %d: an aborted transaction has committed, or another session has: offset %d, want %d", number, o, p.reached)
		}
	}
	return nil
}
