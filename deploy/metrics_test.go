package deploy

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

type rule struct {
	Alert, Record, Expr string
	Labels              map[string]string
	Annotations         map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	read(t, "prometheus/alerts.yml", &file)
	var out []rule
	for _, g := range file.Groups {
		out = append(out, g.Rules...)
	}
	if len(out) < 25 {
		t.Fatalf("%d rules, want 25 at least", len(out))
	}
	return out
}

// TestEveryAlertSaysWhatToDo, and every page has a story that shows it firing.
func TestEveryAlertSaysWhatToDo(t *testing.T) {
	stories, err := os.ReadFile("prometheus/alerts_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		severity := r.Labels["severity"]
		if seen[r.Alert] || severity != "page" && severity != "ticket" || len(r.Annotations["summary"]) < 20 || len(r.Annotations["runbook"]) < 60 {
			t.Errorf("%s: twice, or no severity page or ticket, no summary, no runbook", r.Alert)
		}
		seen[r.Alert] = true
		if severity == "page" && !strings.Contains(string(stories), `ALERTS{alertname="`+r.Alert+`",alertstate="firing"`) {
			t.Errorf("%s: no story in alerts_test.yml shows it firing", r.Alert)
		}
	}
}

var (
	metricName = regexp.MustCompile(`\bspillway_[a-z0-9_]+`)
	series     = regexp.MustCompile(`_(bucket|count|sum)$`) // of a histogram
	matcher    = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)\s*"`)
	grouping   = regexp.MustCompile(`\b(?:by|on|without)\s*\(([^)]*)\)`)
	labelUsed  = regexp.MustCompile(`\$labels\.([a-z_]+)`)
	documented = regexp.MustCompile("(?m)^\\| `(spillway_[a-z0-9_]+)` \\|")
	quoted     = regexp.MustCompile(`"([a-z_]+)"`)
)

// fromTarget are the labels that Prometheus and its configuration add.
var fromTarget = []string{"job", "instance", "node", "role", "region", "le", "alertname", "alertstate", "severity"}

// TestEveryMetricAndLabelExists: alerts and dashboards ask for nothing that no
// role measures.
func TestEveryMetricAndLabelExists(t *testing.T) {
	type query struct{ where, expr, text string }
	var queries []query
	for _, r := range rules(t) {
		queries = append(queries, query{"alerts.yml, " + r.Alert + r.Record, r.Expr, r.Annotations["summary"] + r.Annotations["runbook"]})
	}
	for _, d := range dashboards(t) {
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				queries = append(queries, query{d.file + ", " + p.Title, target.Expr, ""})
			}
		}
	}
	known := metrics(t)
	for _, q := range queries {
		labels := slices.Clone(fromTarget)
		for _, name := range metricName.FindAllString(q.expr, -1) {
			of, ok := known[series.ReplaceAllString(name, "")]
			if !ok {
				t.Errorf("%s: no role measures %s", q.where, name)
			}
			labels = append(labels, of...)
		}
		var used []string
		for _, m := range matcher.FindAllStringSubmatch(q.expr, -1) {
			used = append(used, m[1])
		}
		for _, m := range grouping.FindAllStringSubmatch(q.expr, -1) {
			used = append(used, strings.FieldsFunc(m[1], func(r rune) bool { return r == ',' || r == ' ' })...)
		}
		for _, m := range labelUsed.FindAllStringSubmatch(q.text, -1) {
			used = append(used, m[1])
		}
		for _, l := range used {
			if !slices.Contains(labels, l) {
				t.Errorf("%s: label %s exists on none of its metrics", q.where, l)
			}
		}
		for _, name := range metricName.FindAllString(q.text, -1) {
			if _, ok := known[series.ReplaceAllString(name, "")]; !ok {
				t.Errorf("%s: its runbook names %s, which no role measures", q.where, name)
			}
		}
	}
}

// metrics are the names that the code registers or that the README promises,
// with the words in quotes of the files that register them: a label is one of
// these. A name is written out, or its layer is the prefix: "rows_total" in
// processors/audit is spillway_audit_rows_total.
func metrics(t *testing.T) map[string][]string {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, m := range documented.FindAllSubmatch(readme, -1) {
		out[string(m[1])] = nil
	}
	if len(out) < 50 {
		t.Fatalf("the README promises %d metrics, want 50 at least", len(out))
	}
	err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), "prometheus.CounterOpts{") && !strings.Contains(string(text), "prometheus.GaugeOpts{") {
			return err
		}
		var words []string
		for _, m := range quoted.FindAllSubmatch(text, -1) {
			words = append(words, string(m[1]))
		}
		for _, w := range words {
			name := w
			if !strings.HasPrefix(w, "spillway_") {
				name = "spillway_" + filepath.Base(filepath.Dir(path)) + "_" + w
			}
			out[name] = append(out[name], words...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
