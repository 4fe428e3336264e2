package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/cpu"

	"github.com/spillway/spillway/deploy/dev/engine/server"
)

// release is the version of all packages below: ClickHouse 26.7.2 as libchdb
// 26.7.3. Older ones lack streaming inserts and wipe Go's signal handlers.
const release = "26.7.3-stable.1"

// A pkg is one npm package with libchdb in it, Apache-2.0.
type pkg struct {
	name string // on the npm registry
	// sha512 of the tarball, base64 as npm writes it. Empty: not pinned, and
	// the registry's own word is taken for it (see integrity in fetch.go).
	sha512 string
	bytes  int64 // of the tarball, 0 if not known; for the progress only
}

// packages by GOOS/GOARCH, all of the same release.
var packages = map[string]pkg{
	"linux/amd64": {
		name: "@chdb/lib-linux-x64-gnu", bytes: 177817999,
		sha512: "XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==",
	},
	"linux/arm64":  {name: "@chdb/lib-linux-arm64-gnu"},
	"darwin/amd64": {name: "@chdb/lib-darwin-x64"},
	"darwin/arm64": {name: "@chdb/lib-darwin-arm64"},
}

// errPermanent marks an error that trying again cannot heal.
var errPermanent = errors.New("")

// unavailable is the one line that tells a person why there is no engine.
func unavailable(permanent bool, format string, args ...any) error {
	err := fmt.Errorf("no ClickHouse engine: "+format+"; remedy: --clickhouse URL uses a server instead", args...)
	if permanent {
		return permanentError{err}
	}
	return err
}

type permanentError struct{ error }

func (permanentError) Is(target error) bool { return target == errPermanent }
func (e permanentError) Unwrap() error      { return e.error }

// host is what decides whether the engine can run here.
type host struct {
	platform string // GOOS/GOARCH
	v3       bool   // amd64: has the instructions of x86-64-v3, AVX2 foremost
	musl     bool
	built    bool // this binary has the bindings
}

func thisHost() host {
	return host{
		platform: runtime.GOOS + "/" + runtime.GOARCH,
		v3:       cpu.X86.HasAVX2 && cpu.X86.HasBMI1 && cpu.X86.HasBMI2 && cpu.X86.HasFMA,
		musl:     isMusl("/lib"),
		built:    server.Built,
	}
}

// isMusl: the C library is musl, as in Alpine. A glibc beside it (a
// compatibility layer) does not run the engine either.
func isMusl(lib string) bool {
	found, _ := filepath.Glob(filepath.Join(lib, "ld-musl-*")) // fails on a bad pattern only
	if len(found) == 0 {
		return false
	}
	_, err := os.Stat(filepath.Join(lib, "..", "etc", "alpine-release"))
	return err == nil
}

// choose is the package for a host.
func (h host) choose() (pkg, error) {
	p, ok := packages[h.platform]
	switch {
	case !ok:
		return p, unavailable(true, "there is none for %s", h.platform)
	case h.musl:
		return p, unavailable(true, "there is none for musl libc")
	case h.platform == "linux/amd64" && !h.v3:
		return p, unavailable(true, "it needs a processor with AVX2 (x86-64-v3)")
	case !h.built:
		return p, unavailable(true, "this binary was built without it")
	}
	return p, nil
}
