//go:build integration

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// A stack is everything between a producer and a subscriber, on one kind of
// parts. A story is the same on each kind:
//
//	dev         `spillway dev`: embedded parts, roles in one process or in their own
//	containers  Apache Kafka, a registry and ClickHouse in containers, roles as processes
//	compose     docker-compose.yml, roles in containers too
//
// Parts are named kafka (kafka-1 … kafka-3 where there are three), registry,
// clickhouse, and as their role.
type stack interface {
	// at says where everything is.
	at() places
	// Kill ends a part with SIGKILL. It returns errNotHere, wrapped, if this
	// stack cannot kill that part alone.
	Kill(part string) error
	// Start starts again what Kill ended and returns when it is ready.
	Start(part string) error
	// Stop ends all parts in order, expects them to end cleanly, and removes
	// what they left.
	Stop() error
}

// errNotHere means that a stack has no such part that it could kill.
var errNotHere = errors.New("this stack cannot kill it alone")

// places are a stack's addresses, as `spillway dev` writes them to dev.json
// for a person's commands.
type places struct {
	Kafka      string `json:"kafka"`
	Registry   string `json:"registry"`
	ClickHouse string `json:"clickhouse"`
	Ingest     string `json:"ingest"`
	Fanout     string `json:"fanout"`
	Audit      string `json:"audit"`
	Control    string `json:"control"`
	Admin      string `json:"admin"`
}

// A site is a stack as its users meet it: the built binary and a folder with
// addresses and keys.
type site struct {
	stack
	kind      string // dev, containers, compose
	bin, data string
}

// writePlaces makes the folder that a person's commands read where no flag
// says else.
func writePlaces(data string, p places) error {
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(data, "dev.json"), text, 0o600)
}

// kinds are the stacks that stories run on. Each start returns errNoStack,
// wrapped, if this machine has not what it needs.
var kinds = []struct {
	name  string
	start func(data string) (stack, error)
}{
	{"dev", func(data string) (stack, error) { return newDev(data, devConfig{}) }},
	{"containers", func(data string) (stack, error) { return newContainers(data, containersConfig{}) }},
	{"compose", func(data string) (stack, error) { return newCompose(data) }},
}

// errNoStack means that this machine cannot run a kind of stack.
var errNoStack = errors.New("not on this machine")

// common are the stacks that the whole package shares: one of each kind, made
// when the first story needs it.
var common = struct {
	sync.Mutex
	sites  map[string]*site
	failed map[string]error
}{sites: map[string]*site{}, failed: map[string]error{}}

// onEach runs a story on each kind of stack that this machine offers.
func onEach(t *testing.T, story func(*testing.T, *site)) {
	t.Helper()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			on(t, k.name)
			story(t, shared(t, k.name))
		})
	}
}

// shared is the package's one stack of a kind; without one the test is skipped
// and says why, or fails where every kind must be there (CI=true).
func shared(t *testing.T, kind string) *site {
	t.Helper()
	common.Lock()
	defer common.Unlock()
	if s := common.sites[kind]; s != nil {
		return s
	}
	if err := common.failed[kind]; err != nil {
		absent(t, err)
	}
	s, err := startShared(t, kind)
	if err != nil {
		common.failed[kind] = err
		absent(t, err)
	}
	common.sites[kind] = s
	return s
}

func absent(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, errNoStack) && os.Getenv("CI") == "" {
		skip(t, err.Error())
	}
	t.Fatal(err)
}

func startShared(t *testing.T, kind string) (*site, error) {
	for _, k := range kinds {
		if k.name != kind {
			continue
		}
		data, err := os.MkdirTemp("", "spillway-"+kind)
		if err != nil {
			return nil, err
		}
		undo(func() { _ = os.RemoveAll(data) })
		s, err := k.start(data)
		if err != nil {
			return nil, err
		}
		return &site{stack: s, kind: kind, bin: builtBinary(t), data: data}, nil
	}
	return nil, fmt.Errorf("no kind of stack is called %q", kind)
}

// own is a stack for one test alone, stopped at its end.
func own(t *testing.T, kind string, start func(data string) (stack, error)) *site {
	t.Helper()
	data := t.TempDir()
	s, err := start(data)
	if err != nil {
		absent(t, err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return &site{stack: s, kind: kind, bin: builtBinary(t), data: data}
}

func builtBinary(t testing.TB) string {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// built is the built one.
func built() (string, error) {
	bin, err := filepath.Abs("../spillway")
	if err == nil {
		_, err = os.Stat(bin)
	}
	if err != nil {
		return "", fmt.Errorf("%w: run make build", err)
	}
	return bin, nil
}

// freePorts asks the system for ports that nobody has.
func freePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // held until all are chosen: they differ
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func web(port int) string { return "http://" + local(port) }
