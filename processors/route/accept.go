package route

import "fmt"

// A Refused is a partition that its session does not read.
type Refused struct {
	Partition int32  `json:"partition"`
	Reason    string `json:"reason"`
	Text      string `json:"text"`
	GoOn      int64  `json:"go_on"` // offset that it goes on from once it is accepted; below 0: the committed one
}

// Refused are the partitions that this router refuses now, in no order.
func (r *Router) Refused() []Refused {
	var out []Refused
	for _, s := range r.sessions {
		if list := s.refusedNow.Load(); list != nil {
			out = append(out, *list...)
		}
	}
	return out
}

// Accept has a refused partition go on with nothing remembered: it goes on from
// Refused.GoOn, and what the refusal warned of happens. It takes effect at
// once, and holds until the router ends or something of the partition is
// decided. An error says that this router does not refuse the partition.
func (r *Router) Accept(partition int32) (Refused, error) {
	for _, s := range r.sessions {
		if why, ok := s.accept(partition); ok {
			return why, nil
		}
	}
	return Refused{}, fmt.Errorf("this router does not refuse partition %d of %s", partition, r.cfg.Topics.Events())
}

func (s *session) accept(partition int32) (Refused, bool) {
	list := s.refusedNow.Load()
	if list == nil {
		return Refused{}, false
	}
	for _, why := range *list {
		if why.Partition == partition {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.accepted[partition], s.anew = true, true
			return why, true
		}
	}
	return Refused{}, false
}
