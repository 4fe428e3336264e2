package registry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/spillway/spillway/integration/conformance"
)

// restarting closes and opens the registry again before every tenth request: a
// restart changes nothing.
func restarting(t *testing.T) conformance.Asker {
	dir := t.TempDir()
	r := open(t, dir)
	asked := 0
	return func(method, path, body string) (int, string, error) {
		if asked++; asked%10 == 0 {
			if err := r.Close(); err != nil {
				return 0, "", err
			}
			r = open(t, dir)
		}
		status, answer := ask(r, method, path, body)
		return status, answer, nil
	}
}

// TestConformance: the public API, but for what testdata/embedded.txt of
// package conformance gives a reason for.
func TestConformance(t *testing.T) {
	table, err := conformance.Registry()
	if err != nil {
		t.Fatal(err)
	}
	known, err := conformance.Known("embedded")
	if err != nil {
		t.Fatal(err)
	}
	play(t, table, known, 150)
}

// TestOwn: what this registry does where the public API leaves it open, or
// says more.
func TestOwn(t *testing.T) {
	f, err := os.Open("testdata/own.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := conformance.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	play(t, table, nil, 40)
}

func play(t *testing.T, table []conformance.Step, known []conformance.Deviation, least int) {
	t.Helper()
	if len(table) < least {
		t.Fatalf("only %d requests read", len(table))
	}
	findings, err := conformance.Run(restarting(t), table, "unit")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range conformance.Compare(table, findings, known) {
		t.Error(p)
	}
}

// TestPublishedPairs runs the table of schema pairs and levels that the
// compatibility rules are tested with, through the API.
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
