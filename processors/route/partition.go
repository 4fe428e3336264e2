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
	reached int64 // the state knows all records before this offset; -1: it has seen none, and nothing is committed
	after   int64 // same, once the transaction under way has committed
	open    bool  // a transaction is under way, or its outcome is in doubt
}

// settle makes the state that of the committed offset o, -1 if there is none:
// as it was before the open transaction, or after it, or, if it reaches
// elsewhere, an empty one. It reports whether the state was kept.
func (p *partition) settle(o int64, maxKeys int) bool {
	open := p.open
	p.open = false
	switch {
	case o == p.reached:
		if open {
			p.state.Rollback()
		}
	case open && o == p.after:
		p.state.Commit()
		p.reached = o
	default:
		p.state = processors.NewState(maxKeys)
		p.reached = o
		return false
	}
	return true
}

// takeAssignments settles the states of the partitions that were assigned
// since the last poll.
func (s *session) takeAssignments() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, number := range s.gone { // before: it may have come back meanwhile
		delete(s.refusedParts, number)
	}
	s.gone = s.gone[:0]
	for number, why := range s.refusals {
		s.refuse(number, why)
	}
	clear(s.refusals)
	for number, o := range s.starts {
		delete(s.refusedParts, number)
		p := s.parts[number]
		if p == nil {
			s.parts[number] = &partition{number: number, state: processors.NewState(s.cfg.MaxKeys), reached: o}
		} else if !p.settle(o, s.cfg.MaxKeys) {
			s.log.Info("the state does not reach to the committed offset, it begins empty", "partition", number, "offset", o)
		}
	}
	clear(s.starts)
	s.tellRefused()
}

// clean drops the states of partitions that another session owns now. Nothing
// depends on when: a state that is wrong is found out when its partition is
// assigned again.
func (s *session) clean(now time.Time) {
	s.metrics.observe(s, now)
	if now.Sub(s.cleaned) < 10*idleTick {
		return
	}
	s.cleaned = now
	owned := s.gts.Client().CommittedOffsets()[s.cfg.Topics.Events()]
	for number, p := range s.parts {
		if _, ok := owned[number]; !ok && p.reached >= 0 && !p.open {
			delete(s.parts, number)
		}
	}
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
		if o != p.reached {
			return fmt.Errorf("partition %d: an aborted transaction has committed, or another session has: offset %d, want %d", number, o, p.reached)
		}
		p.settle(o, s.cfg.MaxKeys)
	}
	return nil
}
