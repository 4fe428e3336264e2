//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// composeStack is docker-compose.yml on ports of its own: the parts and every
// role in containers, two fan-out nodes in each of two regions.
type composeStack struct {
	engine  *client.Client
	command []string // docker compose, or docker-compose
	project string
	env     []string
	where   places

	skipped []string      // services whose image this machine has not
	ready   time.Duration // from `up` to the last one healthy
	removed sync.Once
}

// A composePart is a service and what a person may set about it.
type composePart struct {
	service, image, public string
	needed                 bool
	port                   string // the variable of its published port
}

// composeParts are the services, in the order in which they start.
var composeParts = []composePart{
	{"kafka", "SPILLWAY_IMAGE_KAFKA", "apache/kafka:4.1.1", true, "SPILLWAY_PORT_KAFKA"},
	{"registry", "SPILLWAY_IMAGE_REGISTRY", "apicurio/apicurio-registry:3.0.9", true, "SPILLWAY_PORT_REGISTRY"},
	{"clickhouse", "SPILLWAY_IMAGE_CLICKHOUSE", "clickhouse/clickhouse-server:26.3", true, "SPILLWAY_PORT_CLICKHOUSE"},
	{"control", "SPILLWAY_IMAGE", "spillway/spillway:latest", true, "SPILLWAY_PORT_CONTROL"},
	{"audit", "SPILLWAY_IMAGE", "spillway/spillway:latest", true, "SPILLWAY_PORT_AUDIT"},
	{"fanout-eu-1", "SPILLWAY_IMAGE", "spillway/spillway:latest", true, "SPILLWAY_PORT_FANOUT_EU_1"},
	{"fanout-eu-2", "SPILLWAY_IMAGE", "spillway/spillway:latest", true, "SPILLWAY_PORT_FANOUT_EU_2"},
	{"fanout-us-1", "SPILLWAY_IMAGE", "spillway/spillway:latest", true, "SPILLWAY_PORT_FANOUT_US_1"},
	{"fanout-us-2", "SPILLWAY_IMAGE", "spillway/spillway:latest", true, "SPILLWAY_PORT_FANOUT_US_2"},
	{"delay", "SPILLWAY_IMAGE", "spillway/spillway:latest", true, ""},
	{"route", "SPILLWAY_IMAGE", "spillway/spillway:latest", true, ""},
	{"ingest", "SPILLWAY_IMAGE", "spillway/spillway:latest", true, "SPILLWAY_PORT_INGEST"},
	{"prometheus", "SPILLWAY_IMAGE_PROMETHEUS", "prom/prometheus:v3.5.0", false, "SPILLWAY_PORT_PROMETHEUS"},
	{"grafana", "SPILLWAY_IMAGE_GRAFANA", "grafana/grafana:12.2.0", false, "SPILLWAY_PORT_GRAFANA"},
}

func newCompose(data string) (stack, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	engine, err := docker(ctx)
	if err != nil {
		return nil, err
	}
	s := &composeStack{engine: engine, project: fmt.Sprintf("spillway-it-%d", os.Getpid())}
	if s.command, err = composeCommand(ctx); err != nil {
		return nil, err
	}
	s.sweepVolumes(ctx)
	services, err := s.configure(ctx, data)
	if err != nil {
		return nil, err
	}
	undo(s.remove)
	began := time.Now()
	if out, err := s.compose(ctx, append([]string{"up", "-d", "--no-build"}, services...)...); err != nil {
		return nil, errors.Join(fmt.Errorf("compose up: %w\n%s\n%s", err, tail(out), s.logs("setup")), s.Stop())
	}
	if err := s.healthy(ctx, 2*time.Minute, services...); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	s.ready = time.Since(began)
	if err := seed(ctx, data); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// composeCommand is the plugin, or the program of its own that came before it.
func composeCommand(ctx context.Context) ([]string, error) {
	for _, c := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		if exec.CommandContext(ctx, c[0], append(c[1:], "version")...).Run() == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("neither docker compose nor docker-compose is installed: %w", errNoStack)
}

// configure gives the stack images, free ports and secrets of its own, and
// returns the services that this machine can run.
func (s *composeStack) configure(ctx context.Context, data string) ([]string, error) {
	ports, err := freePorts(len(composeParts))
	if err != nil {
		return nil, err
	}
	port, services := map[string]int{}, []string{}
	s.env = append(os.Environ(), "COMPOSE_PROJECT_NAME="+s.project, "SPILLWAY_OPEN=true",
		"SPILLWAY_SECRETS="+filepath.Join(data, "secrets"), "COMPOSE_FILE=docker-compose.yml:"+filepath.Join(data, "override.yml"))
	for i, p := range composeParts {
		name := image(p.image, p.public)
		s.env = append(s.env, p.image+"="+name)
		port[p.service] = ports[i]
		if p.port != "" {
			s.env = append(s.env, fmt.Sprintf("%s=%d", p.port, ports[i]))
		}
		if _, err := s.engine.ImageInspect(ctx, name); err == nil {
			services = append(services, p.service)
		} else if p.needed {
			return nil, fmt.Errorf("%s: image %s is not here (make images builds one): %w", p.service, name, errNoStack)
		} else {
			s.skipped = append(s.skipped, fmt.Sprintf("%s: image %s is not here", p.service, name))
		}
	}
	if err := s.writeFiles(ctx, data); err != nil {
		return nil, err
	}
	password, err := os.ReadFile(filepath.Join(data, "secrets", "clickhouse_password"))
	if err != nil {
		return nil, err
	}
	s.where = places{
		Kafka: local(port["kafka"]), Registry: web(port["registry"]) + "/apis/ccompat/v7",
		ClickHouse: fmt.Sprintf("http://spillway:%s@%s", strings.TrimSpace(string(password)), local(port["clickhouse"])),
		Ingest:     web(port["ingest"]), Fanout: "ws://" + local(port["fanout-eu-1"]),
		Audit: web(port["audit"]), Control: web(port["control"]),
	}
	return services, writePlaces(data, s.where)
}

// writeFiles makes the secrets as an operator does, and the labels by which a
// later run finds what this one left.
func (s *composeStack) writeFiles(ctx context.Context, data string) error {
	secrets := filepath.Join(data, "secrets")
	if out, err := exec.CommandContext(ctx, "../deploy/compose/secrets.sh", secrets).CombinedOutput(); err != nil {
		return fmt.Errorf("secrets.sh: %w\n%s", err, out)
	}
	keys, err := os.ReadFile(filepath.Join(secrets, "keys.json"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(data, "keys.json"), keys, 0o600); err != nil {
		return err
	}
	label := map[string]any{"labels": labels()}
	services := map[string]any{"setup": label}
	for _, p := range composeParts {
		services[p.service] = label
	}
	text, err := json.Marshal(map[string]any{ // JSON is YAML
		"services": services, "networks": map[string]any{"default": label},
		"volumes": map[string]any{"kafka": label, "clickhouse": label, "prometheus": label, "grafana": label},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(data, "override.yml"), text, 0o600)
}

// compose runs a command on this stack.
func (s *composeStack) compose(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.command[0], append(slices.Clone(s.command[1:]), args...)...)
	cmd.Dir, cmd.Env = "..", s.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *composeStack) logs(services ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, _ := s.compose(ctx, append([]string{"logs", "--no-color", "--tail", "30"}, services...)...)
	return tail(out)
}

// containers are the stack's containers, by service.
func (s *composeStack) containers(ctx context.Context) (map[string]container.InspectResponse, error) {
	mine := make(client.Filters).Add("label", "com.docker.compose.project="+s.project)
	list, err := s.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: mine})
	if err != nil {
		return nil, err
	}
	out := map[string]container.InspectResponse{}
	for _, c := range list.Items {
		found, err := s.engine.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
		if err != nil {
			return nil, err
		}
		out[c.Labels["com.docker.compose.service"]] = found.Container
	}
	return out, nil
}

// healthy waits until services say so themselves.
func (s *composeStack) healthy(ctx context.Context, most time.Duration, services ...string) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		all, err := s.containers(ctx)
		if err != nil {
			return err
		}
		left := slices.DeleteFunc(slices.Clone(services), func(name string) bool {
			st := all[name].State
			return st != nil && st.Health != nil && st.Health.Status == container.Healthy
		})
		if len(left) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not healthy within %s: %s\n%s", most, strings.Join(left, ", "), s.logs(left...))
		}
	}
}

func (s *composeStack) at() places { return s.where }

// service is the service that a story means by a part's name.
func (s *composeStack) service(part string) (string, error) {
	switch part {
	case "fanout", "fanout-1":
		return "fanout-eu-1", nil
	case "fanout-2":
		return "fanout-eu-2", nil
	}
	for _, p := range composeParts {
		if p.service == part {
			return part, nil
		}
	}
	return "", fmt.Errorf("%s in compose: %w", part, errNotHere)
}

func (s *composeStack) find(ctx context.Context, part string) (service, id string, err error) {
	if service, err = s.service(part); err != nil {
		return "", "", err
	}
	all, err := s.containers(ctx)
	if err == nil && all[service].ID == "" {
		err = fmt.Errorf("%s in compose: %w", part, errNotHere)
	}
	return service, all[service].ID, err
}

// Kill: the engine starts a container again that ends by itself, but not one
// that it was told to kill.
func (s *composeStack) Kill(part string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, id, err := s.find(ctx, part)
	if err != nil {
		return err
	}
	_, err = s.engine.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: "KILL"})
	return err
}

func (s *composeStack) Start(part string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	service, id, err := s.find(ctx, part)
	if err != nil {
		return err
	}
	if _, err := s.engine.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return err
	}
	return s.healthy(ctx, 2*time.Minute, service)
}

// endsBefore is how a stack must end: who takes events first, Kafka last.
var endsBefore = [][2]string{
	{"ingest", "route"},
	{"route", "delay"},
	{"delay", "fanout-eu-1"},
	{"delay", "fanout-eu-2"},
	{"delay", "fanout-us-1"},
	{"delay", "fanout-us-2"},
	{"fanout-eu-1", "audit"},
	{"fanout-eu-2", "audit"},
	{"fanout-us-1", "audit"},
	{"fanout-us-2", "audit"},
	{"audit", "control"},
	{"audit", "clickhouse"},
	{"control", "kafka"},
	{"control", "registry"},
}

// Stop sends SIGTERM to all in their order, as `down` does, looks at how they
// ended, and removes them.
func (s *composeStack) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	defer s.remove()
	before, err := s.containers(ctx)
	if err != nil {
		return err
	}
	if out, err := s.compose(ctx, "stop"); err != nil {
		return fmt.Errorf("compose stop: %w\n%s", err, tail(out))
	}
	after, err := s.containers(ctx)
	if err != nil {
		return err
	}
	var errs []error
	ended := map[string]time.Time{} // of those that ran until now: a test may have killed others
	for name, b := range before {
		if b.State == nil || !b.State.Running {
			continue
		}
		st := after[name].State
		jvm := (name == "kafka" || name == "registry") && st.ExitCode == 143 // how a JVM obeys SIGTERM
		if st.ExitCode != 0 && !jvm {
			errs = append(errs, fmt.Errorf("%s ended with %d, want 0\n%s", name, st.ExitCode, s.logs(name)))
		}
		if ended[name], err = time.Parse(time.RFC3339Nano, st.FinishedAt); err != nil {
			errs = append(errs, err)
		}
	}
	for _, pair := range endsBefore {
		first, second := ended[pair[0]], ended[pair[1]]
		if !first.IsZero() && !second.IsZero() && second.Before(first) {
			errs = append(errs, fmt.Errorf("%s ended %s before %s", pair[1], first.Sub(second), pair[0]))
		}
	}
	return errors.Join(errs...)
}

// remove leaves nothing: no container, network or volume.
func (s *composeStack) remove() {
	s.removed.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if out, err := s.compose(ctx, "down", "-v", "--remove-orphans", "-t", "5"); err != nil {
			fmt.Fprintf(os.Stderr, "compose down: %v\n%s", err, out)
		}
		_ = s.engine.Close()
	})
}

// sweepVolumes removes the volumes of an earlier run that was killed; sweep
// has removed its containers.
func (s *composeStack) sweepVolumes(ctx context.Context) {
	list, err := s.engine.VolumeList(ctx, client.VolumeListOptions{Filters: make(client.Filters).Add("label", owner)})
	if err != nil {
		return
	}
	for _, v := range list.Items {
		if !running(v.Labels[owner]) {
			_, _ = s.engine.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{})
		}
	}
}
