//go:build integration

package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	tcnetwork "github.com/testcontainers/testcontainers-go/network"
	"github.com/testcontainers/testcontainers-go/wait"
)

// containersConfig says which parts to run in containers.
type containersConfig struct {
	brokers int               // 0: 1
	kafka   map[string]string // more of the broker's environment; wins
	files   []testcontainers.ContainerFile
	dress   func(*places) error // changes addresses before the roles learn them: a proxy in front of a part
	noRoles bool
}

// containersStack has Kafka, a registry and ClickHouse in containers, and the
// roles as processes of this machine.
type containersStack struct {
	engine  *client.Client
	network *testcontainers.DockerNetwork
	roles   *roleSet

	mu    sync.Mutex // while parts are being started
	where places
	parts map[string]testcontainers.Container
}

// image is the name of a part's image: from the environment, else from what
// `make images` built, else the public one.
func image(variable, public string) string {
	if name := os.Getenv(variable); name != "" {
		return name
	}
	text, _ := os.ReadFile("../deploy/images/local.env") // not there: the public one
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), variable+"="); ok {
			return name
		}
	}
	return public
}

func kafkaImage() string { return image("SPILLWAY_IMAGE_KAFKA", "apache/kafka:4.1.1") }
func registryImage() string {
	return image("SPILLWAY_IMAGE_REGISTRY", "apicurio/apicurio-registry:3.0.9")
}
func clickhouseImage() string {
	return image("SPILLWAY_IMAGE_CLICKHOUSE", "clickhouse/clickhouse-server:26.3")
}

// owner labels a container or network with the process that must remove it.
const owner = "spillway.integration.pid"

func labels() map[string]string { return map[string]string{owner: strconv.Itoa(os.Getpid())} }

// docker returns a client of the machine's container engine.
func docker(ctx context.Context) (*client.Client, error) {
	c, err := client.New(client.FromEnv)
	if err != nil {
		return nil, err
	}
	if _, err := c.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		return nil, fmt.Errorf("no container engine answers (%w): %w", errNoStack, err)
	}
	return c, nil
}

// sweep removes what an earlier run left that was killed before it could
// clean up.
func sweep() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := docker(ctx)
	if err != nil {
		return // nothing can be left either
	}
	defer c.Close()
	mine := make(client.Filters).Add("label", owner)
	left, err := c.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: mine})
	if err != nil {
		return
	}
	for _, l := range left.Items {
		if !running(l.Labels[owner]) {
			_, _ = c.ContainerRemove(ctx, l.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		}
	}
	nets, err := c.NetworkList(ctx, client.NetworkListOptions{Filters: mine})
	if err != nil {
		return
	}
	for _, n := range nets.Items {
		if !running(n.Labels[owner]) {
			_, _ = c.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{})
		}
	}
}

// running reports whether a process is there.
func running(pid string) bool {
	_, err := os.Stat("/proc/" + pid)
	return pid != "" && err == nil
}

// newContainers starts the parts, sets the deployment up and starts the roles.
func newContainers(data string, cfg containersConfig) (stack, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	s := &containersStack{parts: map[string]testcontainers.Container{}}
	undo(func() { _ = s.remove() })
	err := s.start(ctx, data, cfg)
	if err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func (s *containersStack) start(ctx context.Context, data string, cfg containersConfig) error {
	var err error
	if s.engine, err = docker(ctx); err != nil {
		return err
	}
	if s.network, err = tcnetwork.New(ctx, tcnetwork.WithLabels(labels())); err != nil {
		return err
	}
	began := make(chan error, 3)
	go func() { began <- s.startKafka(ctx, cfg) }()
	go func() { began <- s.startRegistry(ctx) }()
	go func() { began <- s.startClickHouse(ctx) }()
	if err := errors.Join(<-began, <-began, <-began); err != nil {
		return err
	}
	if cfg.dress != nil {
		if err := cfg.dress(&s.where); err != nil {
			return err
		}
	}
	if err := writeKeys(data); err != nil || cfg.noRoles {
		return errors.Join(err, writePlaces(data, s.where))
	}
	if err := s.setup(ctx, max(cfg.brokers, 1)); err != nil {
		return err
	}
	procs, err := usualRoles(&s.where)
	if err != nil {
		return err
	}
	s.roles = newRoleSet(data, s.where, procs)
	if err := errors.Join(writePlaces(data, s.where), s.roles.run()); err != nil {
		return err
	}
	return seed(ctx, data)
}

// part starts one container with its port bound to a port of this machine that
// stays the same when it is started again.
func (s *containersStack) part(ctx context.Context, name, img string, port, host int, more ...testcontainers.ContainerCustomizer) error {
	inside, err := network.ParsePort(strconv.Itoa(port))
	if err != nil {
		return err
	}
	opts := append([]testcontainers.ContainerCustomizer{
		testcontainers.WithLabels(labels()),
		testcontainers.WithExposedPorts(inside.String()),
		tcnetwork.WithNetwork([]string{name}, s.network),
		testcontainers.WithHostConfigModifier(func(h *container.HostConfig) {
			h.PortBindings = network.PortMap{inside: {{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: strconv.Itoa(host)}}}
		}),
	}, more...)
	c, err := testcontainers.Run(ctx, img, opts...)
	if c != nil {
		s.mu.Lock()
		s.parts[name] = c
		s.mu.Unlock()
	}
	if err != nil {
		if strings.Contains(err.Error(), "pull") || strings.Contains(err.Error(), "No such image") {
			return fmt.Errorf("%s: image %s: %w (make images builds one): %w", name, img, errNoStack, err)
		}
		return fmt.Errorf("%s: %w\n%s", name, err, logs(ctx, c))
	}
	return nil
}

// logs are the last lines that a container printed.
func logs(ctx context.Context, c *testcontainers.DockerContainer) string {
	if c == nil {
		return ""
	}
	r, err := c.Logs(ctx)
	if err != nil {
		return err.Error()
	}
	defer r.Close()
	text, _ := io.ReadAll(io.LimitReader(r, 10<<20)) // as much as there is
	return tail(string(text))
}

// startKafka starts one broker, kafka, or several: kafka-1, kafka-2, …
func (s *containersStack) startKafka(ctx context.Context, cfg containersConfig) error {
	n := max(cfg.brokers, 1)
	ports, err := freePorts(n)
	if err != nil {
		return err
	}
	names, voters, seeds := make([]string, n), make([]string, n), make([]string, n)
	for i := range n {
		names[i] = "kafka"
		if n > 1 {
			names[i] = fmt.Sprintf("kafka-%d", i+1)
		}
		voters[i], seeds[i] = fmt.Sprintf("%d@%s:9093", i+1, names[i]), local(ports[i])
	}
	began := make(chan error, n)
	for i := range n {
		env := map[string]string{
			"KAFKA_NODE_ID":                                  strconv.Itoa(i + 1),
			"CLUSTER_ID":                                     "c3BpbGx3YXktdGVzdHM0MA", // any, the same on all
			"KAFKA_PROCESS_ROLES":                            "broker,controller",
			"KAFKA_CONTROLLER_QUORUM_VOTERS":                 strings.Join(voters, ","),
			"KAFKA_CONTROLLER_LISTENER_NAMES":                "CONTROLLER",
			"KAFKA_LISTENERS":                                "HOST://:9092,INTERNAL://:19092,CONTROLLER://:9093",
			"KAFKA_ADVERTISED_LISTENERS":                     fmt.Sprintf("HOST://%s,INTERNAL://%s:19092", seeds[i], names[i]),
			"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP":           "HOST:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
			"KAFKA_INTER_BROKER_LISTENER_NAME":               "INTERNAL",
			"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR":         strconv.Itoa(n),
			"KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS":             "5", // 50 of them are slow to make
			"KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": strconv.Itoa(n),
			"KAFKA_TRANSACTION_STATE_LOG_MIN_ISR":            strconv.Itoa(min(n, 2)),
			"KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS":     "5",
			"KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS":         "0",
			"KAFKA_ADD_PARTITIONS_TO_TXN_RETRY_BACKOFF_MS":   "2", // as in docker-compose.yml
			"KAFKA_AUTO_CREATE_TOPICS_ENABLE":                "false",
			"KAFKA_HEAP_OPTS":                                "-Xms512m -Xmx512m",
		}
		maps.Copy(env, cfg.kafka)
		go func() {
			began <- s.part(ctx, names[i], kafkaImage(), 9092, ports[i], testcontainers.WithEnv(env), testcontainers.WithFiles(cfg.files...),
				testcontainers.WithWaitStrategyAndDeadline(2*time.Minute, wait.ForLog("Kafka Server started")))
		}()
	}
	var errs []error
	for range n {
		errs = append(errs, <-began)
	}
	s.mu.Lock()
	s.where.Kafka = strings.Join(seeds, ",")
	s.mu.Unlock()
	return errors.Join(errs...)
}

func (s *containersStack) startRegistry(ctx context.Context) error {
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.where.Registry = web(ports[0]) + "/apis/ccompat/v7"
	s.mu.Unlock()
	return s.part(ctx, "registry", registryImage(), 8080, ports[0],
		testcontainers.WithWaitStrategyAndDeadline(2*time.Minute, answers(web(ports[0])+"/apis/ccompat/v7/subjects")))
}

// What ClickHouse's own user is called in the container.
const clickhouseUser, clickhousePassword = "spillway", "a-password"

func (s *containersStack) startClickHouse(ctx context.Context) error {
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.where.ClickHouse = fmt.Sprintf("http://%s:%s@%s", clickhouseUser, clickhousePassword, local(ports[0]))
	s.mu.Unlock()
	return s.part(ctx, "clickhouse", clickhouseImage(), 8123, ports[0],
		testcontainers.WithEnv(map[string]string{"CLICKHOUSE_USER": clickhouseUser, "CLICKHOUSE_PASSWORD": clickhousePassword, "CLICKHOUSE_DEFAULT_ACCESS_MANAGEMENT": "1"}),
		testcontainers.WithWaitStrategyAndDeadline(2*time.Minute, answers(web(ports[0])+"/ping")))
}

// answers waits until an address of this machine answers 200. The package's own
// wait for HTTP asks the engine's idea of this machine, where no port is bound.
func answers(url string) wait.Strategy {
	return wait.ForNop(func(ctx context.Context, _ wait.StrategyTarget) error {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return err
			}
			resp, err := http.DefaultClient.Do(req)
			if err == nil {
				resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					return nil
				}
				err = errors.New(resp.Status)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fmt.Errorf("%s does not answer: %w", url, err)
			}
		}
	})
}

// setup does what an operator does first.
func (s *containersStack) setup(ctx context.Context, brokers int) error {
	bin, err := built()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, bin, "setup", "--kafka-brokers", s.where.Kafka, "--registry-url", s.where.Registry,
		"--clickhouse-url", s.where.ClickHouse, "--replication", strconv.Itoa(brokers), "--min-isr", strconv.Itoa(min(brokers, 2)), "--open")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("setup: %w\n%s", err, out)
	}
	return nil
}

// seed makes the tenants and schemas that `spillway dev` has.
func seed(ctx context.Context, data string) error {
	bin, err := built()
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"apply", "-f", "testdata/tenants.yaml"},
		{"schemas", "register", "../schemas/demo.message.avsc"},
		{"schemas", "register", "../schemas/ai.inference.request.avsc"},
		{"schemas", "register", "../schemas/ai.inference.token_delta.avsc"},
		{"schemas", "register", "../schemas/ai.inference.completed.avsc"},
	} {
		cmd := exec.CommandContext(ctx, bin, args...)
		cmd.Env = append(os.Environ(), "SPILLWAY_DATA="+data)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("spillway %s: %w\n%s", strings.Join(args, " "), err, out.String())
		}
	}
	return nil
}

func (s *containersStack) at() places { return s.where }

func (s *containersStack) Kill(part string) error {
	if s.roles != nil {
		if p := s.roles.proc(part); p != nil {
			return s.roles.kill(p)
		}
	}
	c := s.parts[part]
	if c == nil {
		return fmt.Errorf("%s in containers: %w", part, errNotHere)
	}
	_, err := s.engine.ContainerKill(context.Background(), c.GetContainerID(), client.ContainerKillOptions{Signal: "KILL"})
	return err
}

func (s *containersStack) Start(part string) error {
	if s.roles != nil {
		if p := s.roles.proc(part); p != nil {
			return s.roles.start(p)
		}
	}
	c := s.parts[part]
	if c == nil {
		return fmt.Errorf("%s in containers: %w", part, errNotHere)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return c.Start(ctx) // waits as at the first start
}

func (s *containersStack) Stop() error {
	var errs []error
	if s.roles != nil {
		errs = append(errs, s.roles.stop())
	}
	return errors.Join(append(errs, s.remove())...)
}

// remove removes the containers, and the network behind them.
func (s *containersStack) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.parts)) {
		_, err := s.engine.ContainerRemove(ctx, s.parts[name].GetContainerID(), client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		errs = append(errs, err)
	}
	clear(s.parts)
	if s.network != nil {
		errs = append(errs, s.network.Remove(ctx))
		s.network = nil
	}
	return errors.Join(errs...)
}
