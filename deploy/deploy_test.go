// Package deploy is how Spillway is run: an image, a compose file, alert rules
// and dashboards. Its tests hold them to the code and to each other; whether
// the stack really works is looked at in integration.
package deploy

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/spillway/spillway/control/keys"
	"github.com/spillway/spillway/schemas"
)

type service struct {
	Image       string
	Build       struct{ Args map[string]string }
	Command     []string
	User        string
	ReadOnly    bool     `yaml:"read_only"`
	CapDrop     []string `yaml:"cap_drop"`
	SecurityOpt []string `yaml:"security_opt"`
	Environment map[string]any
	Ports       []string
	Restart     string
	StopGrace   string            `yaml:"stop_grace_period"`
	DependsOn   map[string]waited `yaml:"depends_on"`
	Healthcheck struct{ Test []string }
	Profiles    []string
}

type waited struct{ Condition string }

func (s service) product() bool { return strings.HasPrefix(s.Image, "${SPILLWAY_IMAGE:-") }

// role says whether it is one of ours that runs for long.
func (s service) role() bool { return s.product() && s.Restart != "" }

type composeFile struct {
	Services map[string]service
	Secrets  map[string]struct{ File string }
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func compose(t *testing.T) composeFile {
	t.Helper()
	var c composeFile
	read(t, "../docker-compose.yml", &c)
	if len(c.Services) < 14 {
		t.Fatalf("%d services, want 14 at least", len(c.Services))
	}
	return c
}

var (
	imageFromEnv = regexp.MustCompile(`^\$\{SPILLWAY_IMAGE[A-Z_]*:-[^}]+:[^}]+\}$`)
	loopbackPort = regexp.MustCompile(`^127\.0\.0\.1:(\$\{SPILLWAY_PORT_[A-Z_0-9]+:-\d+\}):\d+$`)
	secretName   = regexp.MustCompile(`PASSWORD|TOKEN|SECRET|_KEYS?$`)
	userAndPass  = regexp.MustCompile(`://[^/@ ]*:[^/@ ]*@`)
)

func TestEveryImagePortAndSecretComesFromOutside(t *testing.T) {
	c := compose(t)
	published := map[string]string{}
	for name, s := range c.Services {
		if !imageFromEnv.MatchString(s.Image) {
			t.Errorf("%s: image %q does not come from the environment, with a tag by default", name, s.Image)
		}
		for _, p := range s.Ports {
			m := loopbackPort.FindStringSubmatch(p)
			if m == nil {
				t.Errorf("%s: port %q is not loopback's, from the environment", name, p)
				continue
			}
			port := m[1][strings.Index(m[1], ":-"):]
			if other, twice := published[port]; twice {
				t.Errorf("%s and %s have one default port %s", name, other, port)
			}
			published[port] = name
		}
		for key, value := range s.Environment {
			text, _ := value.(string)
			if secretName.MatchString(key) && !strings.HasPrefix(text, "/run/secrets/") {
				t.Errorf("%s: %s is in clear; name a file below /run/secrets", name, key)
			}
			if userAndPass.MatchString(text) {
				t.Errorf("%s: %s has a password in its address", name, key)
			}
		}
	}
	for name, s := range c.Secrets {
		if !strings.HasPrefix(s.File, "${SPILLWAY_SECRETS:-./deploy/compose/secrets}/") {
			t.Errorf("secret %s is not a file of SPILLWAY_SECRETS: %q", name, s.File)
		}
	}
}

func TestEveryServiceIsWatchedAndLocked(t *testing.T) {
	for name, s := range compose(t).Services {
		oneShot := name == "setup" || slices.Contains(s.Profiles, "tools")
		if long := s.Restart == "unless-stopped" && len(s.Healthcheck.Test) > 1; long == oneShot {
			t.Errorf("%s: restart %q, health check %v", name, s.Restart, s.Healthcheck.Test)
		}
		if !s.product() {
			continue
		}
		if !s.ReadOnly || s.User != "65532:65532" || !slices.Contains(s.CapDrop, "ALL") || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s: read_only %t, user %q, cap_drop %v, security_opt %v", name, s.ReadOnly, s.User, s.CapDrop, s.SecurityOpt)
		}
		if !s.role() {
			continue
		}
		if s.DependsOn["setup"].Condition != "service_completed_successfully" || s.DependsOn["kafka"].Condition != "service_healthy" {
			t.Errorf("%s: must wait for setup, and for Kafka itself so that Kafka stops after it: %v", name, s.DependsOn)
		}
		drain := 30 * time.Second // the roles' default
		if text, ok := s.Environment["SPILLWAY_DRAIN_TIMEOUT"].(string); ok {
			drain = duration(t, text)
		}
		if grace := duration(t, s.StopGrace); grace <= drain {
			t.Errorf("%s: is killed after %s, and may drain for %s", name, grace, drain)
		}
	}
}

func duration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestEveryRoleIsScraped(t *testing.T) {
	var config struct {
		ScrapeConfigs []struct {
			JobName       string `yaml:"job_name"`
			StaticConfigs []struct {
				Targets []string
				Labels  map[string]string
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	read(t, "prometheus/prometheus.yml", &config)
	scraped := map[string]map[string]string{}
	for _, job := range config.ScrapeConfigs {
		for _, s := range job.StaticConfigs {
			if job.JobName == "spillway" {
				scraped[s.Targets[0]] = s.Labels
			}
		}
	}
	roles := 0
	for name, s := range compose(t).Services {
		if !s.role() {
			continue
		}
		roles++
		labels := scraped[name+":8099"]
		if labels["role"] != s.Command[0] || labels["node"] != s.Environment["SPILLWAY_NODE"] {
			t.Errorf("%s is scraped as %v", name, labels)
		}
	}
	if len(scraped) != roles {
		t.Errorf("%d targets for %d roles", len(scraped), roles)
	}
}

// need skips a test whose command is not installed, and fails it in CI, which
// installs all of them.
func need(t *testing.T, command, debian string) {
	t.Helper()
	if _, err := exec.LookPath(command); err != nil {
		why := command + " is not installed: apt-get install " + debian
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
}

// TestPromtool has Prometheus's own checker read configuration and rules, and
// play the stories of alerts_test.yml.
func TestPromtool(t *testing.T) {
	need(t, "promtool", "prometheus")
	dir := t.TempDir()
	for _, name := range []string{"prometheus.yml", "alerts.yml", "alerts_test.yml"} {
		text, err := os.ReadFile(filepath.Join("prometheus", name))
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.ReplaceAll(text, []byte("/run/secrets/scrape_token"), []byte(name)) // any file that is there
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"check", "config", "prometheus.yml"}, {"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		cmd := exec.CommandContext(t.Context(), "promtool", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// TestSecrets: all files are made, once, and the token that Prometheus shows
// counts.
func TestSecrets(t *testing.T) {
	need(t, "openssl", "openssl")
	dir := filepath.Join(t.TempDir(), "secrets")
	before := map[string]string{}
	for range 2 {
		if out, err := exec.CommandContext(t.Context(), "compose/secrets.sh", dir).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for name := range compose(t).Secrets {
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil || len(text) < 20 {
				t.Fatalf("%s: %d bytes, %v", name, len(text), err)
			}
			if old := before[name]; old != "" && old != string(text) {
				t.Errorf("%s was made anew", name)
			}
			before[name] = string(text)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder is open to others: %v, %v", info.Mode(), err)
	}
	ring, err := keys.New(keys.Config{File: filepath.Join(dir, "keys.json"), Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	claims, err := ring.Verify(strings.TrimSpace(before["scrape_token"]))
	if err != nil || claims.Role != schemas.RoleOperator {
		t.Errorf("scrape_token: %+v, %v", claims, err)
	}
}

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               struct{ UID string }
	GridPos                  struct{ H, W, X, Y int }
	Targets                  []struct{ Expr, RawSQL string }
}

type dashboard struct {
	file, UID, Title string
	Panels           []panel
}

func dashboards(t *testing.T) []dashboard {
	t.Helper()
	files, err := filepath.Glob("grafana/dashboards/*.json")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d dashboards, %v", len(files), err)
	}
	var out []dashboard
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d := dashboard{file: file}
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		out = append(out, d)
	}
	return out
}

func TestDashboardsAreWhole(t *testing.T) {
	var sources struct{ Datasources []struct{ UID string } }
	read(t, "grafana/provisioning/datasources/spillway.yml", &sources)
	known, uids := map[string]bool{}, map[string]bool{}
	for _, s := range sources.Datasources {
		known[s.UID] = true
	}
	for _, d := range dashboards(t) {
		if d.UID == "" || uids[d.UID] {
			t.Errorf("%s: uid %q is empty or another's", d.file, d.UID)
		}
		uids[d.UID] = true
		taken := map[[2]int]string{} // cells of the grid
		for _, p := range d.Panels {
			if p.Type != "row" && (p.Description == "" || !known[p.Datasource.UID] || len(p.Targets) == 0) {
				t.Errorf("%s, %s: no description, no query, or data source %q is not there", d.file, p.Title, p.Datasource.UID)
			}
			for x := range p.GridPos.W {
				for y := range p.GridPos.H {
					cell := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
					if other := taken[cell]; other != "" && x+y == 0 || cell[0] >= 24 {
						t.Errorf("%s: %s lies over %s or beyond the edge", d.file, p.Title, other)
					}
					taken[cell] = p.Title
				}
			}
		}
	}
}
