package main

import (
	"context"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// readDue reads from overflow when each waiting event of the noisy tenant was
// due.
func (c *checker) readDue(ctx context.Context, adm *kadm.Client, brokers []string) error {
	c.due = map[string]float64{}
	from, ends, err := c.since(ctx, adm, c.prefix+"overflow")
	if err != nil {
		return err
	}
	bad := 0
	err = read(ctx, brokers, from, ends, func(r *kgo.Record) {
		if string(r.Key) != "noisy" {
			return
		}
		var id, due string
		for _, h := range r.Headers {
			switch h.Key {
			case "ce_id":
				id = string(h.Value)
			case "spillway-due":
				due = string(h.Value)
			}
		}
		if !strings.HasPrefix(id, c.Run+"-") {
			return
		}
		ms, err := strconv.ParseFloat(due, 64)
		if err != nil {
			bad++
			return
		}
		c.due[id] = ms / 1000
	})
	c.equal("overflow: records without a due time", bad, 0)
	if c.Noisy.Rate > 0 {
		c.some("overflow: events of the noisy tenant that waited", len(c.due))
	}
	return err
}

// noisyShape checks burst + rate × time for the noisy tenant on the log's own
// clock, at every event: none was let through earlier, and none was given a
// later due time, by more than one event.
func (c *checker) noisyShape(like string) error {
	if c.Noisy.Rate == 0 {
		fmt.Println("none noisy: burst + rate × time was not looked at, for the run had no noisy tenant")
		c.equal("noisy: events offered without a rate", c.NoisyE.Expected, 0)
		return nil
	}
	text, err := c.query("SELECT event_id, toUnixTimestamp64Milli(at), toUnixTimestamp64Milli(accepted_at) FROM spillway.transitions FINAL WHERE tenant = 'noisy' AND status = 'processing' AND " + like + " FORMAT TSV")
	if err != nil {
		return err
	}
	var at, accepted, due []float64
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		var id string
		var through, came float64
		if _, err := fmt.Sscan(line, &id, &through, &came); err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		at, accepted = append(at, through/1000), append(accepted, came/1000)
		if d, waited := c.due[id]; waited {
			due = append(due, d)
		} else {
			due = append(due, through/1000)
		}
	}
	sort.Float64s(at)
	sort.Float64s(accepted)
	sort.Float64s(due)
	c.equal("noisy: let through", len(at), c.NoisyE.Delivered)
	over := 0
	for k := range at {
		if float64(k+1) > c.allowed(at[k]-at[0])+1 {
			over++
		}
	}
	c.equal("noisy: let through above burst + rate × time + 1", over, 0)
	c.equal("noisy: due later than burst + rate × time - 1", c.late(accepted, due), 0)
	return nil
}

// late counts the events that were due later than by their place in the bucket,
// by more than one. Both are sorted, in seconds.
//
// Offered at three times the rate: once the burst is used up the bucket is
// empty, and each event's place in it is its due time. Until then the bucket
// may be full, and what it cannot hold nobody gets.
func (c *checker) late(accepted, due []float64) (late int) {
	held, spilt, last := c.Noisy.Burst, 0.0, accepted[0]
	for k := range due {
		held += c.Noisy.Rate * (accepted[k] - last)
		last = accepted[k]
		if held > c.Noisy.Burst {
			spilt += held - c.Noisy.Burst
			held = c.Noisy.Burst
		}
		held--
		if float64(k) > 1.5*c.Noisy.Burst && float64(k+1) < math.Floor(c.allowed(due[k]-due[0])-spilt)-1 {
			late++
		}
	}
	return late
}

// allowed is burst + rate × time.
func (c *checker) allowed(seconds float64) float64 { return c.Noisy.Burst + c.Noisy.Rate*seconds }
