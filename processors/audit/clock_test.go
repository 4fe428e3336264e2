package audit

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/processors/audit/explain"
	"github.com/spillway/spillway/schemas"
)

// clocks are what producers write into ce_time, and what occurred_at makes of
// it; "" where the column cannot hold it: then it is the append time.
var clocks = []struct{ said, stored string }{
	{"1970-01-01T00:00:00Z", "1970-01-01 00:00:00.000"},
	{"1969-12-31T23:59:59.999Z", "1969-12-31 23:59:59.999"},
	{"1900-01-01T00:00:00Z", "1900-01-01 00:00:00.000"},
	{"1899-12-31T23:59:59Z", ""},
	{"2100-01-01T00:00:00.5Z", "2100-01-01 00:00:00.500"},
	{"2100-06-01T02:00:00+02:00", "2100-06-01 00:00:00.000"},
	{"2262-04-11T23:47:16.854Z", "2262-04-11 23:47:16.854"},
	{"2262-04-11T23:47:16.855Z", ""},
	{"2299-12-31T23:59:59.999Z", ""},
	{"0000-01-01T00:00:00Z", ""},
	{"9999-12-31T23:59:59Z", ""},
	{"yesterday", ""},
}

// TestClocksOfProducers: whatever a producer's clock says, as record timestamp
// or as ce_time, the broker's append time places the row, and the story tells
// the producer's word as it was.
func TestClocksOfProducers(t *testing.T) {
	w := newWorld(t)
	_, stop := w.run(w.config())
	began := time.Now().UTC().Add(-time.Minute)
	stamps := []time.Time{{}, time.UnixMilli(0), time.UnixMilli(1), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}
	n := 0
	for _, c := range clocks {
		for _, stamp := range stamps {
			rec := w.event("acme", n)
			rec.Timestamp = stamp
			rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: schemas.HeaderTime, Value: []byte(c.said)})
			w.put(rec)
			n++
		}
	}
	w.await("SELECT count() FROM v_events", uint64(n))
	if days := count(t, w.conn, "SELECT uniqExact(toDate(accepted_at)) FROM events"); days > 2 {
		t.Errorf("%d partitions", days)
	}
	bounds := fmt.Sprintf("accepted_at >= '%s' AND accepted_at <= now64(3) + INTERVAL 1 MINUTE", began.Format(time.DateTime))
	if placed := count(t, w.conn, "SELECT count() FROM events FINAL WHERE "+bounds); placed != uint64(n) {
		t.Errorf("%d of %d rows are placed by the broker's time", placed, n)
	}
	for i, c := range clocks {
		want := "occurred_at = accepted_at"
		if c.stored != "" {
			want = "toString(occurred_at) = '" + c.stored + "'"
		}
		query := fmt.Sprintf("SELECT count() FROM events FINAL WHERE headers['ce_time'] = '%s' AND %s", c.said, want)
		if got := count(t, w.conn, query); got != uint64(len(stamps)) {
			var is, at string
			_ = w.conn.QueryRow(t.Context(), "SELECT toString(occurred_at), toString(toUnixTimestamp64Milli(occurred_at)) FROM events FINAL WHERE headers['ce_time'] = '"+c.said+"' LIMIT 1").Scan(&is, &at)
			t.Errorf("%s: %d of %d rows: %s; it is %s, %s", c.said, got, len(stamps), want, is, at)
		}
		story, err := explain.Explain(t.Context(), explain.ClickHouse(w.conn), fmt.Sprintf("ev-%d", i*len(stamps)), "acme")
		if err != nil || len(story.Events) != 1 || story.Events[0].Time != c.said {
			t.Errorf("%s: the story says %+v, %v", c.said, story.Events, err)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.checkCommitted()
}
