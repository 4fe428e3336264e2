package engine

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// fakeNPM is a registry of one package: a script that stands for npm.
type fakeNPM struct {
	fetcher
	cache  string
	calls  string // a file with a line for each call
	stages []string
}

const libraryText = "the library"

func newFakeNPM(t *testing.T, script string) *fakeNPM {
	t.Helper()
	dir := t.TempDir()
	var tarball bytes.Buffer
	gz := gzip.NewWriter(&tarball)
	tw := tar.NewWriter(gz)
	for name, data := range map[string]string{"package/package.json": "{}", "package/libchdb.so": libraryText} {
		_ = tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg})
		_, _ = tw.Write([]byte(data))
	}
	_, _ = tw.Close(), gz.Close()
	sum := sha512.Sum512(tarball.Bytes())
	f := &fakeNPM{cache: filepath.Join(dir, "cache"), calls: filepath.Join(dir, "calls")}
	f.pkg = pkg{name: "@chdb/fake", sha512: base64.StdEncoding.EncodeToString(sum[:])}
	f.npm = filepath.Join(dir, "npm")
	f.progress = func(p Progress) { f.stages = append(f.stages, p.Stage) }
	script = strings.NewReplacer("TARBALL", filepath.Join(dir, "tarball"), "SUM", f.pkg.sha512).Replace(script)
	for name, data := range map[string]string{
		filepath.Join(dir, "tarball"): tarball.String(),
		f.npm:                         "#!/bin/sh\necho \"$@\" >> " + f.calls + "\n" + script,
	} {
		if err := os.WriteFile(name, []byte(data), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// pack is what npm pack does: $4 is the destination.
const pack = `if [ "$1" = pack ]; then cp TARBALL "$4/x.tgz"; fi`

func (f *fakeNPM) called(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(f.calls)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Count(string(b), "\n")
}

// leftovers are files of the cache that should not be there.
func (f *fakeNPM) leftovers() []string {
	left, _ := filepath.Glob(filepath.Join(f.cache, "*", "fetch-*"))
	return left
}

func TestFetch(t *testing.T) {
	f := newFakeNPM(t, pack)
	for range 3 {
		lib, err := f.fetch(t.Context(), f.cache)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(lib); string(b) != libraryText {
			t.Fatalf("%q, %v", b, err)
		}
	}
	if n := f.called(t); n != 1 {
		t.Errorf("npm ran %d times", n)
	}
	if got := strings.Join(f.stages, ","); !strings.HasPrefix(got, StageDownload) || !strings.HasSuffix(got, StageExtract) {
		t.Errorf("stages: %s", got)
	}
	if left := f.leftovers(); left != nil {
		t.Errorf("left: %v", left)
	}
}

// TestFetchNotPinned: the registry's word is taken, and checked.
func TestFetchNotPinned(t *testing.T) {
	for script, want := range map[string]string{
		pack + "\nif [ \"$1\" = view ]; then echo sha512-SUM; fi":  "",
		pack + "\nif [ \"$1\" = view ]; then echo sha512-AAAA; fi": "is not the expected one",
		pack: "gives no sha512",
	} {
		f := newFakeNPM(t, script)
		f.pkg.sha512 = ""
		_, err := f.fetch(t.Context(), f.cache)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}

// TestFetchFails: one line with the remedy, nothing in the cache.
func TestFetchFails(t *testing.T) {
	for _, c := range []struct {
		name, script string
		change       func(*fakeNPM)
		want         string
		permanent    bool
	}{
		{"no npm", pack, func(f *fakeNPM) { f.npm = "no-such-npm" }, "npm, which fetches it, is not installed", true},
		{"no network", "echo npm error code ENOTFOUND >&2; echo npm error no such host >&2; exit 1", nil, "no such host", false},
		{"nothing packed", "exit 0", nil, "left 0 packages", false},
		{"other bytes", pack + "; echo x >> $4/x.tgz", nil, "is not the expected one", true},
		{"no tarball", "echo hello > $4/x.tgz", nil, "is not the expected one", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFakeNPM(t, c.script)
			if c.change != nil {
				c.change(f)
			}
			_, err := f.fetch(t.Context(), f.cache)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "--clickhouse URL") ||
				strings.Contains(err.Error(), "\n") || errors.Is(err, errPermanent) != c.permanent {
				t.Errorf("got %v", err)
			}
			libs, _ := filepath.Glob(filepath.Join(f.cache, "*", libraryFile))
			if libs != nil || f.leftovers() != nil {
				t.Errorf("left %v %v", libs, f.leftovers())
			}
		})
	}
}

// TestFetchWithoutLibrary: a package that has the hash but no library.
func TestFetchWithoutLibrary(t *testing.T) {
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	_, _ = tar.NewWriter(gz).Close(), gz.Close()
	f := fetcher{pkg: pkg{name: "@chdb/fake"}, progress: func(Progress) {}}
	name := filepath.Join(t.TempDir(), "t.tgz")
	sum := sha512.Sum512(b.Bytes())
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := f.extract(t.Context(), name, name+".so", base64.StdEncoding.EncodeToString(sum[:])); err == nil || !strings.Contains(err.Error(), "no libchdb") {
		t.Errorf("got %v", err)
	}
}

// TestFetchCancel: cancelling ends npm and leaves nothing.
func TestFetchCancel(t *testing.T) {
	f := newFakeNPM(t, "exec sleep 600")
	ctx, cancel := context.WithCancel(t.Context())
	f.progress = func(Progress) { cancel() }
	if _, err := f.fetch(ctx, f.cache); err == nil {
		t.Error("no error")
	}
	if left := f.leftovers(); left != nil {
		t.Errorf("left: %v", left)
	}
}

// TestFetchTogether: those who come at once wait for the one that fetches, and
// what a killed fetch left is swept.
func TestFetchTogether(t *testing.T) {
	f := newFakeNPM(t, pack)
	dead := filepath.Join(f.cache, release+"-fake", "fetch-dead", "deep")
	if err := os.MkdirAll(dead, 0o755); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			mine := f.fetcher
			mine.progress = func(Progress) {}
			if _, err := mine.fetch(t.Context(), f.cache); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := f.called(t); n != 1 {
		t.Errorf("npm ran %d times", n)
	}
	if left := f.leftovers(); left != nil {
		t.Errorf("left: %v", left)
	}
}

func TestHosts(t *testing.T) {
	for want, h := range map[string]host{
		"for windows/amd64": {platform: "windows/amd64", v3: true, built: true},
		"AVX2":              {platform: "linux/amd64", built: true},
		"musl":              {platform: "linux/amd64", v3: true, musl: true, built: true},
		"without it":        {platform: "linux/amd64", v3: true},
	} {
		_, err := h.choose()
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--clickhouse URL") || !errors.Is(err, errPermanent) {
			t.Errorf("%+v: %v", h, err)
		}
	}
	for platform := range packages {
		if _, err := (host{platform: platform, v3: true, built: true}).choose(); err != nil {
			t.Errorf("%s: %v", platform, err)
		}
	}
	root := t.TempDir()
	for _, musl := range []bool{false, true} {
		if got := isMusl(filepath.Join(root, "lib")); got != musl {
			t.Errorf("isMusl = %v", got)
		}
		for _, name := range []string{"lib/ld-musl-x86_64.so.1", "etc/alpine-release"} {
			_ = os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755)
			_ = os.WriteFile(filepath.Join(root, name), nil, 0o644)
		}
	}
}

func TestStateString(t *testing.T) {
	for want, s := range map[string]State{
		"downloading (25 % of 100 MB)": {Phase: Fetching, Progress: Progress{StageDownload, 25 << 20, 100 << 20}},
		"downloading (7 MB)":           {Phase: Fetching, Progress: Progress{StageDownload, 7 << 20, 0}},
		"fetching":                     {Phase: Fetching},
		"ready":                        {Phase: Ready, PID: 1},
		"unavailable: no npm":          {Phase: Unavailable, Err: fmt.Errorf("no npm")},
	} {
		if got := s.String(); got != want {
			t.Errorf("%+v: %s", s, got)
		}
	}
}
