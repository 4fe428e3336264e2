package engine

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Progress of a Fetch. Total is 0 while it is not known.
type Progress struct {
	Stage       string // StageWait, StageDownload or StageExtract
	Done, Total int64  // bytes of the compressed package
}

// The stages of a Fetch, in order.
const (
	StageWait     = "waiting for another process that fetches it"
	StageDownload = "downloading"
	StageExtract  = "checking and extracting"
)

// String is the progress for a person.
func (p Progress) String() string {
	const mb = 1 << 20
	if p.Total <= 0 {
		return fmt.Sprintf("%s (%d MB)", p.Stage, p.Done/mb)
	}
	return fmt.Sprintf("%s (%d %% of %d MB)", p.Stage, min(p.Done, p.Total)*100/p.Total, p.Total/mb)
}

// progressEvery is how often a download is looked at: npm reports nothing.
const progressEvery = 250 * time.Millisecond

// Fetch returns the path of the library in the cache folder, fetching it there
// first if it is not: `npm pack` of the pinned package, its hash checked, the
// library extracted beside and renamed into place, so that it is whole or
// missing. Processes that share the folder wait for each other. Once it is
// there, neither network nor npm is needed. Errors are one line with a remedy;
// ctx cancels. The callback runs on Fetch's goroutines, one at a time.
func Fetch(ctx context.Context, cache string, progress func(Progress)) (string, error) {
	p, err := thisHost().choose()
	if err != nil {
		return "", err
	}
	f := fetcher{pkg: p, npm: "npm", progress: progress}
	return f.fetch(ctx, cache)
}

// libraryFile is the library's name in the cache, on every platform.
const libraryFile = "libchdb.so"

// fetcher gets one package.
type fetcher struct {
	pkg      pkg
	npm      string // the command
	progress func(Progress)
}

func (f *fetcher) fetch(ctx context.Context, cache string) (string, error) {
	// One folder a package: a new release does not overwrite a library in use.
	dir := filepath.Join(cache, release+"-"+path.Base(f.pkg.name))
	lib := filepath.Join(dir, libraryFile)
	if isFile(lib) {
		return lib, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", unavailable(false, "cache: %v", err)
	}
	unlock, err := f.lock(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return "", unavailable(false, "cache: %v", err)
	}
	defer unlock()
	if isFile(lib) { // by the process that had the lock
		return lib, nil
	}
	f.sweep(dir)
	tmp, err := os.MkdirTemp(dir, "fetch-")
	if err != nil {
		return "", unavailable(false, "cache: %v", err)
	}
	defer os.RemoveAll(tmp)
	tarball, err := f.download(ctx, tmp)
	if err != nil {
		return "", err
	}
	want, err := f.integrity(ctx)
	if err != nil {
		return "", err
	}
	part := filepath.Join(tmp, libraryFile)
	if err := f.extract(ctx, tarball, part, want); err != nil {
		return "", err
	}
	if err := os.Rename(part, lib); err != nil {
		return "", unavailable(false, "cache: %v", err)
	}
	return lib, nil
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// sweep removes what a killed fetch left. Only under the lock.
func (f *fetcher) sweep(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, "fetch-*")) // fails on a bad pattern only
	for _, d := range left {
		_ = os.RemoveAll(d) // costs disk, nothing else
	}
}

// lock waits for the folder's lock.
func (f *fetcher) lock(ctx context.Context, name string) (unlock func(), err error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		ok, err := tryLock(file)
		if ok {
			return func() { _ = file.Close() }, nil
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), file.Close())
		}
		f.progress(Progress{Stage: StageWait, Total: f.pkg.bytes})
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), file.Close())
		}
	}
}

// download lets npm fetch the tarball into tmp, with npm's own proxy, registry
// and credentials. npm's cache goes there too: it is what grows, and a second
// copy in the user's cache would serve nobody.
func (f *fetcher) download(ctx context.Context, tmp string) (string, error) {
	npm, err := exec.LookPath(f.npm)
	if err != nil {
		return "", unavailable(true, "npm, which fetches it, is not installed")
	}
	cacheDir := filepath.Join(tmp, "npm")
	cmd := exec.CommandContext(ctx, npm, "pack", f.pkg.name+"@"+release, "--pack-destination", tmp, "--cache", cacheDir,
		"--loglevel", "error", "--no-update-notifier", "--ignore-scripts", "--fetch-retries", "1")
	cmd.Dir = tmp // not the user's package.json or .npmrc of a project
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &said
	ownGroup(cmd)
	cmd.WaitDelay = 5 * time.Second
	ended := make(chan error, 1)
	if err := cmd.Start(); err != nil {
		return "", unavailable(false, "npm: %v", err)
	}
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		f.progress(Progress{StageDownload, treeBytes(cacheDir), f.pkg.bytes})
		select {
		case err = <-ended:
		case <-tick.C:
			continue
		}
		break
	}
	if err != nil {
		return "", unavailable(false, "npm pack %s@%s: %s", f.pkg.name, release, lastWords(said.String(), err))
	}
	found, _ := filepath.Glob(filepath.Join(tmp, "*.tgz")) // fails on a bad pattern only
	if len(found) != 1 {
		return "", unavailable(false, "npm pack %s@%s left %d packages", f.pkg.name, release, len(found))
	}
	return found[0], nil
}

// lastWords is npm's reason in one line.
func lastWords(said string, err error) string {
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(strings.TrimPrefix(line, "npm error"))
		if line != "" && !strings.HasPrefix(line, "code ") && !strings.Contains(line, "complete log") {
			return line
		}
	}
	return err.Error()
}

// treeBytes is the size of all files below dir, as far as they can be read.
func treeBytes(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

// integrity is the sha512 the tarball must have. Without a pin it is the one
// the registry publishes: that detects damage, not a registry that lies.
func (f *fetcher) integrity(ctx context.Context) (string, error) {
	if f.pkg.sha512 != "" {
		return f.pkg.sha512, nil
	}
	out, err := exec.CommandContext(ctx, f.npm, "view", f.pkg.name+"@"+release, "dist.integrity").Output()
	sum, ok := strings.CutPrefix(strings.TrimSpace(string(out)), "sha512-")
	if err != nil || !ok {
		return "", unavailable(false, "npm view %s@%s gives no sha512 (%v)", f.pkg.name, release, err)
	}
	return sum, nil
}

// extract copies the library out of the tarball and syncs it, and fails unless
// the whole tarball has the hash.
func (f *fetcher) extract(ctx context.Context, tarball, to, want string) error {
	in, err := os.Open(tarball)
	if err != nil {
		return unavailable(false, "package: %v", err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return unavailable(false, "package: %v", err)
	}
	sum := sha512.New()
	src := &meter{ctx: ctx, r: io.TeeReader(in, sum), total: info.Size(), progress: f.progress}
	extractErr := f.untar(bufio.NewReaderSize(src, 1<<20), to)
	if _, err := io.Copy(io.Discard, src); err != nil { // the hash is of all bytes
		return unavailable(false, "package: %v", err)
	}
	if got := base64.StdEncoding.EncodeToString(sum.Sum(nil)); got != want {
		return unavailable(true, "the package %s@%s is not the expected one (sha512 %s… instead of %s…)", f.pkg.name, release, got[:12], want[:min(12, len(want))])
	}
	if extractErr != nil {
		return unavailable(false, "package %s@%s: %v", f.pkg.name, release, extractErr)
	}
	return nil
}

// untar writes the one wanted file of a tar.gz to the path.
func (f *fetcher) untar(r io.Reader, to string) error {
	gz, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	files := tar.NewReader(gz)
	for {
		h, err := files.Next()
		if err == io.EOF {
			return errors.New("it has no libchdb")
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeReg && strings.HasPrefix(path.Clean(h.Name), "package/libchdb.") {
			return writeSynced(to, files)
		}
	}
}

func writeSynced(name string, r io.Reader) error {
	out, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, r)
	return errors.Join(err, out.Sync(), out.Close())
}

// meter is a reader that counts, and ends with its context.
type meter struct {
	ctx      context.Context // of one extract
	r        io.Reader
	n, total int64
	told     int64
	progress func(Progress)
}

// meterBytes is how often a meter tells: some ten times a second.
const meterBytes = 4 << 20

func (m *meter) Read(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.r.Read(p)
	m.n += int64(n)
	if m.n-m.told >= meterBytes || m.n == m.total {
		m.told = m.n
		m.progress(Progress{StageExtract, m.n, m.total})
	}
	return n, err
}
