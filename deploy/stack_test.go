package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// fakeDocker answers for Docker and compose from files in $FAKE.
const fakeDocker = `#!/bin/sh
case "$*" in
"compose version") ;;
"compose config --services") printf 'kafka\nsetup\ningest\ncli\n' ;;
"compose up -d "*) echo "$*" >"$FAKE/up"; echo "$SPILLWAY_VERSION" >"$FAKE/version" ;;
"compose ps -aq kafka setup ingest") cat "$FAKE/ids" ;;
"inspect "*) cat "$FAKE/states" ;;
*) exit 9 ;;
esac
`

// up calls `make up` where Docker is a fake, and returns its folder and what
// was said.
func up(t *testing.T, ids, states string) (fake, said string, err error) {
	t.Helper()
	need(t, "make", "make")
	need(t, "openssl", "openssl")
	fake = t.TempDir()
	for name, text := range map[string]string{"docker": fakeDocker, "ids": ids, "states": states} {
		if err := os.WriteFile(filepath.Join(fake, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "make", "-C", "..", "up")
	cmd.Env = append(os.Environ(), "PATH="+fake+":"+os.Getenv("PATH"), "FAKE="+fake, "SPILLWAY_SECRETS="+filepath.Join(fake, "secrets"), "SPILLWAY_READY_WITHIN=1")
	out, err := cmd.CombinedOutput()
	return fake, string(out), err
}

func TestUpWaitsForContainers(t *testing.T) {
	for name, c := range map[string]struct{ ids, states, want string }{
		"all well":         {"a\nb\n", "/kafka running 0 healthy\n/setup exited 0\n\n/ingest running 0 healthy\n", ""},
		"no container":     {"", "", "there is no container"},
		"setup ended":      {"a\nb\n", "/kafka running 0 healthy\n/setup exited 1\n", "/setup exited 1"},
		"ingest begins":    {"a\nb\n", "/ingest running 0 starting\n", "/ingest running 0 starting"},
		"ingest is not up": {"a\n", "/ingest created 0\n", "/ingest created 0"},
	} {
		t.Run(name, func(t *testing.T) {
			_, said, err := up(t, c.ids, c.states)
			if (err == nil) != (c.want == "") || !strings.Contains(said, c.want) {
				t.Errorf("%v, want %q:\n%s", err, c.want, said)
			}
		})
	}
}

// TestVersionReachesTheImage: from git through make and compose to the linker.
func TestVersionReachesTheImage(t *testing.T) {
	const arg = "${SPILLWAY_VERSION:-dev}"
	for name, s := range compose(t).Services {
		if s.product() && s.Build.Args["VERSION"] != arg {
			t.Errorf("%s is built with VERSION %q, want %q", name, s.Build.Args["VERSION"], arg)
		}
	}
	text, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "ARG VERSION") || !strings.Contains(string(text), "-X main.version=${VERSION}") {
		t.Error("the Dockerfile does not hand VERSION to the linker")
	}
	fake, said, err := up(t, "a\n", "/kafka running 0 healthy\n")
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	version, err := os.ReadFile(filepath.Join(fake, "version"))
	if err != nil {
		t.Fatal(err)
	}
	want := "dev" // of a source without history
	if out, err := exec.CommandContext(t.Context(), "git", "describe", "--tags", "--always").Output(); err == nil {
		want = strings.TrimSpace(string(out))
	}
	if got := strings.TrimSuffix(strings.TrimSpace(string(version)), "-dirty"); got != want {
		t.Errorf("compose is told version %q, want %q", got, want)
	}
}

// TestImagesArePinned: a tag that moves builds something else tomorrow.
func TestImagesArePinned(t *testing.T) {
	patch := regexp.MustCompile(`:v?\d+\.\d+\.\d+(\.\d+)?\}?$`)
	services := compose(t).Services
	for name, s := range services {
		if !s.product() && !patch.MatchString(s.Image) {
			t.Errorf("%s: %s names no patch version", name, s.Image)
		}
	}
	if plugin, _ := services["grafana"].Environment["GF_PLUGINS_PREINSTALL"].(string); !regexp.MustCompile(`@\d+\.\d+\.\d+$`).MatchString(plugin) {
		t.Errorf("grafana: plugin %q has no version", plugin)
	}
	text, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^ARG GO_IMAGE=golang:\d+\.\d+\.\d+$`).Match(text) {
		t.Error("the Dockerfile's Go names no patch version")
	}
}
