package route

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// read makes s.ev the record r. A spillway-return without a valid hash is
// counted and otherwise ignored.
func (s *session) read(r *kgo.Record) {
	s.ev.Reset(schemas.Origin{
		Topic: s.topic, Partition: r.Partition, Offset: r.Offset, AcceptedAt: r.Timestamp.UnixMilli(),
	}, r.Topic, r.Key, r.Value)
	for i := range r.Headers {
		s.ev.SetHeader(r.Headers[i].Key, r.Headers[i].Value)
	}
	s.ev.Transactional = r.Attrs.IsTransactional()
	header := s.ev.ReturnHeader()
	if header == nil {
		return
	}
	ret, err := schemas.ParseReturn(header, r.Key, r.Value, s.cfg.Secrets.SecretKey)
	if err != nil {
		s.counts.forged++
		return
	}
	s.ev.Returned(ret)
}
