//go:build integration

package integration

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// roleSet are roles that run as processes of their own.
type roleSet struct {
	env   []string
	procs []*proc // in the order in which they are started
}

// A proc is one role's process.
type proc struct {
	name  string // also of the part: fanout-2 is the role fanout
	args  []string
	admin int

	cmd *exec.Cmd
	out lockedBuffer
}

// lockedBuffer keeps what processes print, for whoever asks meanwhile.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// usualRoles are one of each role, on free ports, for parts at p; it fills in
// p's addresses of the roles.
func usualRoles(p *places) ([]*proc, error) {
	ports, err := freePorts(10)
	if err != nil {
		return nil, err
	}
	p.Control, p.Audit, p.Fanout, p.Ingest = web(ports[0]), web(ports[1]), "ws://"+local(ports[2]), web(ports[3])
	p.Admin = web(ports[9])
	return []*proc{
		{name: "control", admin: ports[4], args: []string{"control", "--listen", local(ports[0]), "--open"}},
		{name: "audit", admin: ports[5], args: []string{"audit", "--listen", local(ports[1]), "--clickhouse-url", p.ClickHouse, "--migrate"}},
		{name: "fanout", admin: ports[6], args: []string{"fanout", "--listen", local(ports[2]), "--ingest-url", p.Ingest, "--drain-timeout", "1s"}},
		{name: "delay", admin: ports[7], args: []string{"delay"}},
		{name: "route", admin: ports[8], args: []string{"route"}},
		{name: "ingest", admin: ports[9], args: []string{"ingest", "--listen", local(ports[3])}},
	}, nil
}

func newRoleSet(data string, p places, procs []*proc) *roleSet {
	return &roleSet{procs: procs, env: append(os.Environ(),
		"SPILLWAY_KAFKA_BROKERS="+p.Kafka, "SPILLWAY_REGISTRY_URL="+p.Registry,
		"SPILLWAY_AUTH_KEYS="+filepath.Join(data, "keys.json"), "SPILLWAY_NODE=node-1")}
}

func (r *roleSet) proc(name string) *proc {
	for _, p := range r.procs {
		if p.name == name {
			return p
		}
	}
	return nil
}

// run starts all and waits until each is ready.
func (r *roleSet) run() error {
	for _, p := range r.procs {
		if err := r.start(p); err != nil {
			return err
		}
	}
	return nil
}

func (r *roleSet) start(p *proc) error {
	bin, err := built()
	if err != nil {
		return err
	}
	p.cmd = exec.Command(bin, append(slices.Clone(p.args), "--admin-listen", local(p.admin))...)
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = r.env, &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		return err
	}
	process := p.cmd.Process
	undo(func() { _ = process.Kill() }) // the suite is interrupted
	return ready(p)
}

// ready waits until a process says that it can do its work, 60 s at most.
func ready(p *proc) error {
	client := &http.Client{Timeout: time.Second}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(60 * time.Second)
	for {
		resp, err := client.Get(web(p.admin) + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			return fmt.Errorf("%s is not ready after 60 s:\n%s", p.name, tail(p.out.String()))
		}
	}
}

func (r *roleSet) kill(p *proc) error {
	if err := p.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = p.cmd.Wait() // it was killed, and says so
	return nil
}

// stop ends all with SIGTERM, last started first, and expects exit status 0.
func (r *roleSet) stop() error {
	var errs []error
	for _, p := range slices.Backward(r.procs) {
		if p.cmd == nil || p.cmd.ProcessState != nil {
			continue
		}
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(60*time.Second, func() { _ = p.cmd.Process.Kill() })
		if err := p.cmd.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("%s ended with %w\n%s", p.name, err, tail(p.out.String())))
		}
		timer.Stop()
	}
	return errors.Join(errs...)
}

// writeKeys makes the key that a site's tokens are signed with.
func writeKeys(data string) error {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	b64 := base64.RawURLEncoding.EncodeToString
	text, err := json.Marshal(map[string]any{"keys": []map[string]string{{
		"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "site", "x": b64(public), "d": b64(private.Seed()),
	}}})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(data, "keys.json"), text, 0o600)
}

func tail(s string) string { return s[max(0, len(s)-4000):] }
