package route

import (
	"fmt"
	"slices"
)

// A Refused is a partition that its session does not read.
type Refused struct {
	Partition int32  `json:"partition"`
	Reason    string `json:"reason"`
	Text      string `json:"text"`
	GoOn      int64  `json:"go_on"` // offset that it goes on from once it is accepted; below 0: the committed one
}

// Refused are the partitions that this router refuses now.
func (r *Router) Refused() []Refused {
	var out []Refused
	for _, s := range r.sessions {
		out = append(out, s.refusedNow()...)
	}
	return out
}

// refusedNow are the partitions that the session refuses, by number.
func (s *session) refusedNow() []Refused {
	if list := s.refusing.Load(); list != nil {
		return *list
	}
	return nil
}

// Accept has a refused partition go on with nothing remembered: it goes on from
// Refused.GoOn, and what the refusal warned of happens. It takes effect at
// once, and holds for this reason until the router ends or something of the
// partition is decided. An error says why there is nothing to accept.
func (r *Router) Accept(partition int32) (Refused, error) {
	for _, s := range r.sessions {
		list := s.refusedNow()
		i := slices.IndexFunc(list, func(why Refused) bool { return why.Partition == partition })
		if i < 0 {
			continue
		}
		if list[i].Reason == unreadable {
			return list[i], fmt.Errorf("partition %d is refused only until Kafka answers: %s", partition, list[i].Text)
		}
		s.mu.Lock()
		s.accepted[partition], s.anew = list[i].Reason, true
		s.mu.Unlock()
		return list[i], nil
	}
	return Refused{}, fmt.Errorf("this router does not refuse partition %d of %s", partition, r.cfg.Topics.Events())
}
