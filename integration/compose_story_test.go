//go:build integration

package integration

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
)

// TestCompose is what docker-compose.yml promises beyond the stories that run
// on every stack. How it ends (SIGTERM order, exit statuses) is looked at when
// it is stopped: composeStack.Stop.
func TestCompose(t *testing.T) {
	on(t, "compose")
	s := shared(t, "compose")
	c := s.stack.(*composeStack)
	for _, why := range c.skipped {
		t.Log("not run: ", why)
	}
	if c.ready > 2*time.Minute {
		t.Errorf("healthy after %s, want 2 min at most", c.ready)
	}
	t.Logf("healthy after %s", c.ready.Round(time.Second))
	t.Run("config", func(t *testing.T) { testComposeConfig(t, c) })
	t.Run("regions", func(t *testing.T) { testComposeRegions(t, s, c) })
	t.Run("locked", func(t *testing.T) { testComposeLocked(t, c) })
	t.Run("cli", func(t *testing.T) { testComposeCLI(t, c) })
	t.Run("restarts", func(t *testing.T) { testComposeRestarts(t, s) })
	t.Run("prometheus", func(t *testing.T) { testComposePrometheus(t, c) })
	t.Run("dashboards", func(t *testing.T) { testComposeDashboards(t, s, c) })
}

// testComposeConfig: the file is valid for each program that is installed, as
// it is in the repository and without anything of ours.
func testComposeConfig(t *testing.T, c *composeStack) {
	for _, command := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		if exec.Command(command[0], append(command[1:], "version")...).Run() != nil {
			t.Logf("%s is not installed", strings.Join(command, " "))
			continue
		}
		cmd := exec.CommandContext(t.Context(), command[0], append(command[1:], "-f", "../docker-compose.yml", "config", "-q")...)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
		}
	}
}

// testComposeRegions: an event without a region reaches a socket at every node
// of both, and its story names both.
func testComposeRegions(t *testing.T, s *site, c *composeStack) {
	s.clickhouseReady(t)
	id := fmt.Sprintf("regions-%d", time.Now().UnixNano())
	s.run(t, "", "pub", "acme", "regions.1", `{"text":"`+id+`"}`, "--id", id)
	for _, node := range []string{"fanout-eu-1", "fanout-eu-2", "fanout-us-1", "fanout-us-2"} {
		out := s.run(t, "", "sub", "acme", "regions.1", "--from", "begin", "--count", "1", "--timeout", "20s", "--output", "json", "--fanout-url", "ws://"+c.published(t, node))
		if !strings.Contains(out, id) {
			t.Errorf("%s delivered something else:\n%s", node, out)
		}
	}
	story := ""
	eventually(t, "the story of both regions", func() bool {
		story = s.run(t, "", "explain", id)
		return strings.Contains(story, "eu") && strings.Contains(story, "us")
	}, func() string { return story })
	if !strings.Contains(story, "regions.1") || !strings.Contains(story, "route-1") {
		t.Errorf("explain names neither channel nor router:\n%s", story)
	}
}

// published is where this machine reaches a service.
func (s *composeStack) published(t *testing.T, service string) string {
	t.Helper()
	all, err := s.containers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, bindings := range all[service].NetworkSettings.Ports {
		for _, b := range bindings {
			return b.HostIP.String() + ":" + b.HostPort
		}
	}
	t.Fatalf("%s publishes no port", service)
	return ""
}

// testComposeLocked: the product's containers can write nowhere, gain nothing,
// and nothing is open to other machines.
func testComposeLocked(t *testing.T, c *composeStack) {
	all, err := c.containers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range composeParts {
		box, there := all[p.service]
		if !there {
			continue
		}
		for port, bindings := range box.NetworkSettings.Ports {
			for _, b := range bindings {
				if !b.HostIP.IsLoopback() {
					t.Errorf("%s publishes %s on %s", p.service, port, b.HostIP)
				}
			}
		}
		if p.image != "SPILLWAY_IMAGE" {
			continue
		}
		h := box.HostConfig
		if !h.ReadonlyRootfs || !slices.Contains(h.CapDrop, "ALL") || !slices.Contains(h.SecurityOpt, "no-new-privileges:true") || box.Config.User != "65532:65532" {
			t.Errorf("%s: read-only %t, drops %v, options %v, user %q", p.service, h.ReadonlyRootfs, h.CapDrop, h.SecurityOpt, box.Config.User)
		}
		if err := c.write(t.Context(), box.ID); err == nil || !strings.Contains(err.Error(), "read-only") {
			t.Errorf("a file could be written into %s: %v", p.service, err)
		}
	}
}

// write puts a file into a container's root.
func (s *composeStack) write(ctx context.Context, id string) error {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "written", Mode: 0o600, Size: 1}); err != nil {
		return err
	}
	if _, err := w.Write([]byte{'x'}); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_, err := s.engine.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/", Content: &archive})
	return err
}

// testComposeCLI: a person needs no binary of their own.
func testComposeCLI(t *testing.T, c *composeStack) {
	cli := func(args ...string) string {
		out, err := c.compose(t.Context(), append([]string{"run", "--rm", "--no-deps", "-T", "cli"}, args...)...)
		if err != nil {
			t.Fatalf("cli %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	id := fmt.Sprintf("cli-%d", time.Now().UnixNano())
	cli("pub", "acme", "cli.1", `{"text":"`+id+`"}`, "--id", id)
	if out := cli("sub", "acme", "cli.1", "--from", "begin", "--count", "1", "--timeout", "20s"); !strings.Contains(out, id) {
		t.Errorf("the event is not there:\n%s", out)
	}
	if out := cli("get", "tenants"); !strings.Contains(out, "acme") {
		t.Errorf("get tenants does not name acme:\n%s", out)
	}
	if out := cli("setup", "--check"); strings.Contains(out, "differs") {
		t.Errorf("setup --check:\n%s", out)
	}
}

// testComposeRestarts: what a part keeps is in its volume or in Kafka, so that
// events go through again after each has been killed.
func testComposeRestarts(t *testing.T, s *site) {
	schemas := s.run(t, "", "schemas", "list")
	for _, part := range []string{"route", "registry", "clickhouse", "kafka"} {
		began := time.Now()
		if err := s.Kill(part); err != nil {
			t.Fatal(err)
		}
		if err := s.Start(part); err != nil {
			t.Fatal(err)
		}
		healthy := time.Since(began)
		id := fmt.Sprintf("after-%s-%d", part, time.Now().UnixNano())
		eventually(t, "ingest takes an event after a restart of "+part, func() bool {
			_, err := s.try(t.Context(), "", "pub", "acme", "restarts.1", `{"text":"`+id+`"}`, "--id", id, "--key", id)
			return err == nil
		})
		out := ""
		eventually(t, "an event after a restart of "+part, func() bool {
			out, _ = s.try(t.Context(), "", "sub", "acme", "restarts.1", "--from", "last:1", "--count", "1", "--timeout", "5s", "--output", "json")
			return strings.Contains(out, id)
		}, func() string { return out })
		eventually(t, "its story", func() bool {
			out, _ = s.try(t.Context(), "", "explain", id)
			return strings.Contains(out, "restarts.1") && strings.Contains(out, "route-1")
		}, func() string { return out })
		t.Logf("%s: healthy after %s, an event and its story through after %s", part, healthy.Round(time.Second), time.Since(began).Round(time.Second))
	}
	if after := s.run(t, "", "schemas", "list"); after != schemas {
		t.Errorf("the registry forgot, or gave other ids:\n%s\nbefore:\n%s", after, schemas)
	}
}

// testComposePrometheus: every role is scraped, all rules are loaded, and
// nobody is called.
func testComposePrometheus(t *testing.T, c *composeStack) {
	all, err := c.containers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, there := all["prometheus"]; !there {
		skip(t, "no image of Prometheus")
	}
	at := "http://" + c.published(t, "prometheus")
	var up []string
	eventually(t, "Prometheus sees every role", func() bool {
		up = promQuery(t, at, `up{job="spillway"} == 1`, "node")
		return len(up) == 9
	}, func() string { return "up: " + strings.Join(up, ", ") })
	eventually(t, "events are counted", func() bool {
		return len(promQuery(t, at, `spillway_ingest_events_total > 0`, "role")) == 1
	})
	if firing := promQuery(t, at, `ALERTS{alertstate="firing"}`, "alertname"); len(firing) > 0 {
		t.Logf("firing after the other stories: %v", firing)
	}
	resp, err := http.Get(at + "/api/v1/rules")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var rules struct {
		Data struct {
			Groups []struct {
				Name  string
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&rules); err != nil || len(rules.Data.Groups) < 5 {
		t.Fatalf("%d groups of rules: %v", len(rules.Data.Groups), err)
	}
	for _, g := range rules.Data.Groups {
		for _, r := range g.Rules {
			if r.Health == "err" {
				t.Errorf("rule %s of %s: %s", r.Name, g.Name, r.LastError)
			}
		}
	}
}

var timeFilter = regexp.MustCompile(`\$__timeFilter\(([a-z_]+)\)`)

// testComposeDashboards asks everything that the dashboards ask, without
// Grafana: of Prometheus and of ClickHouse.
func testComposeDashboards(t *testing.T, s *site, c *composeStack) {
	all, err := c.containers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../deploy/grafana/dashboards/*.json")
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr, RawSQL string }
			}
		}
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				switch _, there := all["prometheus"]; {
				case q.RawSQL != "":
					sql := timeFilter.ReplaceAllString(strings.ReplaceAll(q.RawSQL, "${tenant}", "acme"), "$1 > now() - INTERVAL 1 HOUR")
					if answer := s.query(t, sql); strings.Contains(answer, "Exception") {
						t.Errorf("%s, %s: %s\n%s", file, p.Title, sql, answer)
					}
					asked++
				case there:
					expr := strings.NewReplacer("$__rate_interval", "1m", "$node", ".*").Replace(q.Expr)
					if _, err := promAsk("http://"+c.published(t, "prometheus"), expr); err != nil {
						t.Errorf("%s, %s: %s: %v", file, p.Title, expr, err)
					}
					asked++
				}
			}
		}
	}
	if asked < 6 {
		t.Errorf("%d questions were asked", asked)
	}
	t.Logf("%d questions were asked", asked)
}

// promQuery returns one label of each series that a query finds, nothing
// while Prometheus does not answer.
func promQuery(t *testing.T, at, query, label string) []string {
	t.Helper()
	found, _ := promAsk(at, query) // asked again by who waits
	var out []string
	for _, metric := range found {
		out = append(out, metric[label])
	}
	slices.Sort(out)
	return out
}

// promAsk returns the labels of each series that a query finds.
func promAsk(at, query string) ([]map[string]string, error) {
	resp, err := http.Get(at + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Error string
		Data  struct {
			Result []struct{ Metric map[string]string }
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	var out []map[string]string
	for _, r := range answer.Data.Result {
		out = append(out, r.Metric)
	}
	return out, nil
}
