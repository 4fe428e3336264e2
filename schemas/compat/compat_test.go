package compat

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/twmb/avro"
)

// pair is one line of testdata/pairs.json: want holds "ok" or the path of the
// first incompatibility, by level.
type pair struct {
	Name     string
	Versions []json.RawMessage
	Next     json.RawMessage
	Want     map[Level]string
}

func readPairs(t *testing.T) []pair {
	t.Helper()
	text, err := os.ReadFile("testdata/pairs.json")
	if err != nil {
		t.Fatal(err)
	}
	var pairs []pair
	if err := json.Unmarshal(text, &pairs); err != nil {
		t.Fatal(err)
	}
	return pairs
}

func TestPublishedRules(t *testing.T) {
	pairs := readPairs(t)
	if len(pairs) != 30 {
		t.Fatalf("%d pairs, want 30", len(pairs))
	}
	compatible := 0
	for _, p := range pairs {
		if len(p.Want) != len(Levels()) {
			t.Fatalf("%s: %d levels, want %d", p.Name, len(p.Want), len(Levels()))
		}
		next := avro.MustParse(string(p.Next))
		var versions []*avro.Schema
		for _, v := range p.Versions {
			versions = append(versions, avro.MustParse(string(v)))
		}
		if p.Want[FullTransitive] == "ok" {
			compatible++
		}
		for _, level := range Levels() {
			got := "ok"
			found := Check(level, next, versions)
			if len(found) > 0 {
				got = found[0].Path
			}
			if got != p.Want[level] {
				t.Errorf("%s at %s: got %q, want %q: %v", p.Name, level, got, p.Want[level], found)
			}
			for _, f := range found {
				if f.Reason == "" || f.Version < 0 || f.Version >= len(versions) {
					t.Errorf("%s at %s: %+v says too little", p.Name, level, f)
				}
			}
		}
	}
	if compatible != 15 {
		t.Errorf("%d pairs are compatible, want half", compatible)
	}
}

func TestIncompatibilityString(t *testing.T) {
	next := avro.MustParse(`{"type":"record","name":"T","fields":[{"name":"n","type":"string"}]}`)
	old := avro.MustParse(`{"type":"record","name":"T","fields":[{"name":"n","type":"int"}]}`)
	found := Check(Full, next, []*avro.Schema{next, old})
	if len(found) != 2 {
		t.Fatalf("found %v", found)
	}
	want := "backward: n: the new schema cannot read what version 2 wrote: incompatible types (reader string, writer int)"
	if got := found[0].String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	want = "forward: n: version 2 cannot read what the new schema writes: incompatible types (reader int, writer string)"
	if got := found[1].String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestParseLevel(t *testing.T) {
	for _, l := range Levels() {
		got, err := ParseLevel(strings.ToLower(strings.ReplaceAll(string(l), "_", "-")))
		if err != nil || got != l {
			t.Errorf("%s: got %q, %v", l, got, err)
		}
	}
	if _, err := ParseLevel("SIDEWAYS"); err == nil || !strings.Contains(err.Error(), "FULL_TRANSITIVE") {
		t.Errorf("error does not list the levels: %v", err)
	}
}
