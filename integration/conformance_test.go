//go:build integration

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spillway/spillway/integration/conformance"
)

// A registry that is not part of a stack, and a ClickHouse: somebody's own.
const (
	givenRegistry   = "SPILLWAY_TEST_REGISTRY_URL"
	givenClickHouse = "SPILLWAY_TEST_CLICKHOUSE_URL"
)

// TestRegistryConformance asks the registry of each stack, and one that the
// environment names, whether it keeps to the public API, but for the
// deviations that are written down with their reasons; and whether Spillway
// finds there what it needs.
func TestRegistryConformance(t *testing.T) {
	onEach(t, func(t *testing.T, s *site) {
		name := "embedded"
		if strings.Contains(s.at().Registry, "/apis/ccompat/") {
			name = "apicurio"
		}
		t.Run("api", func(t *testing.T) { askRegistry(t, s.at().Registry, name, true) })
		t.Run("levels", func(t *testing.T) { askLevels(t, s.at().Registry) })
		t.Run("client", func(t *testing.T) { realRegistry(t, s.at().Registry) })
		t.Run("commands", func(t *testing.T) { registryCommands(t, s, s.at().Registry) })
	})
	t.Run("given", func(t *testing.T) {
		address := os.Getenv(givenRegistry)
		if address == "" {
			skip(t, "no "+givenRegistry)
		}
		name := ""
		if strings.Contains(address, "/apis/ccompat/") {
			name = "apicurio"
		}
		t.Run("api", func(t *testing.T) { askRegistry(t, address, name, false) })
		t.Run("levels", func(t *testing.T) { askLevels(t, address) })
		t.Run("client", func(t *testing.T) { realRegistry(t, address) })
		s := &site{kind: "given", bin: builtBinary(t), data: t.TempDir()}
		t.Run("commands", func(t *testing.T) { registryCommands(t, s, address) })
	})
}

// askRegistry runs the table against a registry. Settings of all subjects are
// changed only where they are nobody's.
func askRegistry(t *testing.T, address, deviations string, whole bool) {
	table, err := conformance.Registry()
	if err != nil {
		t.Fatal(err)
	}
	steps := make([]conformance.Step, 0, len(table))
	for _, s := range table {
		if whole || !s.Global {
			steps = append(steps, s)
		}
	}
	var known []conformance.Deviation
	if deviations != "" {
		if known, err = conformance.Known(deviations); err != nil {
			t.Fatal(err)
		}
	}
	run := fmt.Sprintf("t%d", time.Now().UnixMilli())
	ask := conformance.Over(&http.Client{Timeout: 30 * time.Second}, address)
	t.Cleanup(func() { forget(t, ask, run+".") })
	findings, err := conformance.Run(ask, steps, run)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range conformance.Compare(table, findings, known) {
		t.Error(p)
	}
	odd := 0
	for _, f := range findings {
		if f.Why != "" {
			odd++
		}
	}
	t.Logf("asked %d of %d requests: %d as the public API says, %d otherwise; deviations known of %q: %d",
		len(findings), len(table), len(findings)-odd, odd, deviations, len(known))
	if !whole {
		t.Log("skipped: what changes settings of all subjects, for this registry is somebody's own")
	}
}

// forget deletes the subjects of a run, for every role that starts later asks
// for all schemas.
func forget(t *testing.T, ask conformance.Asker, run string) {
	left := 0
	for range 3 { // what is referred to goes after what refers to it
		status, text, err := ask("GET", "/subjects", "")
		var subjects []string
		if err := errors.Join(err, json.Unmarshal([]byte(text), &subjects)); err != nil {
			t.Errorf("list subjects: %d %v", status, err)
			return
		}
		left = 0
		for _, s := range subjects {
			if !strings.Contains(s, run) {
				continue
			}
			left++
			for _, how := range []string{"", "?permanent=true"} {
				if _, _, err := ask("DELETE", "/subjects/"+url.PathEscape(s)+how, ""); err != nil {
					t.Error(err)
				}
			}
		}
		if left == 0 {
			return
		}
	}
	t.Logf("%d subjects of %s stay: this registry holds what was ever referred to", left, run)
}

// askLevels registers each pair of schemas that Spillway's own rules are tested
// with, at each level: the registry must say as they do.
func askLevels(t *testing.T, address string) {
	text, err := os.ReadFile("../schemas/compat/testdata/pairs.json")
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
	ask := conformance.Over(&http.Client{Timeout: 30 * time.Second}, address)
	asked, run := 0, fmt.Sprintf("pair%d.", time.Now().UnixMilli())
	t.Cleanup(func() { forget(t, ask, run) })
	send := func(method, path string, body any) (int, string) {
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		status, answer, err := ask(method, path, string(text))
		if err != nil {
			t.Fatal(err)
		}
		return status, answer
	}
	for i, p := range pairs {
		for level, want := range p.Want {
			subject := fmt.Sprintf("%s%d.%s", run, i, level)
			versions := "/subjects/" + subject + "/versions"
			for k, v := range p.Versions {
				if k == 1 { // one may not be able to follow the other
					send("PUT", "/config/"+subject, map[string]string{"compatibility": "NONE"})
				}
				if status, answer := send("POST", versions, map[string]string{"schema": string(v)}); status != 200 {
					t.Fatalf("%s: %d %s", p.Name, status, answer)
				}
			}
			send("PUT", "/config/"+subject, map[string]string{"compatibility": level})
			status, answer := send("POST", versions, map[string]string{"schema": string(p.Next)})
			if good := want == "ok"; good && status != 200 || !good && status != 409 {
				t.Errorf("%s at %s: %d %s, want %s", p.Name, level, status, answer, want)
			}
			asked++
		}
	}
	t.Logf("%d registrations are taken or refused as Spillway's own rules say", asked)
	if asked < 210 {
		t.Errorf("only %d pairs were read", asked)
	}
}

// realRegistry runs the client's own tests against a real registry.
func realRegistry(t *testing.T, address string) {
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-v", "-run", "^TestReal$", "../schemas/registry")
	cmd.Env = append(os.Environ(), givenRegistry+"="+address)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestReal") {
		t.Errorf("%v\n%s", err, out)
	}
}

// registryCommands registers, checks, lists and uses schemas as a person does.
func registryCommands(t *testing.T, s *site, address string) {
	dir := t.TempDir()
	name := fmt.Sprintf("conformance.T%d", time.Now().UnixMilli())
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	record := func(fields string) string {
		return fmt.Sprintf(`{"type":"record","name":%q,"fields":[{"name":"text","type":"string"}%s]}`, name, fields)
	}
	first := file("first.avsc", record(""))
	spaced := file("spaced.avsc", strings.ReplaceAll(record(""), ",", ",\n  "))
	second := file("second.avsc", record(`,{"name":"n","type":["null","int"],"default":null}`))
	bad := file("bad.avsc", record(`,{"name":"user","type":"string"}`))
	at := "--registry-url=" + address
	one := s.run(t, "", "schemas", "register", at, first)
	again := s.run(t, "", "schemas", "register", at, first)
	if one != again || s.run(t, "", "schemas", "register", at, spaced) != one {
		t.Errorf("registering the same again says\n%s, first it was\n%s", again, one)
	}
	if out, err := s.try(t.Context(), "", "schemas", "check", at, bad); err == nil || !strings.Contains(out, "user") {
		t.Errorf("check of a required field: %v\n%s", err, out)
	}
	if out, err := s.try(t.Context(), "", "schemas", "register", at, bad); err == nil || !strings.Contains(out, "FULL_TRANSITIVE") {
		t.Errorf("registering a required field: %v\n%s", err, out)
	}
	s.run(t, "", "schemas", "check", at, second)
	if two := s.run(t, "", "schemas", "register", at, second); two == one {
		t.Errorf("the second version is the first: %s", two)
	}
	if list := s.run(t, "", "schemas", "list", at); !strings.Contains(list, name) {
		t.Errorf("%s is not in the list:\n%s", name, list)
	}
	json := file("event.json", `{"text":"hi","n":null}`)
	if wire := s.run(t, "", "schemas", "encode", at, name, json); len(wire) < 6 || wire[0] != 0 {
		t.Errorf("encode gives %q", wire)
	}
	s.run(t, "", "schemas", "register", at, "--subject", name+"-none", "--level", "NONE", first)
	s.run(t, "", "schemas", "register", at, "--subject", name+"-none", bad)
}
