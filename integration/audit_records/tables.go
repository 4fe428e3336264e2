package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// readTables counts the rows of each identity. A row that was inserted twice is
// folded by the tables' engine some time later: that it was can be seen until
// then.
func (f *facts) readTables(address string) error {
	const origin = "concat(toString(origin_partition), '/', toString(origin_offset), ' ', tenant"
	var err error
	read := func(table, identity string) (found rows) {
		var err2 error
		found, err2 = readRows(address, "SELECT "+origin+identity+") AS identity, count() FROM spillway."+table+" GROUP BY identity")
		err = errors.Join(err, err2)
		return found
	}
	f.rowEvents = read("events", ", ' ', event_id")
	f.rowTransitions = read("transitions", `, ' ', toString(generation), ' ', toString(attempt), ' ', toString(status), ' ',
 path, ' ', reason, ' ', replay, ' ', event_id`)
	f.rowLetters = read("dead_letters", ", ' ', reason")
	return err
}

func readRows(address, sql string) (rows, error) {
	resp, err := http.Post(address, "text/plain", strings.NewReader(sql+" FORMAT TabSeparatedRaw"))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return nil, fmt.Errorf("%s: %s: %s", sql, resp.Status, text)
	}
	found := rows{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		identity, count, _ := strings.Cut(lines.Text(), "\t")
		n, err := strconv.Atoi(count)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", lines.Text(), err)
		}
		found[row(identity)] = n
	}
	return found, lines.Err()
}

func rowsOf[T any](from []T, of func(T) row) rows {
	out := rows{}
	for _, v := range from {
		out[of(v)]++
	}
	return out
}

// sameRows: each record has a row, and no row comes twice. Two records of one
// identity are two rows until the tables' engine folds them.
func sameRows(what string, records, have rows) comparison {
	c := comparison{what: what, compared: len(records)}
	stored := 0
	for _, k := range slices.Sorted(maps.Keys(records)) {
		stored += have[k]
		if have[k] < 1 || have[k] > records[k] {
			c.failf("%s: %d rows of %d records", k, have[k], records[k])
		}
	}
	for _, k := range slices.Sorted(maps.Keys(have)) {
		if records[k] == 0 {
			c.failf("%s: %d rows, want none", k, have[k])
		}
	}
	c.note = fmt.Sprintf(" (%d rows)", stored)
	return c
}
