//go:build integration

package integration

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// told is how each story went so far, by story and kind.
var told = struct {
	sync.Mutex
	stories []string
	by      map[string]map[string]string
	why     map[string]string // of each test that was skipped, by its name
}{by: map[string]map[string]string{}, why: map[string]string{}}

// on has the table of the end say how this test went on a kind of stack. The
// story is the test's name without the kind.
func on(t *testing.T, kind string) {
	t.Helper()
	story := strings.Trim(strings.Replace("/"+t.Name()+"/", "/"+kind+"/", "/", 1), "/")
	began := time.Now()
	told.Lock()
	defer told.Unlock()
	if told.by[story] == nil {
		told.stories = append(told.stories, story)
		told.by[story] = map[string]string{}
	}
	told.by[story][kind] = "cut off"
	t.Cleanup(func() {
		told.Lock()
		defer told.Unlock() // keepTable's too
		told.by[story][kind] = fmt.Sprintf("passed %.0f s", time.Since(began).Seconds())
		switch {
		case t.Failed():
			told.by[story][kind] = "FAILED"
		case t.Skipped():
			told.by[story][kind] = "skipped"
			told.why[t.Name()] = cmp.Or(told.why[t.Name()], "see the log")
		}
		if err := keepTable(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	})
}

// skip skips a test with a reason that the table shows.
func skip(t *testing.T, why string) {
	t.Helper()
	told.Lock()
	told.why[t.Name()] = why
	told.Unlock()
	t.Skip(why)
}

// writeTable prints story × stack, and why what was skipped was, also tests
// that are no row. told is locked.
func writeTable(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%-44s", "story")
	for _, k := range kinds {
		fmt.Fprintf(&b, " %-14s", k.name)
	}
	for _, story := range told.stories {
		fmt.Fprintf(&b, "\n%-44s", story)
		for _, k := range kinds {
			o := cmp.Or(told.by[story][k.name], "-")
			fmt.Fprintf(&b, " %-14s", o)
		}
	}
	b.WriteString("\n-: the story is about another kind of stack\n")
	for _, name := range slices.Sorted(maps.Keys(told.why)) {
		fmt.Fprintf(&b, "skipped %s: %s\n", name, told.why[name])
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// undone is what must be undone before the process ends, also if it is
// interrupted: last first.
var undone struct {
	sync.Mutex
	list []func()
}

// undo has f called before the process ends.
func undo(f func()) {
	undone.Lock()
	defer undone.Unlock()
	undone.list = append(undone.list, f)
}

// undoAll holds the lock to its end: who comes second, at the end of the tests
// or with a signal, waits until all is undone.
func undoAll() {
	undone.Lock()
	defer undone.Unlock()
	for _, f := range slices.Backward(undone.list) {
		f()
	}
	undone.list = nil
}

func TestMain(m *testing.M) {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() { // lives as long as the process
		<-interrupted
		fmt.Fprintln(os.Stderr, "interrupted: stopping what was started")
		undoAll()
		os.Exit(130)
	}()
	_ = os.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true") // this suite cleans up itself: see undo and sweep
	sweep()
	code := m.Run()
	for _, k := range slices.Backward(kinds) {
		if s := common.sites[k.name]; s != nil {
			if err := s.Stop(); err != nil {
				fmt.Fprintf(os.Stderr, "FAILED: stop %s: %v\n", k.name, err)
				code = max(code, 1)
			}
		}
	}
	undoAll()
	told.Lock()
	if err := errors.Join(writeTable(os.Stdout), keepTable()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	told.Unlock()
	os.Exit(code)
}

// keepTable writes the table to the file that SPILLWAY_STORIES_FILE names, after
// each story: who looks there sees how far the suite is, and what it came to if
// it is cut off. told is locked.
func keepTable() error {
	name := os.Getenv("SPILLWAY_STORIES_FILE")
	if name == "" {
		return nil
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(writeTable(f), f.Close())
}
