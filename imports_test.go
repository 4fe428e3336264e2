package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/spillway/spillway/"

// tiers are the layers that meet only at topics.
var tiers = []string{"ingest", "processors/route", "processors/delay", "processors/work", "processors/audit", "fanout", "control", "client", "deploy", "integration"}

// may lists the packages that a layer may import beside schemas and its own. Only the files at the top know all layers.
var may = map[string][]string{
	"processors/route": {"processors"},
	"processors/delay": {"processors"},
	"processors/audit": {"processors"},
	"integration":      {"client"},
}

// onlyIn lists who may import a library at all.
var onlyIn = map[string][]string{
	"github.com/ClickHouse/clickhouse-go":         {"processors/audit"},
	"github.com/coder/websocket":                  {"fanout", "client"},
	"github.com/testcontainers/testcontainers-go": {"integration"},
	"github.com/ebitengine/purego":                {"deploy/dev/engine"},
	"github.com/twmb/franz-go/pkg/kfake":          {"deploy/dev/broker"},
}

// TestImportsHoldThePicture checks every file but the tests, which may use
// real parts of other layers to stand beside theirs.
func TestImportsHoldThePicture(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		files++
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, imp := range f.Imports {
			p, _ := strconv.Unquote(imp.Path.Value)
			if why := forbidden(path.Dir(filepath.ToSlash(file)), p); why != "" {
				t.Errorf("%s imports %s: %s", file, p, why)
			}
		}
		return nil
	})
	if err != nil || files < 20 {
		t.Fatalf("read %d files: %v", files, err)
	}
}

// forbidden says why a file in dir must not import p, "" if it may.
func forbidden(dir, p string) string {
	if dir == "." {
		return ""
	}
	for lib, who := range onlyIn {
		if within(p, lib) && !anyWithin(dir, who) {
			return "only " + strings.Join(who, ", ") + " may"
		}
	}
	if dir == "processors" {
		for _, lib := range []string{"github.com/twmb", "github.com/coder", "github.com/ClickHouse", "net"} {
			if within(p, lib) {
				return "the line is pure"
			}
		}
	}
	inner, ours := strings.CutPrefix(p, module)
	if !ours || within(inner, "schemas") {
		return ""
	}
	if within(dir, "schemas") {
		return "schemas imports no layer"
	}
	for tier, allowed := range may {
		if within(dir, tier) && slices.Contains(allowed, inner) {
			return ""
		}
	}
	if within(inner, tierOf(dir)) {
		return ""
	}
	return "layers meet at topics in schemas, not by import"
}

func tierOf(dir string) string {
	for _, tier := range tiers {
		if within(dir, tier) {
			return tier
		}
	}
	return dir
}

func within(p, root string) bool { return p == root || strings.HasPrefix(p, root+"/") }

func anyWithin(p string, roots []string) bool {
	for _, root := range roots {
		if within(p, root) {
			return true
		}
	}
	return false
}

func TestForbiddenSaysNo(t *testing.T) {
	for _, c := range []struct {
		dir, imp string
		ok       bool
	}{
		{"ingest", module + "fanout", false}, {"ingest", module + "control", false}, {"ingest", module + "schemas/codec", true},
		{"schemas", module + "control", false}, {"processors", "github.com/twmb/franz-go/pkg/kgo", false}, {"processors/route", "github.com/twmb/franz-go/pkg/kgo", true},
		{"processors/route", module + "processors", true}, {"processors/route", module + "processors/delay", false}, {"fanout", "github.com/coder/websocket", true},
		{"ingest", "github.com/coder/websocket", false}, {"control/keys", module + "control", true}, {"client", module + "fanout", false}, {"integration/load", module + "client", true},
	} {
		if why := forbidden(c.dir, c.imp); (why == "") != c.ok {
			t.Errorf("%s imports %s: %q", c.dir, c.imp, why)
		}
	}
}
