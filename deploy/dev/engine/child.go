package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spillway/spillway/deploy/dev/engine/server"
)

const (
	// startTimeout bounds dlopen, which reads half a gigabyte from a cold disk,
	// and the opening of the tables.
	startTimeout = 2 * time.Minute
	// stopTimeout is how long a child may take after SIGTERM, its two drains
	// included; then it is killed. Acknowledged rows survive that.
	stopTimeout = 2*server.DrainTimeout + 2*time.Second
)

// child is one process that runs Serve. Owned by runChild.
type child struct {
	cmd    *exec.Cmd
	life   io.Closer     // its stdin: closed means stop
	ready  chan string   // its first line, if it says one; buffered, never closed
	exited chan struct{} // closed once it is reaped and err is set
	err    error
	last   string // last line of stderr; set before exited closes
}

// runChild runs one child from start to end and tells whether it was ready for
// soundAfter.
func (e *Engine) runChild(ctx context.Context, lib string) (sound bool, err error) {
	c, err := e.spawn(lib)
	if err != nil {
		return false, err
	}
	defer c.stop()
	if err := c.awaitReady(ctx); err != nil {
		return false, err
	}
	age := time.NewTimer(soundAfter)
	defer age.Stop()
	e.gate.pause()
	e.set(State{Phase: Ready, PID: c.cmd.Process.Pid})
	e.cfg.Logger.Info("ClickHouse engine ready", "addr", e.Addr(), "dir", e.cfg.Dir, "pid", c.cmd.Process.Pid)
	defer e.gate.resume() // before stop: who comes from now on hears why
	for {
		select {
		case <-age.C:
			sound = true
		case <-c.exited:
			e.set(State{Phase: Starting})
			return sound, c.failure()
		case <-ctx.Done():
			e.set(State{Phase: Stopped})
			return sound, ctx.Err()
		}
	}
}

// spawn starts a child in a process group of its own, so that Ctrl-C in the
// terminal reaches the parent, which stops its parts in order.
func (e *Engine) spawn(lib string) (*child, error) {
	listener, err := share(e.gate.l)
	if err != nil {
		return nil, fmt.Errorf("share the listener: %w", err)
	}
	defer listener.Close()
	args := slices.Concat(politely(), e.cfg.Command,
		[]string{"--lib", lib, "--dir", e.cfg.Dir, "--max-memory-bytes", strconv.FormatInt(e.cfg.MaxMemoryBytes, 10)})
	c := &child{cmd: exec.Command(args[0], args[1:]...), ready: make(chan string, 1), exited: make(chan struct{})}
	c.cmd.ExtraFiles = []*os.File{listener}
	ownGroup(c.cmd)
	life, err1 := c.cmd.StdinPipe()
	stdout, err2 := c.cmd.StdoutPipe()
	stderr, err3 := c.cmd.StderrPipe()
	if err := errors.Join(err1, err2, err3, c.cmd.Start()); err != nil {
		return nil, fmt.Errorf("start the engine's process: %w", err)
	}
	c.life = life
	var readers sync.WaitGroup
	readers.Go(func() { c.readStdout(stdout) })
	readers.Go(func() { c.readStderr(stderr, e) })
	go func() {
		readers.Wait() // Wait closes the pipes: all must be read before
		c.err = c.cmd.Wait()
		close(c.exited)
	}()
	return c, nil
}

// politely is the prefix of a command that yields the processor: merges of the
// engine must not delay events on their way to a socket. All of a process must
// be nice from its first thread on, hence the command; it keeps the process id.
func politely() []string {
	if nice, err := exec.LookPath("nice"); err == nil {
		return []string{nice, "-n", "5"}
	}
	return nil
}

// readStdout passes on the first line and drops the rest: the library may print.
func (c *child) readStdout(r io.Reader) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		line := lines.Text()
		if line == server.ReadyLine || strings.HasPrefix(line, server.FailedPrefix) {
			c.ready <- line
			break
		}
	}
	_, _ = io.Copy(io.Discard, r)
}

// readStderr logs the lines; one too long for a scanner ends the logging, not
// the reading.
func (c *child) readStderr(r io.Reader, e *Engine) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		c.last = lines.Text()
		e.cfg.Logger.Debug("ClickHouse engine says", "line", c.last)
	}
	_, _ = io.Copy(io.Discard, r)
}

// awaitReady waits for the child's word.
func (c *child) awaitReady(ctx context.Context) error {
	limit := time.NewTimer(startTimeout)
	defer limit.Stop()
	select {
	case line := <-c.ready:
		if reason, failed := strings.CutPrefix(line, server.FailedPrefix); failed {
			return errors.New(reason)
		}
		return nil
	case <-c.exited:
		select {
		case line := <-c.ready: // it spoke and went
			return errors.New(strings.TrimPrefix(line, server.FailedPrefix))
		default:
			return c.failure()
		}
	case <-limit.C:
		return fmt.Errorf("the engine's process did not start within %s", startTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// failure says why an exited child is gone.
func (c *child) failure() error {
	if c.err == nil {
		return errors.New("the engine's process ended by itself")
	}
	if c.last != "" {
		return fmt.Errorf("the engine's process ended: %w (its last words: %s)", c.err, c.last)
	}
	return fmt.Errorf("the engine's process ended: %w", c.err)
}

// stop ends the child and returns once it is reaped.
func (c *child) stop() {
	terminate(c.cmd.Process)
	_ = c.life.Close()
	limit := time.NewTimer(stopTimeout)
	defer limit.Stop()
	select {
	case <-c.exited:
	case <-limit.C:
		_ = c.cmd.Process.Kill()
		<-c.exited
	}
}
