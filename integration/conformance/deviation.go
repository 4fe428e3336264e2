package conformance

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
)

// A Deviation is what a registry is known to answer instead of what is
// promised.
type Deviation struct {
	Line         int
	Request      string
	Status, Code int
	Reason       string
}

func (d Deviation) String() string {
	got := strconv.Itoa(d.Status)
	if d.Code != 0 {
		got += " " + strconv.Itoa(d.Code)
	}
	return fmt.Sprintf("%d %s -> %s | %s", d.Line, d.Request, got, d.Reason)
}

// Known reads the deviations of a registry from testdata/<name>.txt:
//
//	# remark
//	line METHOD path -> status error_code | reason
//
// with the line and request of the table, and status 0 for what cannot be
// asked because of an earlier one.
func Known(name string) ([]Deviation, error) {
	f, err := files.Open("testdata/" + name + ".txt")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []Deviation
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		text := lines.Text()
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		d, err := parseDeviation(text)
		if err != nil {
			return nil, fmt.Errorf("%s.txt, line %d: %w", name, n, err)
		}
		out = append(out, d)
	}
	return out, lines.Err()
}

func parseDeviation(text string) (d Deviation, err error) {
	what, reason, explained := strings.Cut(text, " | ")
	asked, got, ok := strings.Cut(what, " -> ")
	line, request, numbered := strings.Cut(asked, " ")
	if !explained || !ok || !numbered || strings.TrimSpace(reason) == "" {
		return d, fmt.Errorf("want `line METHOD path -> status code | reason`: %s", text)
	}
	status, code, _ := strings.Cut(got, " ")
	if d.Line, err = strconv.Atoi(line); err == nil {
		d.Status, err = strconv.Atoi(status)
	}
	if err == nil && code != "" {
		d.Code, err = strconv.Atoi(code)
	}
	d.Request, d.Reason = request, reason
	return d, err
}

// Compare says which findings nobody knew of, and which deviations are gone.
// Deviations of steps of the table that were not run are passed over.
func Compare(table []Step, findings []Finding, known []Deviation) (problems []string) {
	at, lines := make(map[int]Deviation, len(known)), map[int]bool{}
	for _, d := range known {
		at[d.Line] = d
	}
	for i := range table {
		lines[table[i].Line] = true
	}
	for _, d := range known {
		if !lines[d.Line] {
			problems = append(problems, fmt.Sprintf("no step is at this line: %s", d))
		}
	}
	for _, f := range findings {
		d, listed := at[f.Step.Line]
		now := Deviation{f.Step.Line, f.Step.Request(), f.Status, f.Code, f.Why}
		switch {
		case listed && d.Request != now.Request:
			problems = append(problems, fmt.Sprintf("line %d is %s: the deviation says %s", d.Line, now.Request, d.Request))
		case f.Why == "" && listed:
			problems = append(problems, fmt.Sprintf("a known deviation is gone: %s", d))
		case f.Why != "" && (!listed || d.Status != now.Status || d.Code != now.Code):
			problems = append(problems, fmt.Sprintf("%s\n\t%.500s", now, f.Got))
		}
	}
	return problems
}
