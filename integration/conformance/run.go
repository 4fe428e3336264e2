package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// An Asker sends one request. The path is escaped as it goes on the wire. An
// error means that there was no answer.
type Asker func(method, path, body string) (status int, answer string, err error)

// Over asks a registry over HTTP. base may end with a path.
func Over(client *http.Client, base string) Asker {
	return func(method, path, body string) (int, string, error) {
		req, err := http.NewRequest(method, strings.TrimSuffix(base, "/")+path, strings.NewReader(body))
		if err != nil {
			return 0, "", err
		}
		req.Header.Set("Content-Type", "application/vnd.schemaregistry.v1+json")
		req.Header.Set("Accept", "application/vnd.schemaregistry.v1+json, application/json")
		resp, err := client.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
		return resp.StatusCode, string(answer), err
	}
}

// A Finding is how a registry answered a step.
type Finding struct {
	Step   *Step
	Status int    // 0: not asked, for a value from an earlier answer is missing
	Code   int    // error_code, 0 if there is none
	Got    string // the answer
	Why    string // it is not what was promised; "" if it is
}

// Run asks all steps in order. run makes the names of subjects and records,
// [a-z0-9]+, different from those of other runs, which makes a fresh registry
// needless. The error is the first request that had no answer.
func Run(ask Asker, steps []Step, run string) ([]Finding, error) {
	v := values{run: run}
	findings := make([]Finding, len(steps))
	for i := range steps {
		s := &steps[i]
		v.enter(s.Section)
		f := &findings[i]
		f.Step = s
		path, body, err := v.request(s)
		if err != nil {
			f.Why = err.Error()
			continue
		}
		if f.Status, f.Got, err = ask(s.Method, path, body); err != nil {
			return nil, fmt.Errorf("line %d: %s %s: %w", s.Line, s.Method, path, err)
		}
		f.Code = code(f.Got)
		f.Why = v.judge(s, f.Status, f.Got)
	}
	return findings, nil
}

func code(answer string) int {
	var e struct {
		Code int `json:"error_code"`
	}
	_ = json.Unmarshal([]byte(answer), &e) // no object: it has no code
	return e.Code
}

// values are what the names of a section stand for.
type values struct {
	run     string
	section int
	bound   map[string]any
}

func (v *values) enter(section int) {
	if section == v.section && v.bound != nil {
		return
	}
	v.section = section
	h := fnv.New32a()
	_, _ = io.WriteString(h, v.run) // never fails
	// An id that nobody has: those that registries give begin at 1, and go on
	// after the greatest.
	v.bound = map[string]any{"free": json.Number(strconv.Itoa(100_000 + int(h.Sum32()%1_000_000_000)))}
}

var (
	word     = regexp.MustCompile(`@@|@[a-z]*`)
	variable = regexp.MustCompile(`\$[a-z][a-z0-9]*`)
)

// own replaces the names of this run and section.
func (v *values) own(text string) string {
	return word.ReplaceAllStringFunc(text, func(w string) string {
		if w == "@@" {
			return fmt.Sprintf("r%ss%d", v.run, v.section)
		}
		return fmt.Sprintf("%s.%d.%s", v.run, v.section, w[1:])
	})
}

func (v *values) request(s *Step) (path, body string, err error) {
	fill := func(text string) string {
		return variable.ReplaceAllStringFunc(v.own(text), func(w string) string {
			value, ok := v.bound[w[1:]]
			if !ok {
				err = fmt.Errorf("not asked: nothing gave %s", w)
			}
			return fmt.Sprint(value)
		})
	}
	return fill(s.Path), fill(s.Body), err
}

// mark stands for a variable in the JSON of an answer.
const mark = "\uFDD0"

// judge says what of the promised answers is not in the given one.
func (v *values) judge(s *Step, status int, text string) string {
	var got any
	if err := decode(text, &got); err != nil {
		return "the answer is no JSON"
	}
	var errs []error
	for _, a := range s.answers {
		if a.status != status {
			errs = append(errs, fmt.Errorf("want %d", a.status))
			continue
		}
		var want any
		marked := variable.ReplaceAllStringFunc(v.own(a.want), func(w string) string { return `"` + mark + w[1:] + `"` })
		if err := decode(marked, &want); err != nil {
			return fmt.Sprintf("the table's answer is no JSON: %s: %v", a.want, err)
		}
		err := v.within(want, got)
		if err == nil {
			return ""
		}
		errs = append(errs, err)
	}
	return strings.ReplaceAll(errors.Join(errs...).Error(), "\n", "; ")
}

func decode(text string, v any) error {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows")
	}
	return nil
}
