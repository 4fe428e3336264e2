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
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
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
	Verdict struct {
		Duplicates int `json:"duplicates"`
		OverQuota  int `json:"over_quota"`
	} `json:"verdict"`
}

type tally struct {
	Delivered int `json:"delivered"`
}

// A checker compares numbers and remembers whether one was off.
type checker struct {
	claims
	clickhouse string
	prefix     string
	failed     bool
}

func main() {
	reportFile := flag.String("report", "", "report of spillway load --json")
	brokers := flag.String("kafka", "127.0.0.1:9092", "Kafka bootstrap servers")
	clickhouse := flag.String("clickhouse", "http://127.0.0.1:8123", "ClickHouse HTTP address")
	prefix := flag.String("prefix", "spillway.", "topic prefix")
	flag.Parse()
	c := &checker{clickhouse: *clickhouse, prefix: *prefix}
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
	if err := json.Unmarshal(text[strings.IndexByte(string(text), '{'):], &c.claims); err != nil {
		return err
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
	for _, group := range []string{"route", "audit.events", "audit", "delay"} {
		lags, err := adm.Lag(ctx, c.prefix+group)
		if err != nil {
			return err
		}
		lag := int64(0)
		lags.Each(func(l kadm.DescribedGroupLag) { lag += max(0, committedLag(l, c.prefix)) })
		c.equal("group "+group+": records between committed and end offset", int(lag), 0)
	}
	return nil
}

// committedLag leaves out topics that are written in transactions: their last
// offset is a marker, which no consumer commits past.
func committedLag(l kadm.DescribedGroupLag, prefix string) int64 {
	var n int64
	for topic, partitions := range l.Lag {
		for _, p := range partitions {
			lag := p.Lag
			if topic != prefix+"events" && lag == 1 {
				lag = 0
			}
			n += lag
		}
	}
	return n
}

// countEvents reads `events` from the run's start to its end as it is now.
func (c *checker) countEvents(ctx context.Context, adm *kadm.Client, brokers []string, topic string) (arrived, twice int, err error) {
	starts, err := adm.ListOffsetsAfterMilli(ctx, c.StartedAt-1000, topic)
	if err != nil {
		return 0, 0, err
	}
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, 0, err
	}
	from := map[int32]kgo.Offset{}
	left := map[int32]int64{}
	starts.Each(func(o kadm.ListedOffset) {
		end, _ := ends.Lookup(topic, o.Partition)
		if o.Offset >= 0 && o.Offset < end.Offset {
			from[o.Partition] = kgo.NewOffset().At(o.Offset)
			left[o.Partition] = end.Offset
		}
	})
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	if err != nil {
		return 0, 0, err
	}
	defer client.Close()
	ids := map[string]int{}
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return 0, 0, err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset >= left[r.Partition]-1 {
				delete(left, r.Partition)
			}
			if id, mine := c.mine(r); mine {
				arrived++
				ids[id]++
			}
		})
	}
	for id, n := range ids {
		if n > 1 && strings.HasPrefix(id, c.Run+"-") && !strings.HasPrefix(id, c.Run+"-bad-") {
			twice += n - 1
		}
	}
	return arrived, twice, nil
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
		{"clickhouse: duplicate decisions", "SELECT count() FROM spillway.transitions FINAL WHERE status = 'duplicate' AND " + like, c.Repeats},
		{"clickhouse: events let through on the fast path", "SELECT count() FROM spillway.transitions FINAL WHERE status = 'processing' AND " + like, c.Offered - c.Verdict.OverQuota},
		{"clickhouse: events over quota", "SELECT count() FROM spillway.transitions FINAL WHERE status = 'dead' AND reason = 'over_quota' AND " + like, c.Verdict.OverQuota},
		{"clickhouse: deliveries by receipts", `SELECT sum(r.sessions) FROM (SELECT tenant, home, cursor FROM spillway.transitions FINAL WHERE status = 'processing' AND ` + like + `) AS t
 INNER JOIN (SELECT tenant, home, cursor, sessions FROM spillway.receipts FINAL) AS r USING (tenant, home, cursor)`,
			c.Exact.Delivered + c.Star.Delivered + c.NoisyE.Delivered + c.NoisyS.Delivered},
	} {
		got, err := c.number(q.sql)
		if err != nil {
			return fmt.Errorf("%s: %w", q.what, err)
		}
		c.equal(q.what, got, q.want)
	}
	return c.noisyShape(like)
}

// noisyShape checks burst + rate × time for the noisy tenant on the log's own
// clock, at every event that was let through.
func (c *checker) noisyShape(like string) error {
	if c.Noisy.Rate == 0 {
		return nil
	}
	text, err := c.query("SELECT toUnixTimestamp64Milli(at) FROM spillway.transitions FINAL WHERE tenant = 'noisy' AND status = 'processing' AND " + like + " ORDER BY at FORMAT TSV")
	if err != nil {
		return err
	}
	var at []float64
	for _, line := range strings.Fields(text) {
		ms, err := strconv.ParseFloat(line, 64)
		if err != nil {
			return err
		}
		at = append(at, ms/1000)
	}
	sort.Float64s(at)
	over := 0
	for k := range at {
		if float64(k+1) > c.Noisy.Burst+c.Noisy.Rate*(at[k]-at[0])+1 {
			over++
		}
	}
	c.equal("noisy: let through above burst + rate × time + 1, log's clock", over, 0)
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
