package registry

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

func within(want, got any) error {
	switch want := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return fmt.Errorf("%v is no object", got)
		}
		for k, v := range want {
			if err := within(v, g[k]); err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
		}
		return nil
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(want) {
			return fmt.Errorf("want %v, got %v", want, got)
		}
		for i := range want {
			if err := within(want[i], g[i]); err != nil {
				return fmt.Errorf("%d: %w", i, err)
			}
		}
		return nil
	}
	if !reflect.DeepEqual(want, got) {
		return fmt.Errorf("want %v, got %v", want, got)
	}
	return nil
}

type story struct {
	line               int
	method, path, body string
	status             int
	want               string
}

func readStory(t *testing.T, name string) []story {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var out []story
	let := map[string]string{}
	fill := func(s string) string {
		for name, schema := range let {
			s = strings.ReplaceAll(strings.ReplaceAll(s, "$"+name+",", schema+","), "$"+name+"}", schema+"}")
		}
		return s
	}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		word, rest, _ := strings.Cut(line, " ")
		status, err := strconv.Atoi(word)
		switch {
		case line == "" || word == "#":
		case word == "let":
			name, schema, _ := strings.Cut(rest, " = ")
			quoted, err := json.Marshal(schema)
			if err != nil {
				t.Fatal(err)
			}
			let[name] = string(quoted)
		case err == nil:
			last := &out[len(out)-1]
			last.status, last.want = status, fill(rest)
		default:
			path, body, _ := strings.Cut(rest, " ")
			out = append(out, story{line: n, method: word, path: path, body: fill(body)})
		}
	}
	return out
}

func TestConformance(t *testing.T) {
	steps := readStory(t, "testdata/conformance.txt")
	if len(steps) < 130 {
		t.Fatalf("only %d requests read", len(steps))
	}
	dir := t.TempDir()
	r := open(t, dir)
	for i, s := range steps {
		if i%10 == 9 { // a restart changes nothing
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			r = open(t, dir)
		}
		status, answer := ask(r, s.method, s.path, s.body)
		var want, got any
		if err := json.Unmarshal([]byte(s.want), &want); err != nil {
			t.Fatalf("line %d: %v in %s", s.line+1, err, s.want)
		}
		if err := json.Unmarshal([]byte(answer), &got); err != nil {
			t.Errorf("line %d: answer is no JSON: %s", s.line, answer)
		}
		if err := within(want, got); err != nil || status != s.status {
			t.Errorf("line %d: %s %s: %d, want %d; %v; %s", s.line, s.method, s.path, status, s.status, err, answer)
		}
	}
}

func TestPublishedPairs(t *testing.T) {
	text, err := os.ReadFile("../../../schemas/compat/testdata/pairs.json")
	if err != nil {
		t.Fatal(err)
	}
	var pairs []struct {
		Name     string
		Versions []json.RawMessage
		Next     json.RawMessage
		Want     map[string]string
	}
	if err := json.Unmarshal(text, &pairs); err != nil {
		t.Fatal(err)
	}
	r := open(t, t.TempDir())
	asked := 0
	for i, p := range pairs {
		for level, want := range p.Want {
			subject := fmt.Sprintf("%d.%s", i, level)
			setLevel(t, r, subject, "NONE")
			for _, v := range p.Versions {
				register(t, r, subject, string(v))
			}
			setLevel(t, r, subject, level)
			body, err := json.Marshal(map[string]string{"schema": string(p.Next)})
			if err != nil {
				t.Fatal(err)
			}
			status, answer := ask(r, "POST", "/subjects/"+subject+"/versions", string(body))
			if ok := want == "ok"; ok != (status == 200) || !ok && (status != 409 || !strings.Contains(answer, ": "+want+": ")) {
				t.Errorf("%s at %s: %d %s, want %s", p.Name, level, status, answer, want)
			}
			asked++
		}
	}
	if asked != 30*7 {
		t.Errorf("asked %d times, want 210", asked)
	}
}

func setLevel(t testing.TB, r http.Handler, subject, level string) {
	t.Helper()
	if status, answer := ask(r, "PUT", "/config/"+subject, `{"compatibility":"`+level+`"}`); status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
}
