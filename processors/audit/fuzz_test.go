package audit

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/processors/audit/rows"
	"github.com/spillway/spillway/schemas"
)

// loneBatch is a batch whose sink reads and writes nothing.
func loneBatch() *batch {
	s := &Sink{
		cfg:     Config{Topics: schemas.Topics{}, Secrets: secretKeys{}, Schemas: plain{}, Tenants: templates{}, Now: time.Now},
		metrics: newMetrics(prometheus.NewRegistry()), kinds: map[int32]string{11: schemas.TransitionName, 12: schemas.ReceiptName, 13: schemas.SessionRangeName},
	}
	return newBatch(s)
}

// templates is a policy that takes id and channel from the payload.
type templates struct{}

func (templates) Policy(string) (*schemas.Policy, bool) {
	return &schemas.Policy{Types: map[string]schemas.Type{"demo.Message": {ID: "{id}", Channel: "chat.{chat}"}}}, true
}

// FuzzRow: whatever a record holds, it is a row (or a valid return), all
// columns of a table have the same length, times are in range, and the same
// record gives the same rows again.
func FuzzRow(f *testing.F) {
	o := schemas.Origin{Topic: schemas.TopicID{1}, Partition: 1, Offset: 2, AcceptedAt: 1_790_000_000_000}
	tr := schemas.Transition{Tenant: "a", Origin: o, EventID: "e", Status: schemas.Processing, Path: "fast", At: 1 << 60, Home: 1, Cursor: 7}
	rc := schemas.Receipt{Tenant: "a", Deliveries: []schemas.Delivery{{Cursor: 1, Appended: -5, Sessions: 2}, {Cursor: 2}}}
	sr := schemas.SessionRange{Tenant: "a", Session: "s", Channel: "c", At: 1 << 62}
	f.Add(byte(0), []byte("acme"), wire(7, "x"), schemas.HeaderTime, []byte("9999-12-31T23:59:59Z"), int64(1_790_000_000_000))
	f.Add(byte(0), []byte{}, []byte{}, schemas.HeaderReturn, []byte("forward;x"), int64(-1))
	f.Add(byte(1), []byte("a"), tr.AppendAvro(schemas.AppendWireHeader(nil, 11)), "", []byte{}, int64(1)<<62)
	f.Add(byte(1), []byte("a"), rc.AppendAvro(schemas.AppendWireHeader(nil, 12)), "", []byte{}, int64(1_790_000_000_000))
	f.Add(byte(1), []byte("a"), sr.AppendAvro(schemas.AppendWireHeader(nil, 13)), "", []byte{}, int64(1_790_000_000_000))
	f.Add(byte(2), []byte("a"), []byte("x"), schemas.HeaderOrigin, schemas.OriginHeader(o, -1, "j"), int64(1_790_000_000_000))
	f.Add(byte(2), []byte("a"), []byte("x"), schemas.HeaderAttempt, []byte("-9"), int64(1_790_000_000_000))
	f.Fuzz(func(t *testing.T, topic byte, key, value []byte, header string, text []byte, ms int64) {
		names := []string{schemas.Topics{}.Events(), schemas.Topics{}.Audit(), schemas.Topics{}.Dead()}
		rec := &kgo.Record{Topic: names[int(topic)%3], Key: key, Value: value, Timestamp: time.UnixMilli(ms % (1 << 50)), Headers: []kgo.RecordHeader{{Key: header, Value: text}}}
		b := loneBatch()
		var before string
		for round := range 2 {
			b.addRecord(t.Context(), schemas.TopicID{1}, rec)
			_, isReceipt := schemas.DecodeReceipt(value[min(5, len(value)):])
			if n := b.rows(); n == 0 && header != schemas.HeaderReturn && isReceipt != nil {
				t.Fatal("no row")
			}
			got := b.check(t)
			if round == 1 && got != before {
				t.Fatalf("the same record gave\n%s\nand\n%s", before, got)
			}
			before = got
			b.reset()
		}
	})
}

// check returns the rows as text, having checked columns.
func (b *batch) check(t *testing.T) (out string) {
	for _, tb := range b.tables {
		for i := range tb.Columns {
			c := &tb.Columns[i]
			n := 0
			switch v := c.Values().(type) {
			case []string:
				n = len(v)
			case []int64:
				n = len(v)
				for _, x := range v {
					if c.Kind[:4] == "Date" && (x < 0 || x > rows.MaxMillis) && (c.Name != "occurred_at" || x < rows.MinOccurred || x > rows.MaxOccurred) {
						t.Fatalf("%s.%s is %d", tb.Name, c.Name, x)
					}
				}
			case []int32:
				n = len(v)
			case []int8:
				n = len(v)
			case []uint32:
				n = len(v)
			case []uint64:
				n = len(v)
			case []rows.Headers:
				n = len(v)
			default:
				t.Fatalf("%s.%s is a %T", tb.Name, c.Name, v)
			}
			if n != tb.Rows {
				t.Fatalf("%s.%s has %d values, the table %d rows", tb.Name, c.Name, n, tb.Rows)
			}
			out += fmt.Sprintf("%s.%s %q\n", tb.Name, c.Name, fmt.Sprint(c.Values()))
		}
	}
	return out
}

// benchRecords are n events, their transitions, and a receipt for each 300.
func benchRecords(n int) (events, audit []*kgo.Record) {
	w := &world{topics: schemas.Topics{}, topic: schemas.TopicID{1}}
	o := schemas.Origin{Topic: w.topic, AcceptedAt: 1_790_000_000_000}
	for i := range n {
		rec := w.event("acme", i)
		rec.Timestamp, rec.Offset = time.UnixMilli(o.AcceptedAt+int64(i/6)), int64(i)
		rec.Value = wire(7, fmt.Sprintf("%0200d", i))
		events = append(events, rec)
		o.Offset = int64(i)
		t := &schemas.Transition{Tenant: "acme", Origin: o, EventID: fmt.Sprintf("ev-%d", i), Status: schemas.Processing, Path: "fast", At: o.AcceptedAt, LatencyUS: 900,
			Node: "n1", TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", Home: 1, Cursor: int64(i)}
		a := w.audit("acme", t)
		a.Timestamp, a.Offset = rec.Timestamp, int64(i)
		audit = append(audit, a)
		if i%300 == 0 {
			r := &schemas.Receipt{Tenant: "acme", Node: "f1", Region: "eu", Home: 1, At: o.AcceptedAt}
			for k := range 300 {
				r.Deliveries = append(r.Deliveries, schemas.Delivery{Cursor: int64(i + k), Appended: o.AcceptedAt, Sessions: 2, LatencyUS: 4000})
			}
			a := w.audit("acme", r)
			a.Timestamp, a.Offset = rec.Timestamp, int64(n+i)
			audit = append(audit, a)
		}
	}
	return events, audit
}

// BenchmarkRows maps the records of one flush to columns.
func BenchmarkRows(b *testing.B) {
	events, audit := benchRecords(1500)
	batch := loneBatch()
	b.ReportAllocs()
	rows := 0
	for b.Loop() {
		for _, list := range [][]*kgo.Record{events, audit} {
			for _, rec := range list {
				batch.addRecord(b.Context(), schemas.TopicID{1}, rec)
			}
		}
		rows += batch.rows()
		batch.reset()
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkInsert is one flush of a quarter of a second at the target load:
// 1,500 events, 1,500 transitions, 1,500 receipts, into the real engine.
func BenchmarkInsert(b *testing.B) {
	server := testServer(b)
	if _, err := Migrate(b.Context(), MigrateConfig{Server: server}); err != nil {
		b.Fatal(err)
	}
	conn, err := server.Open()
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	events, audit := benchRecords(1500)
	batch := loneBatch()
	rows := 0
	b.ReportAllocs()
	for b.Loop() {
		for _, list := range [][]*kgo.Record{events, audit} {
			for _, rec := range list {
				batch.addRecord(b.Context(), schemas.TopicID{1}, rec)
			}
		}
		for _, t := range batch.tables {
			if t.Rows > 0 {
				if err := t.Insert(b.Context(), conn); err != nil {
					b.Fatal(err)
				}
			}
		}
		rows += batch.rows()
		batch.reset()
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
}
