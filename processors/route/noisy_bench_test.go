package route

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/processors/delay"
	"github.com/spillway/spillway/schemas"
)

// BenchmarkNoisyTenant: 50 tenants send at half their limit, and beside them,
// in every other window, one sends at 100 times its own.
const (
	quietTenants = 50
	quietRate    = 10 // events a second of each; they may send 20
	noisyRate    = 2000
	noisyLimit   = 20 // a second, and at once
	noisyPeriod  = 1000 / noisyLimit
	noisyBacklog = 10 * time.Second

	noisyWindow = 7 * time.Second // of measuring
	noisyRounds = 2               // windows without, and with
	noisySettle = noisyBacklog + time.Second
)

// BenchmarkNoisyTenant measures append to visible of the quiet ones, for a
// reader of committed records, and holds what the noisy ones got against their
// buckets by the book. Each round has a noisy tenant of its own, with a full
// bucket; between the rounds its backlog runs off.
func BenchmarkNoisyTenant(b *testing.B) {
	s := newStage(b)
	for i := range quietTenants {
		s.control.set(quietName(i), schemas.Policy{Fast: schemas.Rate{Rate: 2 * quietRate}})
	}
	for i := range noisyRounds {
		s.control.set(noisyName(i), schemas.Policy{Fast: schemas.Rate{
			Rate: noisyLimit, Burst: noisyLimit, Overflow: "shape", MaxBacklog: schemas.Duration(noisyBacklog),
		}})
	}
	s.run(s.config(0))
	s.runDelay()
	seen, stopReading := s.watch(topics.Fanout("eu"))
	stopQuiet := s.sendAt(quietTenants*quietRate, func(i int) string { return quietName(i % quietTenants) })
	pause(warmUp)
	var off, on []timespan
	for i := range noisyRounds {
		off = append(off, measured(noisyWindow))
		stopNoisy := s.sendAt(noisyRate, func(int) string { return noisyName(i) })
		on = append(on, measured(noisyWindow))
		stopNoisy()
		pause(noisySettle)
	}
	stopQuiet()
	s.settled()
	pause(time.Second / 2)
	stopReading()
	reportQuiet(b, *seen, off, on)
	s.reportNoisy(b, *seen)
}

func quietName(i int) string { return "quiet-" + strconv.Itoa(i) }
func noisyName(i int) string { return "noisy-" + strconv.Itoa(i) }

func pause(d time.Duration) { <-time.After(d) }

// A timespan is from until before to.
type timespan struct{ from, to time.Time }

func measured(d time.Duration) timespan {
	from := time.Now()
	pause(d)
	return timespan{from, time.Now()}
}

// runDelay gives back what waits, until the benchmark ends.
func (s *stage) runDelay() {
	d, err := delay.New(delay.Config{Kafka: s.kafka, Topics: topics, Partitions: partitions, Secrets: s.control, Node: "d"})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("delay: %v", err)
		}
	})
}

// sendAt sends events at a steady rate through a producer of its own, until
// stop, which waits for their acknowledgements.
func (s *stage) sendAt(perSecond int, tenant func(i int) string) (stop func()) {
	producer := s.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(topics.Events()),
		kgo.ProducerBatchMaxBytes(schemas.MaxClientBatch), kgo.ProducerLinger(0))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		begin, tick := time.Now(), time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for sent := 0; ctx.Err() == nil; <-tick.C {
			for due := int(time.Since(begin).Seconds() * float64(perSecond)); sent < due; sent++ {
				name := tenant(sent)
				producer.Produce(context.Background(), record(name, name+"."+strconv.Itoa(sent), "x"), s.sent)
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
		if err := producer.Flush(s.ctx()); err != nil {
			s.t.Error(err)
		}
	}
}

func (s *stage) sent(_ *kgo.Record, err error) {
	if err != nil {
		s.t.Errorf("produce: %v", err)
	}
}

// A sight is a record of fanout as its reader saw it.
type sight struct {
	tenant   string
	cursor   string
	appended time.Time // in whole milliseconds
	at       time.Time
}

// watch reads topic until stop; then what it saw may be read.
func (s *stage) watch(topic string) (seen *[]sight, stop func()) {
	c := s.client(kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	seen = new([]sight)
	wg.Go(func() {
		for ctx.Err() == nil {
			fetches := c.PollFetches(ctx)
			now := time.Now()
			fetches.EachRecord(func(r *kgo.Record) {
				*seen = append(*seen, sight{string(r.Key), header(r, schemas.HeaderCursor), r.Timestamp, now})
			})
		}
	})
	return seen, func() { cancel(); wg.Wait() }
}

// reportQuiet compares the windows without and with the noisy tenant: the
// ratios are of the means over the windows.
func reportQuiet(b *testing.B, seen []sight, off, on []timespan) {
	without, with := latencies(seen, off), latencies(seen, on)
	b.ReportMetric(0, "ns/op") // says nothing here
	for _, at := range []struct {
		name  string
		share float64
	}{{"p50", 0.5}, {"p99", 0.99}} {
		x, y := meanAt(without, at.share), meanAt(with, at.share)
		b.ReportMetric(x, "off-"+at.name+"-ms")
		b.ReportMetric(y, "on-"+at.name+"-ms")
		b.ReportMetric(y/x, at.name+"-ratio")
	}
	for i := range without {
		b.Logf("window %d: off p99 %.1f ms of %d, on p99 %.1f ms of %d", i, meanAt(without[i:i+1], 0.99), len(without[i]), meanAt(with[i:i+1], 0.99), len(with[i]))
	}
}

// latencies are those of the quiet tenants, sorted, window by window.
func latencies(seen []sight, windows []timespan) [][]time.Duration {
	out := make([][]time.Duration, len(windows))
	for _, x := range seen {
		if x.tenant[:1] != "q" {
			continue
		}
		for i, w := range windows {
			if !x.appended.Before(w.from) && x.appended.Before(w.to) {
				out[i] = append(out[i], x.at.Sub(x.appended))
			}
		}
	}
	for _, window := range out {
		slices.Sort(window)
	}
	return out
}

// meanAt is the mean, in ms, of a quantile of each window.
func meanAt(windows [][]time.Duration, share float64) float64 {
	var sum float64
	for _, w := range windows {
		if len(w) > 0 {
			sum += w[int(float64(len(w)-1)*share)].Seconds() * 1000
		}
	}
	return sum / float64(len(windows))
}

// reportNoisy holds what the noisy tenants got against the book: the number,
// each due time, and the order.
func (s *stage) reportNoisy(b *testing.B, seen []sight) {
	events, overflow := s.all(topics.Events()), s.all(topics.Overflow())
	var total noisySum
	for i := range noisyRounds {
		name := noisyName(i)
		j := judge(name, events)
		j.dues(overflow)
		j.order(seen)
		b.Logf("%s: sent %d in %d ms; let through %d, burst + rate × time is %d; %d decisions differ from the book; %d early, %d out of order",
			name, j.sent, j.last-j.first, j.got, j.want(), j.differ, j.early, j.disorder)
		total.add(j)
	}
	for _, r := range overflow {
		if r.Key[0] == 'q' {
			total.quietLate++
		}
	}
	total.report(b)
}

type noisySum struct{ sent, got, off, differ, early, disorder, quietLate float64 }

func (t *noisySum) add(j *judged) {
	t.sent += float64(j.sent)
	t.got += float64(j.got)
	t.off += float64(max(j.got-j.want(), j.want()-j.got))
	t.differ += float64(j.differ)
	t.early += float64(j.early)
	t.disorder += float64(j.disorder)
}

func (t *noisySum) report(b *testing.B) {
	b.ReportMetric(t.sent, "noisy-sent")
	b.ReportMetric(t.got, "noisy-through")
	b.ReportMetric(t.off, "noisy-error")
	b.ReportMetric(t.differ, "noisy-other-due")
	b.ReportMetric(t.early, "noisy-early")
	b.ReportMetric(t.disorder, "noisy-disorder")
	b.ReportMetric(t.quietLate, "quiet-overflowed")
	if t.off+t.differ+t.early+t.disorder+t.quietLate > 0 {
		b.Errorf("the noisy tenants did not get burst + rate × time, when due and in order, or a quiet one had to wait: %+v", *t)
	}
}

// judged is one noisy tenant, by the log of its home partition.
type judged struct {
	name        string
	first, last int64 // append times, Unix ms
	sent, got   int
	due         map[int64]int64 // by its place, when each event that gets a token is due; 0: at once
	log         map[int64]*kgo.Record

	differ, early, disorder int
}

// judge walks the bucket over the log by the book: tokens come each
// noisyPeriod, noisyLimit at most are saved, and who is behind queues.
func judge(name string, events []*kgo.Record) *judged {
	j := &judged{name: name, due: map[int64]int64{}, log: map[int64]*kgo.Record{}}
	var tat, lastDue int64 // Unix ms: the rate divides a second, so all times are whole
	behind := 0
	for _, r := range events {
		if string(r.Key) != name {
			continue
		}
		j.log[r.Offset] = r
		if header(r, schemas.HeaderReturn) != "" {
			if behind--; behind == 0 {
				lastDue = 0
			}
			continue
		}
		at := r.Timestamp.UnixMilli()
		if j.sent++; j.sent == 1 {
			j.first = at
		}
		j.last = at
		after := max(tat, at) + noisyPeriod
		wait := max(0, after-noisyLimit*noisyPeriod-at)
		switch {
		case wait > noisyBacklog.Milliseconds():
			continue // over quota
		case wait == 0 && behind == 0:
			j.due[r.Offset] = 0
		default:
			lastDue = max(at+wait, lastDue)
			j.due[r.Offset] = lastDue
			behind++
		}
		tat = after
	}
	return j
}

// want is burst + rate × time. Reservations reach max_backlog further than the
// last event.
func (j *judged) want() int {
	return noisyLimit + int((j.last-j.first+noisyBacklog.Milliseconds())/noisyPeriod)
}

// dues compares what went to overflow with the book, and when it came back.
func (j *judged) dues(overflow []*kgo.Record) {
	back := map[int64]int64{} // by its place in overflow, when it was appended again
	for _, r := range j.log {
		if ret, err := schemas.ParseReturn([]byte(header(r, schemas.HeaderReturn)), r.Key, r.Value, keyOf); err == nil {
			back[ret.Of.Offset] = r.Timestamp.UnixMilli()
		}
	}
	found := 0
	for _, r := range overflow {
		if string(r.Key) != j.name {
			continue
		}
		found++
		origin, _, _, err := schemas.ParseOriginHeader([]byte(header(r, schemas.HeaderOrigin)))
		due, bad := strconv.ParseInt(header(r, schemas.HeaderDue), 10, 64)
		if err != nil || bad != nil || j.due[origin.Offset] != due {
			j.differ++
		}
		if back[r.Offset] < due { // or never
			j.early++
		}
	}
	waiting := 0
	for _, due := range j.due {
		if due > 0 {
			waiting++
		}
	}
	j.differ += max(waiting-found, found-waiting)
}

// order counts what the reader of fanout saw: cursors must grow, and so must
// the numbers in which the events were sent.
func (j *judged) order(seen []sight) {
	lastCursor, lastNumber := "", -1
	for _, x := range seen {
		if x.tenant != j.name {
			continue
		}
		j.got++
		number := -1
		if cursor, err := schemas.ParseCursor(x.cursor); err == nil && j.log[cursor.Offset] != nil {
			number, _ = strconv.Atoi(header(j.log[cursor.Offset], schemas.HeaderID)[len(j.name)+1:])
		}
		if x.cursor <= lastCursor || number <= lastNumber {
			j.disorder++
		}
		lastCursor, lastNumber = x.cursor, number
	}
}

func keyOf(id string) ([]byte, bool) { return testSecret.Key, id == testSecret.ID }
