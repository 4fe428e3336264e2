package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// readTables reads the identity of each row. A row that was inserted twice is
// one: the tables' engine folds them.
func (f *facts) readTables(address string) error {
	const origin = "concat(toString(origin_partition), '/', toString(origin_offset), ' ', tenant"
	return errors.Join(
		readRows(address, "SELECT DISTINCT "+origin+", ' ', event_id) FROM spillway.events", &f.rowEvents),
		readRows(address, "SELECT DISTINCT "+origin+`, ' ', toString(generation), ' ', toString(attempt), ' ', toString(status), ' ',
 path, ' ', reason, ' ', replay, ' ', event_id) FROM spillway.transitions`, &f.rowTransitions),
		readRows(address, "SELECT DISTINCT "+origin+", ' ', reason) FROM spillway.dead_letters", &f.rowLetters))
}

func readRows(address, sql string, into *[]row) error {
	resp, err := http.Post(address, "text/plain", strings.NewReader(sql+" FORMAT TabSeparatedRaw"))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("%s: %s: %s", sql, resp.Status, text)
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		*into = append(*into, row(lines.Text()))
	}
	return lines.Err()
}
