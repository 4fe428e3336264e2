package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/registry"
)

// moody is a registry with schema 7, when it answers.
type moody struct {
	mu    sync.Mutex
	known bool
	asked int
	err   error // what it says instead
	slow  time.Duration
}

func (m *moody) Schema(id int32) (processors.Schema, int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id != 7 || !m.known {
		return nil, -1
	}
	return room{}, 0
}

func (m *moody) resolve(ctx context.Context, id int32) error {
	m.mu.Lock()
	m.asked++
	slow, err := m.slow, m.err
	m.mu.Unlock()
	if err == nil && id != 7 {
		err = registry.ErrAbsent
	}
	if wait(ctx, slow) != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("schema id %d: %w", id, err)
	}
	m.mu.Lock()
	m.known = true
	m.mu.Unlock()
	return nil
}

func (m *moody) say(err error, slow time.Duration) {
	m.mu.Lock()
	m.err, m.slow = err, slow
	m.mu.Unlock()
}

// room is a schema whose records name a room.
type room struct{ plain }

func (room) AppendField(dst, _ []byte, name string) ([]byte, bool) {
	return append(dst, "blue"...), name == "room"
}

// rooms is a policy that takes the channel from the payload.
type rooms struct{}

func (rooms) Policy(string) (*schemas.Policy, bool) {
	return &schemas.Policy{Types: map[string]schemas.Type{"demo.Message": {Channel: "chat.{room}"}}}, true
}

// nameless is an event that says neither type nor channel, or its type only.
func nameless(id int32, kind string) *kgo.Record {
	rec := &kgo.Record{Topic: "events", Key: []byte("acme"), Value: wire(id, "x"), Timestamp: time.UnixMilli(1_790_000_000_000)}
	if kind != "" {
		rec.Headers = []kgo.RecordHeader{{Key: schemas.HeaderType, Value: []byte(kind)}}
	}
	return rec
}

// flushed adds records as a poll does, then does what precedes an insert. It
// returns type and channel of each row, and how long both took.
func flushed(t *testing.T, b *batch, records ...*kgo.Record) (rows [][2]string, took time.Duration) {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), resolveTimeout)
	defer cancel()
	for _, rec := range records {
		b.addRecord(ctx, schemas.TopicID{1}, rec)
	}
	if b.rows() != len(records) {
		t.Fatalf("%d rows of %d records", b.rows(), len(records))
	}
	b.settle(t.Context())
	values := map[string][]string{}
	for _, c := range b.events.Columns {
		if texts, ok := c.Values().([]string); ok {
			values[c.Name] = append(values[c.Name], texts...)
		}
	}
	if len(values["type"]) != len(records) || b.rows() != len(records) {
		t.Fatalf("%d rows of %d records", len(values["type"]), len(records))
	}
	for i := range records {
		rows = append(rows, [2]string{values["type"][i], values["channel"][i]})
	}
	b.check(t)
	b.reset()
	return rows, time.Since(began)
}

// TestNamesThatComeLate: a registry that is slow or away for a moment costs an
// event neither type nor channel; one that is away costs 5 s once in a while.
func TestNamesThatComeLate(t *testing.T) {
	full, empty := [2]string{"demo.Message", "chat.blue"}, [2]string{"", schemas.DefaultChannel}
	down := fmt.Errorf("500: %w", registry.ErrUnavailable)
	for _, c := range []struct {
		name   string
		ill    func(*moody)
		record *kgo.Record
		want   [2]string
		most   time.Duration
	}{
		{"at once", func(*moody) {}, nameless(7, ""), full, 0},
		{"at once, type said", func(*moody) {}, nameless(7, "demo.Message"), full, 0},
		{"slow", func(m *moody) { m.say(nil, time.Second) }, nameless(7, ""), full, 1300 * time.Millisecond},
		{"slow, type said", func(m *moody) { m.say(nil, time.Second) }, nameless(7, "demo.Message"), full, 1300 * time.Millisecond},
		{"away for 2 s", func(m *moody) {
			m.say(down, 0)
			time.AfterFunc(2*time.Second, func() { m.say(nil, 0) })
		}, nameless(7, ""), full, 3200 * time.Millisecond},
		{"no such schema", func(*moody) {}, nameless(8, ""), empty, 0},
		{"away", func(m *moody) { m.say(down, 0) }, nameless(7, ""), empty, settleTimeout},
		{"silent", func(m *moody) { m.say(nil, time.Hour) }, nameless(7, ""), empty, settleTimeout + resolveTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &moody{}
				c.ill(m)
				got, took := flushed(t, moodyBatch(m), c.record, c.record)
				if got[0] != c.want || got[1] != c.want || took > c.most {
					t.Errorf("%v after %v, want %v twice within %v", got, took, c.want, c.most)
				}
			})
		})
	}
}

// TestRegistryAway: it is waited for once in 30 s, whatever ids come, and
// asked a bounded number of times; when it is back the names are.
func TestRegistryAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &moody{err: errors.New("no route")}
		b := moodyBatch(m)
		var waited time.Duration
		for i := range 100 {
			_, took := flushed(t, b, nameless(int32(100+i), ""), nameless(int32(100+i), ""))
			waited += took
			if err := wait(t.Context(), 250*time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		if waited != settleTimeout || m.asked > 150 {
			t.Errorf("waited %v, asked %d times", waited, m.asked)
		}
		m.say(nil, 0)
		if got, took := flushed(t, b, nameless(7, "")); got[0][0] != "demo.Message" || took != 0 {
			t.Errorf("back again: %v after %v", got, took)
		}
	})
}

func moodyBatch(m *moody) *batch {
	b := loneBatch()
	b.sink.cfg.Schemas, b.sink.cfg.Resolve, b.sink.cfg.Tenants, b.sink.cfg.Now = m, m.resolve, rooms{}, time.Now
	return b
}

// TestNamesThatComeLateAreStored: in all of the sink, events and dead letters.
func TestNamesThatComeLateAreStored(t *testing.T) {
	w := newWorld(t)
	m := &moody{err: registry.ErrUnavailable}
	cfg := w.config()
	cfg.Schemas, cfg.Resolve, cfg.Tenants = m, m.resolve, rooms{}
	_, stop := w.run(cfg)
	event, letter := nameless(7, ""), nameless(7, "")
	event.Topic, letter.Topic = w.topics.Events(), w.topics.Dead()
	event.Timestamp, letter.Timestamp = time.Time{}, time.Time{}
	w.put(event, letter)
	awaitTrue(t, "the registry is asked again", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.asked > 4
	})
	m.say(nil, 0)
	w.await("SELECT count() FROM v_events WHERE type = 'demo.Message' AND channel = 'chat.blue'", 1)
	w.await("SELECT count() FROM v_dead_letters WHERE type = 'demo.Message' AND channel = 'chat.blue'", 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.checkCommitted()
}

// later is a registry that holds the schema of transitions under another id too.
type later struct{ moody }

type named struct {
	plain
	name string
}

func (n named) Name() string { return n.name }

func (l *later) Schema(id int32) (processors.Schema, int64) {
	if s, _ := l.moody.Schema(id); s != nil {
		return named{name: schemas.TransitionName}, 0
	}
	return nil, -1
}

// TestSystemRecordOfALaterSchema: a newer node writes under an id that was given
// after the sink began.
func TestSystemRecordOfALaterSchema(t *testing.T) {
	for _, slow := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			l := &later{}
			l.slow = slow
			b := moodyBatch(&l.moody)
			b.sink.cfg.Schemas = l
			tr := &schemas.Transition{Tenant: "acme", EventID: "e", Status: schemas.Processing}
			rec := &kgo.Record{Topic: "audit", Key: []byte("acme"), Value: tr.AppendAvro(schemas.AppendWireHeader(nil, 7))}
			ctx, cancel := context.WithTimeout(t.Context(), resolveTimeout)
			defer cancel()
			b.addRecord(ctx, schemas.TopicID{1}, rec)
			b.settle(t.Context())
			if b.transitions.Rows != 1 || b.odd.Rows != 0 {
				t.Errorf("%d transitions, %d that cannot be read", b.transitions.Rows, b.odd.Rows)
			}
		})
	}
}
