// Package entry makes the line's event of a record of `events`: for route,
// which decides, and for those who ask again why it decided so.
package entry

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/schemas"
)

// Read makes ev the record r of the topic events. A spillway-return without a
// valid hash is ignored, and reported as forged. key gives the cluster's
// secrets by their ids.
func Read(ev *processors.Event, events schemas.TopicID, r *kgo.Record, key func(id string) ([]byte, bool)) (forged bool) {
	ev.Reset(schemas.Origin{
		Topic: events, Partition: r.Partition, Offset: r.Offset, AcceptedAt: r.Timestamp.UnixMilli(),
	}, r.Topic, r.Key, r.Value)
	for i := range r.Headers {
		ev.SetHeader(r.Headers[i].Key, r.Headers[i].Value)
	}
	ev.Transactional = r.Attrs.IsTransactional()
	header := ev.ReturnHeader()
	if header == nil {
		return false
	}
	ret, err := schemas.ParseReturn(header, r.Key, r.Value, key)
	if err != nil {
		return true
	}
	ev.Returned(ret)
	return false
}
