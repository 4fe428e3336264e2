package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// readKafka reads the topics to where they end now.
func (f *facts) readKafka(ctx context.Context, brokers []string, prefix string) error {
	adm, err := kadm.NewOptClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return err
	}
	defer adm.Close()
	topics, err := adm.ListTopics(ctx, prefix+"events")
	if err != nil {
		return err
	}
	id := topics[prefix+"events"].ID
	name := base64.RawURLEncoding.EncodeToString(id[:])
	r := reader{brokers: brokers, adm: adm}
	var bad error
	note := func(err error) { bad = errors.Join(bad, err) }
	err = errors.Join(
		r.read(ctx, prefix+"events", func(rec *kgo.Record) { f.events = append(f.events, readEvent(rec, name)) }),
		r.read(ctx, prefix+"audit", func(rec *kgo.Record) {
			d, is, err := readDecision(rec, id)
			if note(err); is {
				f.decisions = append(f.decisions, d)
			}
		}),
		r.read(ctx, prefix+"dead", func(rec *kgo.Record) {
			o, err := readOrigin(rec, name)
			note(err)
			f.letters = append(f.letters, letter{placeOf(rec), o, string(rec.Key), header(rec, "spillway-reason")})
		}),
		r.read(ctx, prefix+"overflow", func(rec *kgo.Record) {
			o, err := readOrigin(rec, name)
			note(err)
			f.waits = append(f.waits, wait{placeOf(rec), o, string(rec.Key)})
		}))
	for _, region := range f.regions {
		err = errors.Join(err, r.read(ctx, prefix+"fanout."+region, func(rec *kgo.Record) {
			d, err := readDelivery(rec, region)
			note(err)
			f.deliveries = append(f.deliveries, d)
		}))
	}
	return errors.Join(err, bad)
}

// A reader reads whole topics.
type reader struct {
	brokers []string
	adm     *kadm.Client
}

// read calls each for every committed data record of a topic, those of a
// partition in order.
func (r reader) read(ctx context.Context, topic string, each func(*kgo.Record)) error {
	starts, err := r.adm.ListStartOffsets(ctx, topic)
	if err != nil {
		return err
	}
	ends, err := r.adm.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return err
	}
	left := map[int32]int64{} // end by partition
	from := map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) {
		start, _ := starts.Lookup(topic, o.Partition)
		if err = errors.Join(err, o.Err, start.Err); start.Offset < o.Offset {
			left[o.Partition], from[o.Partition] = o.Offset, kgo.NewOffset().At(start.Offset)
		}
	})
	if err != nil || len(left) == 0 {
		return err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(r.brokers...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.KeepControlRecords(), // the last record may be a marker
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.BrokerMaxReadBytes(100<<20), kgo.FetchMaxBytes(20<<20))
	if err != nil {
		return err
	}
	defer client.Close()
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read %s: %w; partitions left: %v", topic, err, left)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			end, ok := left[rec.Partition]
			if !ok || rec.Offset >= end {
				return
			}
			if rec.Offset == end-1 {
				delete(left, rec.Partition)
			}
			if !rec.Attrs.IsControl() {
				each(rec)
			}
		})
	}
	return nil
}

func placeOf(r *kgo.Record) place { return place{r.Partition, r.Offset} }

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

func readEvent(r *kgo.Record, topicID string) event {
	e := event{
		at: placeOf(r), tenant: string(r.Key), id: header(r, "ce_id"),
		region: header(r, "ce_region"), origin: placeOf(r), inOrigin: true,
		appendTime: r.Attrs.TimestampType() == 1,
	}
	switch key := header(r, "ce_idempotencykey"); {
	case key != "":
		e.key = "key " + key
	case e.id != "":
		e.key = "id " + header(r, "ce_source") + " " + e.id
	}
	if e.id == "" || len(e.id) > 256 || !utf8.ValidString(e.id) { // then its place is its name
		e.id = topicID + "/" + e.at.String()
	}
	if fields := strings.Split(header(r, "spillway-return"), ";"); len(fields) == 12 {
		partition, err1 := strconv.ParseInt(fields[2], 10, 32)
		offset, err2 := strconv.ParseInt(fields[3], 10, 64)
		e.returned, e.origin = fields[0], place{int32(partition), offset}
		e.inOrigin = err1 == nil && err2 == nil && fields[1] == topicID
	}
	return e
}

func readOrigin(r *kgo.Record, topicID string) (place, error) {
	fields := strings.Split(header(r, "spillway-origin"), ";")
	if len(fields) != 6 || fields[0] != topicID {
		return place{}, fmt.Errorf("%s %s: spillway-origin is %q", r.Topic, placeOf(r), header(r, "spillway-origin"))
	}
	partition, err1 := strconv.ParseInt(fields[1], 10, 32)
	offset, err2 := strconv.ParseInt(fields[2], 10, 64)
	return place{int32(partition), offset}, errors.Join(err1, err2)
}

func readDelivery(r *kgo.Record, region string) (delivery, error) {
	cursor := header(r, "spillway-cursor")
	if len(cursor) != 25 || cursor[0] != 'c' {
		return delivery{}, fmt.Errorf("fanout.%s %s: cursor %q", region, placeOf(r), cursor)
	}
	after, err := strconv.ParseInt(cursor[13:], 16, 64)
	if err != nil {
		return delivery{}, fmt.Errorf("fanout.%s %s: cursor %q: %w", region, placeOf(r), cursor, err)
	}
	var body struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(r.Value, &body); err != nil {
		return delivery{}, fmt.Errorf("fanout.%s %s: %w", region, placeOf(r), err)
	}
	return delivery{region: region, in: placeOf(r), epoch: cursor[1:13], cursor: after - 1, tenant: string(r.Key), id: body.ID}, nil
}
