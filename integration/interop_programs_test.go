//go:build integration

package integration

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A producer is a program in interop/ that sends the event of interop/reading.avsc
// with a client and a serializer that are not ours, to three tenants, with every
// codec and with and without ce_* headers, from the client's default partitioner.
//
// Its scripts run in bash with FROM, the program's folder, and CACHE, the folder
// of what install has made. run has these too:
//
//	KAFKA, REGISTRY   addresses
//	TENANTS, CODECS   lists with commas
//	RUN, TRACE        begin of each event's id (its field run), and its trace id
//	SCHEMA, READING   interop/reading.avsc and .json; PRODUCER and RUN in them are replaced
//	SPILLWAY          the binary
//
// and prints a line for each event, see sentEvent.
type producer struct {
	name    string
	from    string // folder in interop; "": as the name
	version string // fails if something is missing that install or run need
	install string // "": nothing to install
	run     string

	ownAPI bool // registers over Apicurio's own API
	home   bool // partitions as Spillway does: nothing is forwarded
}

var producers = []producer{
	{name: "kcat", version: `kcat -V`, run: `exec bash "$FROM/produce.sh"`}, // librdkafka 2.0 with Debian 12
	{
		name: "python", version: `python3 --version && python3 -m pip --version`,
		install: `python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target "$CACHE" -r "$FROM/requirements.txt"`,
		run:     `PYTHONPATH="$CACHE" exec python3 "$FROM/produce.py"`,
	},
	{
		name: "node", version: `node --version && npm --version`, home: true,
		install: `cp "$FROM"/package*.json "$CACHE" && cd "$CACHE" && npm ci --ignore-scripts --no-audit --no-fund --silent`,
		run:     `NODE_PATH="$CACHE/node_modules" exec node "$FROM/produce.js"`,
	},
	{name: "java", version: javaVersion, install: javaInstall, run: `SERIALIZER=java ` + javaRun, home: true},
	{name: "apicurio", from: "java", version: javaVersion, install: javaInstall, run: `SERIALIZER=apicurio ` + javaRun, home: true, ownAPI: true},
}

const (
	javaVersion = `javac -version && mvn --version`
	javaInstall = `mvn -q -B -f "$FROM/pom.xml" dependency:copy-dependencies -DoutputDirectory="$CACHE/lib" &&
javac -cp "$CACHE/lib/*" -d "$CACHE/classes" "$FROM"/*.java`
	javaRun = `exec java -cp "$CACHE/classes:$CACHE/lib/*" Produce`
)

// codecs by their number in a batch's attributes.
var codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// produce runs the program.
func (p producer) produce(t *testing.T, s *site, cache string, tenants []string, run string) []sentEvent {
	t.Helper()
	abs := func(name string) string { return filepath.Join(absolute(t, "interop"), name) }
	out, err := p.bash(t.Context(), p.run, append(s.env(),
		"FROM="+p.folder(t), "CACHE="+cache, "KAFKA="+s.at().Kafka, "REGISTRY="+s.at().Registry, "SPILLWAY="+s.bin,
		"TENANTS="+strings.Join(tenants, ","), "CODECS="+strings.Join(codecs, ","), "RUN="+run, "TRACE="+interopTrace,
		"SCHEMA="+abs("reading.avsc"), "READING="+abs("reading.json")))
	if err != nil {
		t.Fatal(err)
	}
	var sent []sentEvent
	for line := range strings.Lines(out) {
		var e sentEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s printed %q: %v", p.name, line, err)
		}
		sent = append(sent, e)
	}
	return sent
}

// ready returns the folder with what a producer needs. It is made once and kept
// in the user's cache; its name says what it was made from.
func (p producer) ready(t *testing.T) (cache string) {
	t.Helper()
	env := append(os.Environ(), "FROM="+p.folder(t))
	version, err := p.bash(t.Context(), p.version, env)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		skip(t, p.name+" needs: "+p.version)
	}
	if p.install == "" {
		return ""
	}
	base, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	base = filepath.Join(base, "spillway-interop")
	cache = filepath.Join(base, fmt.Sprintf("%s-%x", cmp.Or(p.from, p.name), p.madeFrom(t, version)[:6]))
	if _, err := os.Stat(cache); err == nil {
		return cache
	}
	if err := os.MkdirAll(base, 0o755); err != nil {
		t.Fatal(err)
	}
	half, err := os.MkdirTemp(base, "half-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(half) // gone by then, if all went well
	if _, err := p.bash(t.Context(), p.install, append(env, "CACHE="+half)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(half, cache); err != nil {
		if _, err := os.Stat(cache); err != nil { // nobody else has made it meanwhile
			t.Fatal(err)
		}
	}
	return cache
}

// madeFrom is a hash of the programs' files and the tools' versions.
func (p producer) madeFrom(t *testing.T, version string) []byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.folder(t), "*"))
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	fmt.Fprintln(h, p.install, version)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(h, filepath.Base(name), len(text))
		h.Write(text)
	}
	return h.Sum(nil)
}

func (p producer) folder(t *testing.T) string {
	t.Helper()
	return filepath.Join(absolute(t, "interop"), cmp.Or(p.from, p.name))
}

// bash runs a script and returns what it printed; an error has what it said.
func (p producer) bash(ctx context.Context, script string, env []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	var out, said bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &out, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %s: %w\n%s", p.name, script, err, tail(out.String()+said.String()))
	}
	return out.String(), nil
}

func absolute(t *testing.T, name string) string {
	t.Helper()
	abs, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}
