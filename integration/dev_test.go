//go:build integration

package integration

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// devConfig says which `spillway dev` to start.
type devConfig struct {
	base  int  // --ports; 0: the usual ones
	roles bool // the roles as processes of their own, so that each can be killed
	args  []string
}

// devStack is one `spillway dev`.
type devStack struct {
	cfg   devConfig
	data  string
	where places
	roles *roleSet // nil: in dev's own process

	cmd    *exec.Cmd
	exited chan error
	ready  time.Duration // from start to "ready"
	out    lockedBuffer
}

// newDev starts a dev that keeps its data in a folder and waits until it is
// ready.
func newDev(data string, cfg devConfig) (stack, error) {
	d := &devStack{cfg: cfg, data: data}
	d.where = d.usual()
	if err := d.start(); err != nil {
		return nil, err
	}
	if !cfg.roles {
		return d, nil
	}
	procs, err := usualRoles(&d.where)
	if err != nil {
		return nil, errors.Join(err, d.Stop())
	}
	d.roles = newRoleSet(data, d.where, procs)
	if err := errors.Join(writePlaces(data, d.where), d.roles.run()); err != nil {
		return nil, errors.Join(err, d.Stop())
	}
	return d, nil
}

// usual are dev's addresses: --ports moves all of them.
func (d *devStack) usual() places {
	port := func(usual int) int {
		switch {
		case d.cfg.base == 0:
			return usual
		case usual == 8123:
			return d.cfg.base + 123
		}
		return d.cfg.base + usual%100
	}
	return places{
		Kafka: local(port(9092)), Registry: web(port(8081)), ClickHouse: web(port(8123)), Ingest: web(port(8080)),
		Fanout: "ws://" + local(port(8090)), Audit: web(port(8060)), Control: web(port(8070)), Admin: web(port(8099)),
	}
}

func (d *devStack) at() places { return d.where }

func (d *devStack) start() error {
	bin, err := built()
	if err != nil {
		return err
	}
	args := append([]string{"dev", "--data", d.data, "--ports", fmt.Sprint(d.cfg.base)}, d.cfg.args...)
	if d.cfg.roles {
		args = append(args, "--no-roles")
	}
	d.cmd, d.exited = exec.Command(bin, args...), make(chan error, 1)
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	d.cmd.Stderr = &d.out
	began := time.Now()
	if err := d.cmd.Start(); err != nil {
		return err
	}
	process := d.cmd.Process
	undo(func() { _ = process.Kill() }) // the suite is interrupted
	ready := make(chan struct{})
	go d.read(out, ready)
	select {
	case <-ready:
		d.ready = time.Since(began)
		return nil
	case err := <-d.exited:
		return fmt.Errorf("dev ended: %w\n%s", errors.Join(err), d.out.String())
	case <-time.After(60 * time.Second):
		_ = d.cmd.Process.Kill()
		return fmt.Errorf("dev is not ready after 60 s\n%s", d.out.String())
	}
}

func (d *devStack) read(out io.Reader, ready chan<- struct{}) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		fmt.Fprintln(&d.out, lines.Text())
		if ready != nil && strings.Contains(lines.Text(), "ready in") {
			close(ready)
			ready = nil
		}
	}
	d.exited <- d.cmd.Wait()
	close(d.exited)
}

// Kill: only roles that are processes of their own. The embedded broker does
// not promise to survive it.
func (d *devStack) Kill(part string) error {
	p, err := d.part(part)
	if err != nil {
		return err
	}
	return d.roles.kill(p)
}

func (d *devStack) Start(part string) error {
	p, err := d.part(part)
	if err != nil {
		return err
	}
	return d.roles.start(p)
}

func (d *devStack) part(name string) (*proc, error) {
	if d.roles != nil {
		if p := d.roles.proc(name); p != nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%s in dev: %w", name, errNotHere)
}

// Stop sends SIGTERM and expects an exit status of 0.
func (d *devStack) Stop() error {
	var errs []error
	if d.roles != nil {
		errs = append(errs, d.roles.stop())
	}
	if d.cmd.ProcessState != nil {
		return errors.Join(errs...)
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-d.exited:
		if err != nil {
			errs = append(errs, fmt.Errorf("dev ended with %w\n%s", err, tail(d.out.String())))
		}
	case <-time.After(60 * time.Second):
		_ = d.cmd.Process.Kill()
		errs = append(errs, fmt.Errorf("dev did not stop within 60 s of SIGTERM\n%s", tail(d.out.String())))
	}
	return errors.Join(errs...)
}
