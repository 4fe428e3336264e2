// Command check counts a load run a second time, from Kafka and from
// ClickHouse, and shares no code with what it checks: neither with Spillway nor
// with `spillway load`, whose report it reads only for the run's name, start
// and claims.
//
//	go run ./integration/check --report report.json
//
// It prints one line for each comparison and exits 1 if one does not hold.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// claims are what the load run says of itself.
type claims struct {
	Run       string         `json:"run"`
	StartedAt int64          `json:"started_at"` // Unix ms
	Offered   int            `json:"offered"`
	Repeats   int            `json:"repeats_sent"`
	Malformed map[string]int `json:"malformed_sent"`
	Exact     tally          `json:"exact"`
	Star      tally          `json:"star"`
	NoisyE    tally          `json:"noisy_exact"`
	NoisyS    tally          `json:"noisy_star"`
	Noisy     struct {
		Rate, Burst float64
	} `json:"noisy_shape"`
}

type tally struct {
	Expected  int `json:"expected"`
	Delivered int `json:"delivered"`
}

// A checker compares numbers and remembers whether one was off.
type checker struct {
	claims
	clickhouse string
	prefix     string
	failed     bool

	lostReceipts int
	due          map[string]float64 // by id: when an event of the noisy tenant that waited was due, in seconds
}

func main() {
	reportFile := flag.String("report", "", "report of spillway load --json")
	brokers := flag.String("kafka", "127.0.0.1:9092", "Kafka bootstrap servers")
	clickhouse := flag.String("clickhouse", "http://127.0.0.1:8123", "ClickHouse HTTP address")
	prefix := flag.String("prefix", "spillway.", "topic prefix")
	lost := flag.Int("lost-receipts", 0, "deliveries whose receipts may be missing: a killed fan-out node takes its last second of them along")
	flag.Parse()
	c := &checker{clickhouse: *clickhouse, prefix: *prefix, lostReceipts: *lost}
	if err := c.run(*reportFile, *brokers); err != nil {
		fmt.Fprintln(os.Stderr, "check:", err)
		os.Exit(1)
	}
	if c.failed {
		os.Exit(1)
	}
}

func (c *checker) run(file, brokers string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &c.claims); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if c.Run == "" || c.Offered == 0 || c.StartedAt == 0 {
		return fmt.Errorf("%s is no report of a load run", file)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := c.kafka(ctx, strings.Split(brokers, ",")); err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	return c.tables()
}

func (c *checker) equal(what string, got, want int) {
	mark := "ok  "
	if got != want {
		mark, c.failed = "FAIL", true
	}
	fmt.Printf("%s %-58s %9d, claimed %9d\n", mark, what, got, want)
}

// some: there must be some, or the comparisons after it are about nothing.
func (c *checker) some(what string, got int) {
	mark := "ok  "
	if got == 0 {
		mark, c.failed = "FAIL", true
	}
	fmt.Printf("%s %-58s %9d, must be some\n", mark, what, got)
}

// kept is how many events never came, as the noisy tenant's subscriber says: it
// does not read what Spillway says of them.
func (c *checker) kept() int { return c.NoisyE.Expected - c.NoisyE.Delivered }

func (c *checker) malformed() int {
	n := 0
	for _, k := range c.Malformed {
		n += k
	}
	return n
}

// kafka counts the log itself: what arrived, and that nothing of it is
// undecided.
func (c *checker) kafka(ctx context.Context, brokers []string) error {
	adm, err := kadm.NewOptClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return err
	}
	defer adm.Close()
	events := c.prefix + "events"
	arrived, repeats, err := c.countEvents(ctx, adm, brokers, events)
	if err != nil {
		return err
	}
	c.equal("events: records of this run that arrived", arrived, c.Offered+c.Repeats+c.malformed())
	c.equal("events: ids that arrived twice", repeats, c.Repeats)
	if err := c.dead(ctx, adm, brokers); err != nil {
		return err
	}
	if err := c.readDue(ctx, adm, brokers); err != nil {
		return err
	}
	return c.lag(ctx, adm, brokers)
}

// read reads partitions from offsets up to ends, committed records only, and
// calls each for data records.
func read(ctx context.Context, brokers []string, from, ends map[string]map[int32]int64, each func(*kgo.Record)) error {
	starts := map[string]map[int32]kgo.Offset{}
	left := 0
	for topic, partitions := range from {
		for n, at := range partitions {
			if at >= ends[topic][n] {
				continue
			}
			if starts[topic] == nil {
				starts[topic] = map[int32]kgo.Offset{}
			}
			starts[topic][n] = kgo.NewOffset().At(at)
			left++
		}
	}
	if left == 0 {
		return nil
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumePartitions(starts), kgo.KeepControlRecords(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.BrokerMaxReadBytes(100<<20))
	if err != nil {
		return err
	}
	defer client.Close()
	for left > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			end := ends[r.Topic][r.Partition]
			if r.Offset == end-1 {
				left--
			}
			if r.Offset < end && !r.Attrs.IsControl() {
				each(r)
			}
		})
	}
	return nil
}

// since are the offsets of a topic from the run's start to now.
func (c *checker) since(ctx context.Context, adm *kadm.Client, topic string) (from, ends map[string]map[int32]int64, err error) {
	starts, err := adm.ListOffsetsAfterMilli(ctx, c.StartedAt-1000, topic)
	if err != nil {
		return nil, nil, err
	}
	last, err := adm.ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, nil, err
	}
	from, ends = map[string]map[int32]int64{topic: {}}, map[string]map[int32]int64{topic: {}}
	if err := errors.Join(starts.Error(), last.Error()); err != nil {
		return nil, nil, fmt.Errorf("offsets of %s: %w", topic, err)
	}
	starts.Each(func(o kadm.ListedOffset) { from[topic][o.Partition] = o.Offset })
	last.Each(func(o kadm.ListedOffset) { ends[topic][o.Partition] = o.Offset })
	if len(from[topic]) == 0 || len(from[topic]) != len(ends[topic]) {
		return nil, nil, fmt.Errorf("%s has %d partitions where the run began and %d where it ends", topic, len(from[topic]), len(ends[topic]))
	}
	return from, ends, nil
}

// dead counts the dead letters of the run by reason.
func (c *checker) dead(ctx context.Context, adm *kadm.Client, brokers []string) error {
	from, ends, err := c.since(ctx, adm, c.prefix+"dead")
	if err != nil {
		return err
	}
	got := map[string]int{}
	err = read(ctx, brokers, from, ends, func(r *kgo.Record) {
		if _, mine := c.mine(r); !mine {
			return
		}
		for _, h := range r.Headers {
			if h.Key == "spillway-reason" {
				got[string(h.Value)]++
			}
		}
	})
	if err != nil {
		return err
	}
	want := map[string]int{}
	for reason, n := range c.Malformed {
		want[reason] += n
	}
	if c.kept() > 0 {
		want["over_quota"] += c.kept()
	}
	for reason := range got {
		want[reason] += 0
	}
	for reason, n := range want {
		c.equal("dead: "+reason, got[reason], n)
	}
	return nil
}

// countEvents reads `events` from the run's start to its end as it is now.
func (c *checker) countEvents(ctx context.Context, adm *kadm.Client, brokers []string, topic string) (arrived, twice int, err error) {
	from, ends, err := c.since(ctx, adm, topic)
	if err != nil {
		return 0, 0, err
	}
	ids := map[string]int{}
	err = read(ctx, brokers, from, ends, func(r *kgo.Record) {
		if id, mine := c.mine(r); mine {
			arrived++
			ids[id]++
		}
	})
	for id, n := range ids {
		if n > 1 && strings.HasPrefix(id, c.Run+"-") && !strings.HasPrefix(id, c.Run+"-bad-") {
			twice += n - 1
		}
	}
	return arrived, twice, err
}

// mine tells a first arrival of this run from returns and other traffic.
func (c *checker) mine(r *kgo.Record) (id string, mine bool) {
	for _, h := range r.Headers {
		switch {
		case h.Key == "spillway-return":
			return "", false
		case h.Key == "ce_id":
			id = string(h.Value)
			mine = mine || strings.HasPrefix(id, c.Run+"-")
		case h.Key == "x-load-run" && string(h.Value) == c.Run:
			mine = true
		}
	}
	return id, mine
}

// tables counts the same in ClickHouse.
func (c *checker) tables() error {
	like := "event_id LIKE '" + c.Run + "-%' AND event_id NOT LIKE '" + c.Run + "-bad-%'"
	for _, q := range []struct {
		what, sql string
		want      int
	}{
		{"clickhouse: good events accepted", "SELECT count() FROM spillway.events FINAL WHERE " + like, c.Offered + c.Repeats},
		{"clickhouse: rows of good events, repeated rows too", "SELECT count() FROM spillway.events WHERE " + like, c.Offered + c.Repeats},
		{"clickhouse: duplicate decisions", "SELECT count() FROM spillway.transitions FINAL WHERE status = 'duplicate' AND " + like, c.Repeats},
		{"clickhouse: events let through on the fast path", "SELECT count() FROM spillway.transitions FINAL WHERE status = 'processing' AND " + like, c.Offered - c.kept()},
		{"clickhouse: events over quota", "SELECT count() FROM spillway.transitions FINAL WHERE status = 'dead' AND reason = 'over_quota' AND " + like, c.kept()},
		{"clickhouse: letters of events over quota", "SELECT count() FROM spillway.dead_letters FINAL WHERE reason = 'over_quota' AND " + like, c.kept()},
	} {
		got, err := c.number(q.sql)
		if err != nil {
			return fmt.Errorf("%s: %w", q.what, err)
		}
		c.equal(q.what, got, q.want)
	}
	if err := c.receipts(like); err != nil {
		return err
	}
	return c.noisyShape(like)
}

// receipts compares what the fan-out nodes say they wrote with what the
// subscribers say they got.
func (c *checker) receipts(like string) error {
	got, err := c.number(`SELECT sum(r.sessions) FROM (SELECT tenant, home, cursor FROM spillway.transitions FINAL WHERE status = 'processing' AND ` + like + `) AS t
 INNER JOIN (SELECT tenant, home, cursor, sessions FROM spillway.receipts FINAL) AS r USING (tenant, home, cursor)`)
	if err != nil {
		return fmt.Errorf("receipts: %w", err)
	}
	want := c.Exact.Delivered + c.Star.Delivered + c.NoisyE.Delivered + c.NoisyS.Delivered
	if missing := want - got; missing > 0 && missing <= c.lostReceipts {
		fmt.Printf("ok   clickhouse: %d of %d deliveries have receipts; the others went with a killed node\n", got, want)
		return nil
	}
	c.equal("clickhouse: deliveries by receipts", got, want)
	return nil
}

func (c *checker) number(sql string) (int, error) {
	text, err := c.query(sql + " FORMAT TSV")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(text))
}

func (c *checker) query(sql string) (string, error) {
	resp, err := http.Post(c.clickhouse, "text/plain", strings.NewReader(sql))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}
