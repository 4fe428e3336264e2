package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/control"
	"github.com/spillway/spillway/control/admin"
	"github.com/spillway/spillway/control/keys"
	"github.com/spillway/spillway/deploy/dev"
	"github.com/spillway/spillway/deploy/dev/engine"
	"github.com/spillway/spillway/fanout"
	"github.com/spillway/spillway/ingest"
	"github.com/spillway/spillway/processors/audit"
	"github.com/spillway/spillway/processors/delay"
	"github.com/spillway/spillway/processors/route"
	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/compat"
	"github.com/spillway/spillway/schemas/registry"
)

// clusterFlags say where the parts are that roles and people meet at.
type clusterFlags struct {
	KafkaBrokers []string `default:"127.0.0.1:9092" help:"Kafka bootstrap servers."`
	TopicPrefix  string   `default:"spillway." help:"What topic names begin with."`
	RegistryURL  []string `default:"http://127.0.0.1:8081" name:"registry-url" help:"Schema registry, Confluent-compatible."`
}

// roleFlags are those every role has.
type roleFlags struct {
	clusterFlags
	AdminListen string `default:"127.0.0.1:8099" help:"Health, readiness and metrics; keep it on loopback."`
	Node        string `help:"This process's name in the audit; default: the host's name."`
	LogLevel    string `default:"info" enum:"debug,info,warn,error" help:"Least severe line that is logged."`
	LogFormat   string `default:"text" enum:"text,json" help:"How log lines look."`
}

// A process is what the roles of one process share: dev runs them all in one.
//
//	start: control … ingest        stop, one after the other: ingest … control
//
// A part that ends by itself ends the process; what was started later is
// stopped first, so what was accepted is still decided, delivered and audited.
type process struct {
	flags   roleFlags
	log     *slog.Logger
	metrics *prometheus.Registry
	admin   *admin.Server
	ctx     context.Context // ends when the parts shall stop
	end     context.CancelCauseFunc
	parts   []part // in the order in which they were started

	follower *control.Follower // see follow
	schemas  *registry.Client  // see registry
	keys     *keys.Ring        // see ring
}

// A part runs until its stop is called.
type part struct {
	stop context.CancelFunc
	done chan error // its end; closed
}

// newProcess opens the admin port and returns the process that roles are
// added to.
func newProcess(ctx context.Context, f roleFlags, logs io.Writer) (*process, error) {
	f.Node = cmp.Or(f.Node, hostname())
	p := &process{flags: f, log: logger(f, logs), metrics: prometheus.NewRegistry()}
	p.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	p.admin = admin.New(build(), p.metrics)
	p.ctx, p.end = context.WithCancelCause(ctx)
	l, err := listen(f.AdminListen, "--admin-listen")
	if err != nil {
		return nil, err
	}
	p.run("admin", func(ctx context.Context) error { return p.admin.Run(ctx, l) })
	return p, nil
}

// role is what every layer gives its wiring.
type role interface {
	Run(ctx context.Context) error
	Ready() error
}

// start runs r as part of the process.
func (p *process) start(name string, r role) {
	p.admin.Check(name, r.Ready)
	p.run(name, r.Run)
}

// run runs a part until it is its turn to stop.
func (p *process) run(name string, run func(context.Context) error) {
	ctx, stop := context.WithCancel(context.WithoutCancel(p.ctx))
	done := make(chan error, 1)
	go func() {
		defer close(done)
		err := run(ctx)
		switch {
		case ctx.Err() == nil && err == nil:
			err = errors.New("ended by itself")
		case ctx.Err() != nil && errors.Is(err, context.Canceled):
			err = nil
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
			p.end(err)
			done <- err
		}
	}()
	p.parts = append(p.parts, part{stop, done})
}

// wait returns when the process shall end and all its parts have ended.
func (p *process) wait() error {
	<-p.ctx.Done()
	var errs []error
	for _, part := range slices.Backward(p.parts) {
		part.stop()
		errs = append(errs, <-part.done)
	}
	return errors.Join(errs...)
}

// alone runs one role as a process of its own: `spillway route`.
func alone(ctx context.Context, out *output, f roleFlags, wire func(*process) error) error {
	p, err := newProcess(ctx, f, out.stderr)
	if err != nil {
		return err
	}
	if err := wire(p); err != nil {
		p.end(nil)
		return errors.Join(err, p.wait())
	}
	p.admin.Started()
	p.log.Info("running", "node", p.flags.Node)
	return p.wait()
}

func logger(f roleFlags, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(f.LogLevel)) // the flag is an enum
	o := &slog.HandlerOptions{Level: level}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "local"
	}
	return name
}

// listen opens a port; the error names it and the flag that moves it.
func listen(address, flag string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s is taken or cannot be opened (%w): choose another with %s", address, err, flag)
	}
	return l, nil
}

func (f clusterFlags) topics() schemas.Topics { return schemas.Topics{Prefix: f.TopicPrefix} }

func (f clusterFlags) kafka() []kgo.Opt {
	return []kgo.Opt{kgo.SeedBrokers(f.KafkaBrokers...), kgo.ClientID("spillway")}
}

// bootTimeout bounds how long a role waits for its first look at control and
// registry before it gives up with the reason.
const bootTimeout = 30 * time.Second

// follow returns the process's one follower of `control`, with a complete
// snapshot.
func (p *process) follow() (*control.Follower, error) {
	if p.follower != nil {
		return p.follower, nil
	}
	f, err := control.NewFollower(control.FollowerConfig{
		Kafka: p.flags.kafka(), Topics: p.flags.topics(), Logger: p.log, Registerer: p.metrics, Now: time.Now,
	})
	if err != nil {
		return nil, err
	}
	p.start("follower", f)
	ctx, cancel := context.WithTimeout(p.ctx, bootTimeout)
	defer cancel()
	if err := f.Wait(ctx); err != nil {
		return nil, fmt.Errorf("read %s: %w (was `spillway setup` run?)", p.flags.topics().Control(), err)
	}
	if f.Partitions() == 0 {
		return nil, fmt.Errorf("%s says no number of partitions: run `spillway setup` first", p.flags.topics().Control())
	}
	p.follower = f
	return f, nil
}

// registry returns the process's one registry client, with every schema known
// if the registry answers.
func (p *process) registry() (*registry.Client, error) {
	if p.schemas != nil {
		return p.schemas, nil
	}
	c, err := registry.New(registry.Config{
		URLs: p.flags.RegistryURL, Topic: p.flags.topics().Events(), Logger: p.log, Registerer: p.metrics,
	})
	if err != nil {
		return nil, err
	}
	p.run("registry client", func(ctx context.Context) error { <-ctx.Done(); c.Close(); return nil })
	ctx, cancel := context.WithTimeout(p.ctx, bootTimeout)
	defer cancel()
	if err := c.Preload(ctx); err != nil {
		p.log.Warn("schemas are not preloaded, they are asked for one by one", "err", err)
	}
	p.schemas = c
	return c, nil
}

// systemIDs are the registry's ids of Spillway's own records.
func (p *process) systemIDs() (map[string]int32, error) {
	c, err := p.registry()
	if err != nil {
		return nil, err
	}
	return registerSystem(p.ctx, c)
}

// registerSystem registers Spillway's own schemas, which does nothing to those
// that are there, and returns their ids.
func registerSystem(ctx context.Context, c *registry.Client) (map[string]int32, error) {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	ids := map[string]int32{}
	for name, text := range allSystemSchemas() {
		s, err := c.Register(ctx, name, text, compat.FullTransitive)
		if err != nil {
			return nil, fmt.Errorf("register %s: %w", name, err)
		}
		ids[name] = int32(s.ID)
	}
	return ids, nil
}

func allSystemSchemas() map[string]string {
	all := schemas.SystemSchemas()
	maps.Copy(all, schemas.ControlSchemas())
	return all
}

// keyFlags say whose tokens are believed.
type keyFlags struct {
	AuthKeys string `type:"path" help:"JWKS file; a key with the member tenant speaks for that tenant alone."`
	AuthJWKS string `name:"auth-jwks" help:"Address of a JWKS."`
}

// ring returns the process's keys; SIGHUP reads the file again.
func (p *process) ring(f keyFlags) (*keys.Ring, error) {
	if p.keys != nil {
		return p.keys, nil
	}
	if f.AuthKeys == "" && f.AuthJWKS == "" {
		return nil, errors.New("whose tokens are good? give --auth-keys or --auth-jwks")
	}
	r, err := keys.New(keys.Config{File: f.AuthKeys, URL: f.AuthJWKS, Now: time.Now, Logger: p.log, Registerer: p.metrics})
	if err != nil {
		return nil, err
	}
	p.start("keys", r)
	p.run("reload", func(ctx context.Context) error { return onHangup(ctx, p.log, r.Reload) })
	p.keys = r
	return r, nil
}

// onHangup calls reload at every SIGHUP until ctx ends.
func onHangup(ctx context.Context, log *slog.Logger, reload func() error) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
			if err := reload(); err != nil {
				log.Error("keys are not reloaded, the old ones stay", "err", err)
				continue
			}
			log.Info("keys reloaded")
		}
	}
}

type ingestCmd struct {
	roleFlags
	keyFlags
	Listen string `default:":8080" help:"Where events come in."`
}

func (c *ingestCmd) Run(ctx context.Context, out *output) error {
	return alone(ctx, out, c.roleFlags, c.wire)
}

// wire:  HTTP ─▶ ingest ─▶ events
//
//	keys, control, registry ──┘
func (c *ingestCmd) wire(p *process) error {
	follower, err := p.follow()
	if err != nil {
		return err
	}
	reg, err := p.registry()
	if err != nil {
		return err
	}
	ring, err := p.ring(c.keyFlags)
	if err != nil {
		return err
	}
	l, err := listen(c.Listen, "--listen")
	if err != nil {
		return err
	}
	r, err := ingest.New(ingest.Config{
		Kafka: c.kafka(), Topics: c.topics(), Partitions: follower.Partitions(), Listener: l,
		Tokens: ring, Policies: follower, Schemas: reg,
		Now: time.Now, Random: rand.Reader, Logger: p.log, Registerer: p.metrics,
	})
	if err != nil {
		return err
	}
	p.start("ingest", r)
	return nil
}

type fanoutCmd struct {
	roleFlags
	keyFlags
	Listen         string        `default:":8090" help:"Where clients connect."`
	Region         string        `default:"local" help:"Whose events it delivers."`
	IngestURL      string        `name:"ingest-url" default:"http://127.0.0.1:8080" help:"Where clients' publishes go."`
	Advertise      string        `help:"Address of this very node that clients are told, ws:// or wss://; default: the one they came to."`
	Origins        []string      `help:"Hosts of foreign pages that may connect."`
	MaxConnections int           `default:"5000" help:"Sockets and streams at once."`
	TailBytes      int64         `default:"67108864" help:"Memory for the newest events, in bytes."`
	DrainTimeout   time.Duration `default:"30s" help:"From SIGTERM to the last close."`
}

func (c *fanoutCmd) Run(ctx context.Context, out *output) error {
	return alone(ctx, out, c.roleFlags, c.wire)
}

// wire:  fanout.<region> ─▶ fanout ─▶ WebSocket, SSE
//
//	                          ├─▶ ingest (publishes)
//	keys, control ────────────┴─▶ audit (receipts)
func (c *fanoutCmd) wire(p *process) error {
	follower, err := p.follow()
	if err != nil {
		return err
	}
	ids, err := p.systemIDs()
	if err != nil {
		return err
	}
	ring, err := p.ring(c.keyFlags)
	if err != nil {
		return err
	}
	l, err := listen(c.Listen, "--listen")
	if err != nil {
		return err
	}
	r, err := fanout.New(fanout.Config{
		Kafka: c.kafka(), Topics: c.topics(), Partitions: follower.Partitions(), Region: c.Region, Node: p.flags.Node, SchemaIDs: ids,
		Listener: l, Auth: ring, Tenants: follower, Logger: p.log, Registerer: p.metrics, Now: time.Now,
		IngestURL: c.IngestURL, Advertise: c.Advertise, Origins: c.Origins,
		TailBytes: c.TailBytes, MaxConnections: c.MaxConnections, DrainTimeout: c.DrainTimeout,
	})
	if err != nil {
		return err
	}
	p.start("fanout", r)
	return nil
}

type routeCmd struct {
	roleFlags
	Ordinal  int `help:"Which router of the deployment this is, from 0; two with one number fence each other."`
	Sessions int `default:"2" help:"Transactions under way at once."`
	MaxKeys  int `default:"16777216" help:"Idempotency keys of a partition, 22 bytes each; beyond, the oldest are forgotten early."`
}

func (c *routeCmd) Run(ctx context.Context, out *output) error {
	return alone(ctx, out, c.roleFlags, c.wire)
}

// wire:  events ═▶ route ═▶ fanout.<region>, overflow, work, retry.16s, dead, audit
//
//	control, registry ─┘
func (c *routeCmd) wire(p *process) error {
	follower, err := p.follow()
	if err != nil {
		return err
	}
	reg, err := p.registry()
	if err != nil {
		return err
	}
	ids, err := p.systemIDs()
	if err != nil {
		return err
	}
	r, err := route.New(route.Config{
		Kafka: c.kafka(), Topics: c.topics(), Partitions: follower.Partitions(), SchemaIDs: ids,
		Tenants: follower, Secrets: follower, Schemas: reg,
		Node: p.flags.Node, Ordinal: c.Ordinal, Sessions: c.Sessions, MaxKeys: c.MaxKeys,
		Now: time.Now, Logger: p.log, Registerer: p.metrics,
	})
	if err != nil {
		return err
	}
	p.start("route", r)
	return nil
}

type delayCmd struct{ roleFlags }

func (c *delayCmd) Run(ctx context.Context, out *output) error {
	return alone(ctx, out, c.roleFlags, c.wire)
}

// wire:  overflow, retry.* ═▶ delay ─▶ events, work
//
//	control ──────────────────┘
func (c *delayCmd) wire(p *process) error {
	follower, err := p.follow()
	if err != nil {
		return err
	}
	r, err := delay.New(delay.Config{
		Kafka: c.kafka(), Topics: c.topics(), Partitions: follower.Partitions(), Secrets: follower,
		Node: p.flags.Node, Now: time.Now, Logger: p.log, Registerer: p.metrics,
	})
	if err != nil {
		return err
	}
	p.start("delay", r)
	return nil
}

// clickhouseFlags say where the tables are.
type clickhouseFlags struct {
	ClickhouseURL      string `name:"clickhouse-url" default:"http://127.0.0.1:8123" help:"ClickHouse HTTP address."`
	ClickhouseDatabase string `name:"clickhouse-database" default:"spillway" help:"Database."`
	ClickhousePassword string `name:"clickhouse-password" secret:"" help:"Password; wins over the address's."`
}

func (f clickhouseFlags) server() audit.Server {
	return audit.Server{URL: f.ClickhouseURL, Database: f.ClickhouseDatabase, Password: f.ClickhousePassword}
}

type auditCmd struct {
	roleFlags
	keyFlags
	clickhouseFlags
	Listen  string `default:"127.0.0.1:8060" help:"Where stories and events are asked for."`
	Migrate bool   `help:"Create and update the tables before beginning."`
}

func (c *auditCmd) Run(ctx context.Context, out *output) error {
	return alone(ctx, out, c.roleFlags, c.wire)
}

// wire:  events, audit, dead ═▶ audit ─▶ ClickHouse
//
//	control, registry, keys ────┘  ▲ GET /v1/events
func (c *auditCmd) wire(p *process) error {
	follower, err := p.follow()
	if err != nil {
		return err
	}
	reg, err := p.registry()
	if err != nil {
		return err
	}
	ids, err := p.systemIDs()
	if err != nil {
		return err
	}
	ring, err := p.ring(c.keyFlags)
	if err != nil {
		return err
	}
	l, err := listen(c.Listen, "--listen")
	if err != nil {
		return err
	}
	r, err := audit.New(audit.Config{
		Kafka: c.kafka(), Topics: c.topics(), Server: c.server(), Migrate: c.Migrate, SchemaIDs: ids,
		Secrets: follower, Tenants: follower, Schemas: route.Known(reg), Resolve: resolve(reg),
		Listener: l, Tokens: ring,
		Node: p.flags.Node, Now: time.Now, Logger: p.log, Registerer: p.metrics,
	})
	if err != nil {
		return err
	}
	p.start("audit", r)
	return nil
}

// resolve has the registry asked for one schema.
func resolve(reg *registry.Client) func(context.Context, int32) error {
	return func(ctx context.Context, id int32) error {
		_, err := reg.Resolve(ctx, int(id))
		return err
	}
}

type controlCmd struct {
	roleFlags
	keyFlags
	Listen     string   `default:"127.0.0.1:8070" help:"Where tenants and endpoints are changed."`
	Regions    []string `default:"local" help:"Regions that exist."`
	Partitions int32    `help:"Partitions of events; 0: what the deployment was set up with."`
	Open       bool     `help:"At the first start: admit tenants that have no policy."`
}

func (c *controlCmd) Run(ctx context.Context, out *output) error {
	return alone(ctx, out, c.roleFlags, c.wire)
}

// wire:  PUT /v1/tenants ─▶ control ═▶ control (the topic)
//
//	keys, registry ────────────┘
func (c *controlCmd) wire(p *process) error {
	ids, err := p.systemIDs()
	if err != nil {
		return err
	}
	var verifier control.Verifier
	if c.AuthKeys != "" || c.AuthJWKS != "" {
		ring, err := p.ring(c.keyFlags)
		if err != nil {
			return err
		}
		verifier = ring
	}
	l, err := listen(c.Listen, "--listen")
	if err != nil {
		return err
	}
	r, err := control.New(control.Config{
		Kafka: c.kafka(), Topics: c.topics(), SchemaIDs: ids, Partitions: c.Partitions, Regions: c.Regions, Open: c.Open,
		Listener: l, Keys: verifier, Node: p.flags.Node, Now: time.Now, Logger: p.log, Registerer: p.metrics,
	})
	if err != nil {
		return err
	}
	p.start("control", r)
	return nil
}

type devCmd struct {
	Data       string `default:"${data}" type:"path" help:"Folder that keeps everything; a restart continues."`
	Ports      int    `default:"0" help:"Move all ports above this one: 18000 gives 18080 for ingest. 0: the usual ones."`
	Clickhouse string `name:"clickhouse" help:"Address of a ClickHouse server to use instead of the embedded engine."`
	Roles      bool   `default:"true" negatable:"" help:"Run the roles too; --no-roles leaves them to processes of their own."`
	Region     string `default:"local" help:"Name of the one region."`
	LogLevel   string `default:"warn" enum:"debug,info,warn,error" help:"Least severe line that is logged."`
}

// Run:  Stack (broker, registry, engine) ─▶ setup ─▶ roles ─▶ seed ─▶ screen
//
// and back in the other order: roles, then the stack.
func (c *devCmd) Run(ctx context.Context, out *output) error {
	began := time.Now()
	ports, err := dev.PortsFrom(c.Ports)
	if err != nil {
		return err
	}
	if err := ports.Check(c.Clickhouse == ""); err != nil {
		return err
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return err
	}
	at := placesOf(ports, c.Clickhouse)
	f := roleFlags{
		clusterFlags: clusterFlags{KafkaBrokers: []string{at.Kafka}, TopicPrefix: schemas.DefaultPrefix, RegistryURL: []string{at.Registry}},
		AdminListen:  dev.Address(ports.Admin), Node: "dev", LogLevel: c.LogLevel,
	}
	p, err := newProcess(ctx, f, out.stderr)
	if err != nil {
		return err
	}
	stack, err := dev.Start(ctx, dev.Config{
		Dir: c.Data, Ports: ports, Engine: c.engine(), EngineMemory: devEngineMemory, Now: time.Now, Logger: p.log, Registerer: p.metrics,
	})
	if err != nil {
		p.end(nil)
		return errors.Join(err, p.wait())
	}
	p.run("embedded stack", stack.Watch)
	err = c.run(p, stack, at, out, began)
	p.end(err)
	return errors.Join(err, p.wait(), stack.Close())
}

// devEngineMemory is where the embedded ClickHouse refuses a statement rather
// than take a laptop's memory.
const devEngineMemory = 2 << 30

func (c *devCmd) engine() []string {
	if c.Clickhouse != "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	return []string{self, "dev-engine"}
}

func (c *devCmd) run(p *process, stack *dev.Stack, at places, out *output, began time.Time) error {
	keyFile, err := devKeys(c.Data)
	if err != nil {
		return err
	}
	if err := c.prepare(p, at); err != nil {
		return err
	}
	if c.Roles {
		if err := c.roles(p, at, keyFlags{AuthKeys: keyFile}); err != nil {
			return err
		}
		if err := c.seed(p.ctx, at); err != nil {
			return err
		}
	}
	p.admin.Started()
	text, err := json.MarshalIndent(at, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.Data, placesFile), text, 0o600); err != nil {
		return err
	}
	if err := c.screen(stack, at, out, began); err != nil {
		return err
	}
	c.watchEngine(p.ctx, stack, out)
	<-p.ctx.Done()
	return nil
}

// devKeys makes the key that signs dev's tokens, at the first start.
func devKeys(data string) (string, error) {
	file := filepath.Join(data, "keys.json")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	k, err := keys.Generate(rand.Reader, "EdDSA")
	if err != nil {
		return "", err
	}
	return file, keys.WriteFile(file, k)
}

// prepare does what `spillway setup` does, and registers the sample schemas.
func (c *devCmd) prepare(p *process, at places) error {
	reg, err := p.registry()
	if err != nil {
		return err
	}
	ids, err := p.systemIDs()
	if err != nil {
		return err
	}
	for name, text := range schemas.SampleSchemas() {
		if _, err := reg.Register(p.ctx, name, text, compat.FullTransitive); err != nil {
			return fmt.Errorf("register %s: %w", name, err)
		}
	}
	report, err := control.Setup(p.ctx, control.SetupConfig{
		Kafka: p.flags.kafka(), Topics: p.flags.topics(), SchemaIDs: ids, Partitions: schemas.DefaultPartitions, Regions: []string{c.Region},
		Replication: 1, MinISR: 1, CompactControl: false, Open: true, Logger: p.log, Now: time.Now,
	})
	if err != nil {
		return err
	}
	if !report.OK() {
		p.log.Warn("topics differ from what they should be", "report", strings.Join(report.Lines(), "; "))
	}
	return nil
}

// roles starts every role as its own subcommand would, with dev's addresses.
func (c *devCmd) roles(p *process, at places, k keyFlags) error {
	ch := clickhouseFlags{ClickhouseURL: at.ClickHouse, ClickhouseDatabase: audit.DefaultDatabase}
	for _, wire := range []func(*process) error{
		(&controlCmd{roleFlags: p.flags, keyFlags: k, Listen: hostPort(at.Control), Regions: []string{c.Region}, Open: true}).wire,
		(&auditCmd{roleFlags: p.flags, keyFlags: k, clickhouseFlags: ch, Listen: hostPort(at.Audit), Migrate: true}).wire,
		(&fanoutCmd{
			roleFlags: p.flags, keyFlags: k, Listen: hostPort(at.Fanout), Region: c.Region, IngestURL: at.Ingest,
			MaxConnections: 5000, TailBytes: 64 << 20, DrainTimeout: devDrain,
		}).wire,
		(&delayCmd{roleFlags: p.flags}).wire,
		(&routeCmd{roleFlags: p.flags, Sessions: 2, MaxKeys: devMaxKeys}).wire,
		(&ingestCmd{roleFlags: p.flags, keyFlags: k, Listen: hostPort(at.Ingest)}).wire, // last: what comes in can go through; stopped first
	} {
		if err := wire(p); err != nil {
			return err
		}
	}
	return nil
}

const (
	devMaxKeys = 4 << 20         // keys of a partition on a laptop
	devDrain   = 2 * time.Second // who stops dev is waiting for it
)

// seed writes the demo tenants that are not there: somebody may have changed
// them since.
func (c *devCmd) seed(ctx context.Context, at places) error {
	api, err := controlFlags{whereFlags: whereFlags{Data: c.Data}, ControlURL: at.Control}.api()
	if err != nil {
		return err
	}
	there, err := api.Get(ctx, control.KindTenant, "")
	if err != nil {
		return fmt.Errorf("demo tenants: %w", err)
	}
	has := map[string]bool{}
	for _, d := range there {
		has[d.Name] = true
	}
	var missing []control.Document
	for _, t := range []struct {
		name string
		rate float64
	}{{"acme", 2000}, {"globex", 2000}, {"noisy", 100}} {
		if !has[t.name] {
			missing = append(missing, control.Document{Kind: control.KindTenant, Name: t.name, Spec: schemas.Policy{Fast: schemas.Rate{Rate: t.rate}}})
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if _, err := api.Apply(ctx, missing, false); err != nil {
		return fmt.Errorf("demo tenants: %w", err)
	}
	return nil
}

// screen prints what a newcomer needs.
func (c *devCmd) screen(stack *dev.Stack, at places, out *output, began time.Time) error {
	w := whereFlags{Data: c.Data}
	ring, err := w.ring()
	if err != nil {
		return err
	}
	token, err := ring.Sign(schemas.Claims{
		Tenant: "acme", Role: schemas.RoleProducer, Subject: "dev", ExpiresAt: time.Now().Add(24 * time.Hour),
	})
	if err != nil {
		return err
	}
	clickhouse := "ClickHouse: " + c.Clickhouse
	if stack.Engine != nil {
		state, _ := stack.Engine.State()
		clickhouse = "ClickHouse: " + state.String() + "; what happens meanwhile is written when it is there"
	}
	self := selfCommand() + " "
	where := ""
	if c.Data != defaultData() {
		where = " --data " + c.Data
	}
	return dev.Screen{
		Version: version, Data: c.Data, ClickHouse: clickhouse, Token: token, Took: time.Since(began),
		Places: [][2]string{
			{"Kafka", at.Kafka}, {"registry", at.Registry}, {"ingest", at.Ingest + "/v1/events"}, {"fan-out", at.Fanout + "/v1/ws"},
			{"audit", at.Audit}, {"control", at.Control}, {"ClickHouse", at.ClickHouse}, {"admin", at.Admin + "/metrics"},
		},
		Commands: []string{
			self + "pub acme chat.1 '{\"text\":\"hello\"}'" + where,
			self + "sub acme 'chat.*' --from begin --count 1" + where,
			"curl -sS -d '{\"text\":\"over HTTP\"}' -H 'Authorization: Bearer " + token + "' '" + at.Ingest + "/v1/events?type=demo.Message&subject=chat.1'",
		},
	}.Write(out.stdout)
}

// watchEngine tells how far the embedded ClickHouse is, every other second at
// most.
func (c *devCmd) watchEngine(ctx context.Context, stack *dev.Stack, out *output) {
	if stack.Engine == nil {
		return
	}
	ticker := time.NewTicker(2 * time.Second)
	defer ticker.Stop()
	for last := ""; ; {
		state, _ := stack.Engine.State()
		if text := state.String(); text != last {
			fmt.Fprintln(out.stdout, "ClickHouse:", text)
			last = text
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// usualPlaces are the addresses of a dev on its usual ports.
func usualPlaces() places { return placesOf(dev.DefaultPorts(), "") }

func placesOf(p dev.Ports, clickhouse string) places {
	web := func(port int) string { return "http://" + dev.Address(port) }
	return places{
		Kafka: dev.Address(p.Kafka), Registry: web(p.Registry), ClickHouse: cmp.Or(clickhouse, web(p.ClickHouse)), Ingest: web(p.Ingest),
		Fanout: "ws://" + dev.Address(p.Fanout), Audit: web(p.Audit), Control: web(p.Control), Admin: web(p.Admin),
	}
}

// hostPort is an address without its scheme.
func hostPort(address string) string {
	_, rest, _ := strings.Cut(address, "://")
	return rest
}

// defaultData is where dev keeps its data unless told otherwise.
func defaultData() string {
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "spillway")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "spillway-data"
	}
	return filepath.Join(home, ".local", "share", "spillway")
}

// selfCommand is how a person calls this binary.
func selfCommand() string {
	if strings.ContainsRune(os.Args[0], os.PathSeparator) {
		return os.Args[0]
	}
	return "spillway"
}

type engineCmd struct {
	Lib            string `required:"" help:"Path of libchdb."`
	Dir            string `required:"" help:"Folder of its data."`
	MaxMemoryBytes int64  `help:"Bound of its memory."`
}

// Run is the child process of deploy/dev/engine.
func (c *engineCmd) Run(ctx context.Context, out *output) error {
	l, err := engine.Inherited()
	if err != nil {
		return err
	}
	return engine.Serve(ctx, engine.ServeConfig{
		Lib: c.Lib, Dir: c.Dir, MaxMemoryBytes: c.MaxMemoryBytes, Listener: l, Ready: out.stdout, Parent: os.Stdin,
		Logger: logger(roleFlags{LogLevel: "info"}, out.stderr),
	})
}
