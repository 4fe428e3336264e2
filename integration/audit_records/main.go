// Command audit_records compares what happened to every record of a deployment,
// record by record, and shares no code with Spillway:
//
//	ledger of a sender ─▶ events ─▶ decisions in audit ─▶ fanout.<region>, dead
//	                         └─────────────┴───── ClickHouse ──────────┘
//
//	go run ./integration/audit_records --kafka ADDRESS --clickhouse URL --ledger FILE
//
// Every topic is read to its end, committed records only. It need not know which
// role died when: no death excuses a record that is missing, repeated or late;
// late is only what waited for its schema or tenant.
//
// It prints a line for each comparison, the first records that are wrong, and
// exits 1 if there are any. With --every it does so too where there was nothing
// to compare: for a run in which events waited and died.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// An ack is what the sender was promised: the event is in `events`.
type ack struct {
	Tenant    string `json:"tenant"`
	ID        string `json:"id"`
	Via       string `json:"via"` // http, kafka
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"` // -1: Kafka did not say where
}

func main() {
	brokers := flag.String("kafka", "127.0.0.1:9092", "Kafka bootstrap servers")
	clickhouse := flag.String("clickhouse", "http://127.0.0.1:8123", "ClickHouse HTTP address")
	prefix := flag.String("prefix", "spillway.", "topic prefix")
	region := flag.String("regions", "local", "regions of every tenant")
	ledger := flag.String("ledger", "", "what was acknowledged: one JSON object a line with tenant, id, via, partition, offset")
	every := flag.Bool("every", false, "there must be something to compare for each question: events that were let through, waited and died")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	f := &facts{regions: strings.Split(*region, ","), every: *every}
	err := errors.Join(
		readLines(*ledger, &f.acks),
		f.readKafka(ctx, strings.Split(*brokers, ","), *prefix), f.readTables(*clickhouse))
	if err == nil && *ledger != "" && len(f.acks) == 0 {
		err = fmt.Errorf("%s is empty: nothing was acknowledged", *ledger)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "audit_records:", err)
		os.Exit(1)
	}
	if wrong := report(os.Stdout, f.compare()); wrong > 0 {
		os.Exit(1)
	}
}

func readLines[T any](file string, into *[]T) error {
	if file == "" {
		return nil
	}
	r, err := os.Open(file)
	if err != nil {
		return err
	}
	defer r.Close()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var v T
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		*into = append(*into, v)
	}
	return lines.Err()
}

// shown is how many wrong records of a comparison are printed.
const shown = 5

// report prints the comparisons and returns how many records are wrong.
func report(w io.Writer, all []comparison) (wrong int) {
	for _, c := range all {
		mark := "ok  "
		switch {
		case len(c.wrong) > 0:
			mark = "FAIL"
		case c.compared == 0:
			mark = "none"
		}
		fmt.Fprintf(w, "%s %-62s %8d compared, %d wrong%s\n", mark, c.what, c.compared, len(c.wrong), c.note)
		for _, line := range c.wrong[:min(shown, len(c.wrong))] {
			fmt.Fprintf(w, "       %s\n", line)
		}
		wrong += len(c.wrong)
	}
	return wrong
}
