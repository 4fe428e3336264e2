package desk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spillway/spillway/schemas/registry"
)

const first = `{"type":"record","name":"shop.Order","fields":[{"name":"id","type":"string"}]}`

// files writes schemas and returns where.
func files(t *testing.T, texts ...string) (names []string) {
	t.Helper()
	dir := t.TempDir()
	for i, text := range texts {
		name := filepath.Join(dir, string(rune('a'+i))+".avsc")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

func TestCheckAgainstFiles(t *testing.T) {
	var out strings.Builder
	d := Desk{Out: &out, Open: func(context.Context) (*registry.Client, error) { return nil, errors.New("no registry is needed") }}
	grown := `{"type":"record","name":"shop.Order","fields":[{"name":"id","type":"string"},{"name":"note","type":"string","default":""}]}`
	required := `{"type":"record","name":"shop.Order","fields":[{"name":"id","type":"string"},{"name":"total","type":"double"}]}`
	f := files(t, first, grown, required)
	if err := d.Check(t.Context(), Question{File: f[1], Against: f[:1]}); err != nil || out.String() != "compatible\n" {
		t.Errorf("a field with a default: %v, %s", err, out.String())
	}
	out.Reset()
	if err := d.Check(t.Context(), Question{File: f[2], Against: f[:1]}); err == nil || !strings.Contains(out.String(), "total") {
		t.Errorf("a required field: %v, %s", err, out.String())
	}
	if err := d.Check(t.Context(), Question{File: f[2], Against: f[:1], Level: "forward"}); err != nil {
		t.Errorf("a required field may follow when old readers read new data: %v", err)
	}
	for name, q := range map[string]Question{
		"no such level": {File: f[0], Against: f[:1], Level: "sideways"}, "no such file": {File: f[0] + "x"}, "no such version": {File: f[0], Against: []string{f[0] + "x"}},
		"the registry": {File: f[0]},
	} {
		if err := d.Check(t.Context(), q); err == nil {
			t.Errorf("%s is no error", name)
		}
	}
}

func TestInfer(t *testing.T) {
	var out strings.Builder
	if err := (Desk{Out: &out}).Infer(t.Context(), "shop.Order", strings.NewReader(`{"id":"1"}`), false); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), `"id"`) || !strings.Contains(out.String(), "Order") {
		t.Error(out.String())
	}
}
