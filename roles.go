package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spillway/spillway/control"
	"github.com/spillway/spillway/control/boot"
	"github.com/spillway/spillway/control/connect"
	"github.com/spillway/spillway/control/keys"
	"github.com/spillway/spillway/control/process"
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

// kafkaFlags say how Kafka is entered.
type kafkaFlags struct {
	KafkaTLS      bool   `name:"kafka-tls" group:"Connections" help:"Speak TLS."`
	KafkaCA       string `name:"kafka-ca" group:"Connections" help:"Who signs the brokers' certificates, PEM; default: whom the system trusts."`
	KafkaCert     string `group:"Connections" help:"Our certificate, PEM, where brokers ask for one."`
	KafkaKey      string `group:"Connections" help:"Its key, PEM."`
	KafkaSASL     string `name:"kafka-sasl" group:"Connections" default:"none" enum:"none,plain,scram-sha-256,scram-sha-512" help:"none, plain, scram-sha-256 or scram-sha-512."`
	KafkaUser     string `group:"Connections" help:"User for SASL."`
	KafkaPassword string `group:"Connections" secret:"" help:"Password for SASL."`
}

func (f kafkaFlags) at(brokers []string) connect.Kafka {
	return connect.Kafka{
		Brokers: brokers, TLS: f.KafkaTLS, Files: connect.Files{CA: f.KafkaCA, Cert: f.KafkaCert, Key: f.KafkaKey},
		SASL: f.KafkaSASL, User: f.KafkaUser, Password: secret("kafka-password", f.KafkaPassword),
	}
}

// registryFlags say how the schema registry is entered.
type registryFlags struct {
	RegistryUser     string `group:"Connections" help:"User of the registry."`
	RegistryPassword string `group:"Connections" secret:"" help:"Its password."`
	RegistryCA       string `name:"registry-ca" group:"Connections" help:"Who signs the registry's certificate, PEM."`
	RegistryCert     string `group:"Connections" help:"Our certificate, PEM, where the registry asks for one."`
	RegistryKey      string `group:"Connections" help:"Its key, PEM."`
}

func (f registryFlags) at(urls []string) connect.Web {
	return connect.Web{
		URLs: urls, Files: connect.Files{CA: f.RegistryCA, Cert: f.RegistryCert, Key: f.RegistryKey},
		User: f.RegistryUser, Password: secret("registry-password", f.RegistryPassword),
	}
}

// clickhouseFlags say how ClickHouse is entered.
type clickhouseFlags struct {
	ClickhouseUser     string `group:"Connections" help:"User of ClickHouse; wins over the address's."`
	ClickhousePassword string `group:"Connections" secret:"" help:"Password; wins over the address's."`
	ClickhouseCA       string `name:"clickhouse-ca" group:"Connections" help:"Who signs ClickHouse's certificate, PEM."`
	ClickhouseCert     string `group:"Connections" help:"Our certificate, PEM, where ClickHouse asks for one."`
	ClickhouseKey      string `group:"Connections" help:"Its key, PEM."`
}

func (f clickhouseFlags) at(url string) connect.Web {
	return connect.Web{
		URLs: []string{url}, Files: connect.Files{CA: f.ClickhouseCA, Cert: f.ClickhouseCert, Key: f.ClickhouseKey},
		User: f.ClickhouseUser, Password: secret("clickhouse-password", f.ClickhousePassword),
	}
}

// secret is a flag's value, or the file that SPILLWAY_…_FILE names: then it
// may change while the process runs.
func secret(flag, text string) connect.Secret {
	file := secretFile(flag)
	if now, err := os.ReadFile(file); err != nil || strings.TrimSpace(string(now)) != text {
		file = "" // the flag itself was given
	}
	return connect.Secret{Text: text, File: file}
}

// clusterFlags say where the parts are that all roles meet at.
type clusterFlags struct {
	KafkaBrokers []string `default:"127.0.0.1:9092" help:"Kafka bootstrap servers."`
	TopicPrefix  string   `default:"spillway." help:"What topic names begin with."`
	RegistryURL  []string `default:"http://127.0.0.1:8081" name:"registry-url" help:"Schema registry, Confluent-compatible."`
	kafkaFlags
	registryFlags
}

func (f clusterFlags) topics() schemas.Topics { return schemas.Topics{Prefix: f.TopicPrefix} }

// connect says how Kafka and the registry are reached.
func (f clusterFlags) connect() connect.Config {
	return connect.Config{Kafka: f.kafkaFlags.at(f.KafkaBrokers), Registry: f.registryFlags.at(f.RegistryURL), Now: time.Now}
}

// keyFlags say whose tokens are believed.
type keyFlags struct {
	AuthKeys string `help:"JWKS file; a key with the member tenant speaks for that tenant alone."`
	AuthJWKS string `name:"auth-jwks" help:"Address of a JWKS."`
}

// roleFlags are those every role has.
type roleFlags struct {
	clusterFlags
	keyFlags
	AdminListen string `default:"127.0.0.1:8099" help:"Health, readiness and metrics. On an address that others can reach, all but health wants an operator's token."`
	Node        string `help:"This process's name in the audit; default: the host's name."`
	LogLevel    string `default:"info" enum:"debug,info,warn,error" help:"Least severe line that is logged."`
	LogFormat   string `default:"text" enum:"text,json" help:"How log lines look."`
	Check       bool   `help:"Validate, connect, say so, and end: 0 if the role could begin, 1 if not."`
}

// config is what a role's process is told by them.
func (f roleFlags) config(out *output) boot.Config {
	return boot.Config{
		Connect: f.connect(), Topics: f.topics(), AuthKeys: f.AuthKeys, AuthJWKS: f.AuthJWKS, AdminListen: f.AdminListen,
		Node: cmp.Or(f.Node, hostname()), Version: build(), Log: process.Logger(out.stderr, f.LogLevel, f.LogFormat), Now: time.Now,
	}
}

// plan is how a role runs alone, as a process of its own.
func (f roleFlags) plan(out *output, use connect.Use, wire func(*boot.Host) error) boot.Plan {
	p := boot.Plan{Use: use, Wire: wire}
	if f.Check {
		p.Check = out.stdout
	}
	return p
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "local"
	}
	return name
}

type ingestCmd struct {
	roleFlags
	Listen string `default:":8080" help:"Where events come in."`
}

func (c *ingestCmd) Run(ctx context.Context, out *output) error {
	return boot.Alone(ctx, c.config(out), c.plan(out, c.use(c.topics()), c.wire))
}

func (c *ingestCmd) use(t schemas.Topics) connect.Use {
	return connect.Use{Kafka: true, Registry: true, Spare: true, Needs: []connect.Need{
		connect.Topic(t.Control(), connect.Read), connect.Topic(t.Events(), connect.Write),
	}}
}

// wire:  HTTP ─▶ ingest ─▶ events
//
//	keys, control, registry ──┘
func (c *ingestCmd) wire(p *boot.Host) error {
	follower, err := p.Follow()
	if err != nil {
		return err
	}
	reg, err := p.Registry()
	if err != nil {
		return err
	}
	ring, err := p.Keys()
	if err != nil {
		return err
	}
	l, err := process.Listen(c.Listen, "--listen")
	if err != nil {
		return err
	}
	r, err := ingest.New(ingest.Config{
		Kafka: p.Conns.Kafka(), Topics: c.topics(), Partitions: follower.Partitions(), Listener: l,
		Tokens: ring, Policies: follower, Schemas: reg,
		Now: time.Now, Random: rand.Reader, Logger: p.Log, Registerer: p.Metrics,
	})
	if err != nil {
		return err
	}
	p.Start("ingest", r)
	return nil
}

type fanoutCmd struct {
	roleFlags
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
	return boot.Alone(ctx, c.config(out), c.plan(out, c.use(c.topics()), c.wire))
}

func (c *fanoutCmd) use(t schemas.Topics) connect.Use {
	return connect.Use{Kafka: true, Registry: true, Spare: true, Needs: []connect.Need{
		connect.Topic(t.Control(), connect.Read), connect.Topic(t.Events(), connect.Describe), connect.Topic(t.Fanout(c.Region), connect.Read),
		connect.Topic(t.Nodes(), connect.Write), connect.Topic(t.Audit(), connect.Write),
	}}
}

// wire:  fanout.<region> ─▶ fanout ─▶ WebSocket, SSE
//
//	                          ├─▶ ingest (publishes)
//	keys, control ────────────┴─▶ audit (receipts)
func (c *fanoutCmd) wire(p *boot.Host) error {
	follower, err := p.Follow()
	if err != nil {
		return err
	}
	ids, err := p.SystemIDs()
	if err != nil {
		return err
	}
	ring, err := p.Keys()
	if err != nil {
		return err
	}
	l, err := process.Listen(c.Listen, "--listen")
	if err != nil {
		return err
	}
	r, err := fanout.New(fanout.Config{
		Kafka: p.Conns.Kafka(), Topics: c.topics(), Partitions: follower.Partitions(), Region: c.Region, Node: p.Node, SchemaIDs: ids,
		Listener: l, Auth: ring, Tenants: follower, Logger: p.Log, Registerer: p.Metrics, Now: time.Now,
		IngestURL: c.IngestURL, Advertise: c.Advertise, Origins: c.Origins,
		TailBytes: c.TailBytes, MaxConnections: c.MaxConnections, DrainTimeout: c.DrainTimeout,
	})
	if err != nil {
		return err
	}
	p.Start("fanout", r)
	return nil
}

// routeCmd is the role, and what a person says to it.
type routeCmd struct {
	Role    routeRoleCmd    `cmd:"" name:"run" default:"withargs" help:"Decide once about each event: valid, new, within budget, where to. The word run may be left out. See also: route explain, route accept."`
	Explain routeExplainCmd `cmd:"" help:"Show each step's answer about one record."`
	Accept  routeAcceptCmd  `cmd:"" help:"Have a refused partition go on, with nothing remembered."`
}

type routeRoleCmd struct {
	roleFlags
	Ordinal  int `help:"Which router of the deployment this is, from 0; two with one number fence each other."`
	Sessions int `default:"2" help:"Transactions under way at once."`
	MaxKeys  int `default:"16777216" help:"Idempotency keys of a partition, 22 bytes each; beyond, the oldest are forgotten early."`
}

func (c *routeRoleCmd) Run(ctx context.Context, out *output) error {
	return boot.Alone(ctx, c.config(out), c.plan(out, c.use(c.topics()), c.wire))
}

func (c *routeRoleCmd) use(t schemas.Topics) connect.Use {
	use := connect.Use{Kafka: true, Registry: true, Needs: []connect.Need{
		connect.Topic(t.Control(), connect.Read), connect.Topic(t.Events(), connect.Read, connect.Write, connect.DescribeConfigs),
		connect.Topic(t.Overflow(), connect.Write), connect.Topic(t.Work(), connect.Write), connect.Topic(t.Retry(schemas.RetryTiers[len(schemas.RetryTiers)-1]), connect.Write),
		connect.Topic(t.Dead(), connect.Write), connect.Topic(t.Audit(), connect.Write), connect.Topic(t.RouteState(), connect.Read, connect.Write),
		connect.Group(t.Prefix + "route"),
	}}
	for session := range c.Sessions {
		use.Needs = append(use.Needs, connect.Transaction(fmt.Sprintf("%sroute/%d/%d", t.Prefix, c.Ordinal, session)))
	}
	return use
}

// wire:  events ═▶ route ═▶ fanout.<region>, overflow, work, retry.16s, dead, audit
//
//	control, registry ─┘
func (c *routeRoleCmd) wire(p *boot.Host) error {
	follower, err := p.Follow()
	if err != nil {
		return err
	}
	reg, err := p.Registry()
	if err != nil {
		return err
	}
	ids, err := p.SystemIDs()
	if err != nil {
		return err
	}
	if err := p.MayFanOut(follower); err != nil {
		return err
	}
	r, err := route.New(route.Config{
		Kafka: p.Conns.Kafka(), Topics: c.topics(), Partitions: follower.Partitions(), SchemaIDs: ids,
		Tenants: routed{follower}, Secrets: follower, Schemas: reg,
		Node: p.Node, Ordinal: c.Ordinal, Sessions: c.Sessions, MaxKeys: c.MaxKeys,
		Now: time.Now, Logger: p.Log, Registerer: p.Metrics,
	})
	if err != nil {
		return err
	}
	p.Admin.Handle("GET "+route.RefusedPath, http.HandlerFunc(r.Refusals))
	p.Admin.Handle("POST "+route.RefusedPath+"/{partition}", http.HandlerFunc(r.AcceptOne))
	p.Start("route", r)
	return nil
}

// routed is what route asks of control: one snapshot a batch.
type routed struct{ *control.Follower }

func (r routed) Policies() route.Policies { return r.Snapshot() }

type delayCmd struct{ roleFlags }

func (c *delayCmd) Run(ctx context.Context, out *output) error {
	return boot.Alone(ctx, c.config(out), c.plan(out, c.use(c.topics()), c.wire))
}

func (c *delayCmd) use(t schemas.Topics) connect.Use {
	use := connect.Use{Kafka: true, Needs: []connect.Need{
		connect.Topic(t.Control(), connect.Read), connect.Topic(t.Overflow(), connect.Read, connect.Write),
		connect.Topic(t.Events(), connect.Write), connect.Topic(t.Work(), connect.Write), connect.Group(t.Prefix + "delay"),
	}}
	for _, tier := range schemas.RetryTiers {
		use.Needs = append(use.Needs, connect.Topic(t.Retry(tier), connect.Read, connect.Write))
	}
	return use
}

// wire:  overflow, retry.* ═▶ delay ─▶ events, work
//
//	control ──────────────────┘
func (c *delayCmd) wire(p *boot.Host) error {
	follower, err := p.Follow()
	if err != nil {
		return err
	}
	r, err := delay.New(delay.Config{
		Kafka: p.Conns.Kafka(), Topics: c.topics(), Partitions: follower.Partitions(), Secrets: follower,
		Node: p.Node, Now: time.Now, Logger: p.Log, Registerer: p.Metrics,
	})
	if err != nil {
		return err
	}
	p.Start("delay", r)
	return nil
}

// tableFlags say where the tables are.
type tableFlags struct {
	ClickhouseURL      string `name:"clickhouse-url" default:"http://127.0.0.1:8123" help:"ClickHouse HTTP address."`
	ClickhouseDatabase string `name:"clickhouse-database" default:"spillway" help:"Database."`
	clickhouseFlags
}

func (f tableFlags) clickhouse() connect.Web { return f.clickhouseFlags.at(f.ClickhouseURL) }

// server is ClickHouse as the sink meets it.
func server(conns *connect.Connections, url, database string) (audit.Server, error) {
	tls, user, password, err := conns.ClickHouse()
	return audit.Server{URL: url, Database: database, User: user, Password: password, Login: conns.ClickHouseLogin, TLS: tls}, err
}

type auditCmd struct {
	roleFlags
	tableFlags
	Listen  string `default:"127.0.0.1:8060" help:"Where stories and events are asked for."`
	Migrate bool   `help:"Create and update the tables before beginning."`
}

func (c *auditCmd) Run(ctx context.Context, out *output) error {
	cfg := c.config(out)
	cfg.Connect.ClickHouse = c.clickhouse()
	return boot.Alone(ctx, cfg, c.plan(out, c.use(c.topics()), c.wire))
}

func (c *auditCmd) use(t schemas.Topics) connect.Use {
	return connect.Use{Kafka: true, Registry: true, ClickHouse: true, Later: true, Needs: []connect.Need{
		connect.Topic(t.Control(), connect.Read), connect.Topic(t.Events(), connect.Read), connect.Topic(t.Audit(), connect.Read), connect.Topic(t.Dead(), connect.Read),
		connect.Group(t.Prefix + "audit"), connect.Group(t.Prefix + "audit.events"),
	}}
}

// wire:  events, audit, dead ═▶ audit ─▶ ClickHouse
//
//	control, registry, keys ────┘  ▲ GET /v1/events
func (c *auditCmd) wire(p *boot.Host) error {
	follower, err := p.Follow()
	if err != nil {
		return err
	}
	reg, err := p.Registry()
	if err != nil {
		return err
	}
	ids, err := p.SystemIDs()
	if err != nil {
		return err
	}
	ring, err := p.Keys()
	if err != nil {
		return err
	}
	at, err := server(p.Conns, c.ClickhouseURL, c.ClickhouseDatabase)
	if err != nil {
		return err
	}
	l, err := process.Listen(c.Listen, "--listen")
	if err != nil {
		return err
	}
	r, err := audit.New(audit.Config{
		Kafka: p.Conns.Kafka(), Topics: c.topics(), Server: at, Migrate: c.Migrate, SchemaIDs: ids,
		Secrets: follower, Tenants: follower, Schemas: route.Known(reg), Resolve: resolve(reg),
		Listener: l, Tokens: ring,
		Node: p.Node, Now: time.Now, Logger: p.Log, Registerer: p.Metrics,
	})
	if err != nil {
		return err
	}
	p.Start("audit", r)
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
	Listen     string   `default:"127.0.0.1:8070" help:"Where tenants and endpoints are changed."`
	Regions    []string `default:"local" help:"Regions that exist."`
	Partitions int32    `help:"Partitions of events; 0: what the deployment was set up with."`
	Open       bool     `help:"At the first start: admit tenants that have no policy."`
}

func (c *controlCmd) Run(ctx context.Context, out *output) error {
	return boot.Alone(ctx, c.config(out), c.plan(out, c.use(c.topics()), c.wire))
}

func (c *controlCmd) use(t schemas.Topics) connect.Use {
	return connect.Use{Kafka: true, Registry: true, Needs: []connect.Need{
		connect.Topic(t.Control(), connect.Read, connect.Write), connect.Transaction(t.Prefix + "control"),
	}}
}

// wire:  PUT /v1/tenants ─▶ control ═▶ control (the topic)
//
//	keys, registry ────────────┘
func (c *controlCmd) wire(p *boot.Host) error {
	ids, err := p.SystemIDs()
	if err != nil {
		return err
	}
	var verifier control.Verifier
	if p.Authenticates() {
		ring, err := p.Keys()
		if err != nil {
			return err
		}
		verifier = ring
	}
	l, err := process.Listen(c.Listen, "--listen")
	if err != nil {
		return err
	}
	if verifier == nil && !process.Loopback(l) {
		l.Close()
		return fmt.Errorf("--listen %s: others can reach this address, so operators must show a token there: give --auth-keys or --auth-jwks", c.Listen)
	}
	r, err := control.New(control.Config{
		Kafka: p.Conns.Kafka(), Topics: c.topics(), SchemaIDs: ids, Partitions: c.Partitions, Regions: c.Regions, Open: c.Open,
		Listener: l, Keys: verifier, Node: p.Node, Now: time.Now, Logger: p.Log, Registerer: p.Metrics,
	})
	if err != nil {
		return err
	}
	p.Start("control", r)
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
	keyFile, err := devKeys(c.Data)
	if err != nil {
		return err
	}
	at := dev.PlacesOf(ports, c.Clickhouse)
	f := roleFlags{
		clusterFlags: clusterFlags{KafkaBrokers: []string{at.Kafka}, TopicPrefix: schemas.DefaultPrefix, RegistryURL: []string{at.Registry}},
		keyFlags:     keyFlags{AuthKeys: keyFile}, AdminListen: dev.Address(ports.Admin), Node: "dev", LogLevel: c.LogLevel,
	}
	cfg := f.config(out)
	cfg.Connect.ClickHouse.URLs = []string{at.ClickHouse}
	p, err := boot.New(ctx, cfg)
	if err != nil {
		return err
	}
	if err := p.ServeAdmin(); err != nil {
		p.End(nil)
		return errors.Join(err, p.Wait())
	}
	stack, err := dev.Start(ctx, dev.Config{
		Dir: c.Data, Ports: ports, Engine: c.engine(), EngineMemory: devEngineMemory, Now: time.Now, Logger: p.Log, Registerer: p.Metrics,
	})
	if err != nil {
		p.End(nil)
		return errors.Join(err, p.Wait())
	}
	p.Run("embedded stack", stack.Watch)
	err = c.run(p, f, at, out)
	if err == nil {
		err = c.screen(stack, at, out, time.Since(began))
	}
	if err == nil {
		stack.Tell(p.Context(), out.stdout)
		<-p.Context().Done()
	}
	p.End(err)
	return errors.Join(err, p.Wait(), stack.Close())
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

// run returns when everything runs.
func (c *devCmd) run(p *boot.Host, f roleFlags, at dev.Places, out *output) error {
	if err := c.prepare(p, at); err != nil {
		return err
	}
	if c.Roles {
		if err := c.roles(p, f, at); err != nil {
			return err
		}
		if err := c.seed(p.Context(), at); err != nil {
			return err
		}
	}
	p.Admin.Started()
	return at.Write(c.Data)
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
func (c *devCmd) prepare(p *boot.Host, at dev.Places) error {
	reg, err := p.Registry()
	if err != nil {
		return err
	}
	ids, err := p.SystemIDs()
	if err != nil {
		return err
	}
	for name, text := range schemas.SampleSchemas() {
		if _, err := reg.Register(p.Context(), name, text, compat.FullTransitive); err != nil {
			return fmt.Errorf("register %s: %w", name, err)
		}
	}
	report, err := control.Setup(p.Context(), control.SetupConfig{
		Kafka: p.Conns.Kafka(), Topics: p.Topics, SchemaIDs: ids, Partitions: schemas.DefaultPartitions, Regions: []string{c.Region},
		Replication: 1, MinISR: 1, CompactControl: false, Open: true, Logger: p.Log, Now: time.Now,
	})
	if err != nil {
		return err
	}
	if !report.OK() {
		p.Log.Warn("topics differ from what they should be", "report", strings.Join(report.Lines(), "; "))
	}
	return nil
}

// roles starts every role as its own subcommand would, with dev's addresses.
func (c *devCmd) roles(p *boot.Host, f roleFlags, at dev.Places) error {
	ch := tableFlags{ClickhouseURL: at.ClickHouse, ClickhouseDatabase: audit.DefaultDatabase}
	for _, wire := range []func(*boot.Host) error{
		(&controlCmd{roleFlags: f, Listen: dev.HostPort(at.Control), Regions: []string{c.Region}, Open: true}).wire,
		(&auditCmd{roleFlags: f, tableFlags: ch, Listen: dev.HostPort(at.Audit), Migrate: true}).wire,
		(&fanoutCmd{
			roleFlags: f, Listen: dev.HostPort(at.Fanout), Region: c.Region, IngestURL: at.Ingest,
			MaxConnections: 5000, TailBytes: 64 << 20, DrainTimeout: devDrain,
		}).wire,
		(&delayCmd{roleFlags: f}).wire,
		(&routeRoleCmd{roleFlags: f, Sessions: 2, MaxKeys: devMaxKeys}).wire,
		(&ingestCmd{roleFlags: f, Listen: dev.HostPort(at.Ingest)}).wire, // last: what comes in can go through; stopped first
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
func (c *devCmd) seed(ctx context.Context, at dev.Places) error {
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
func (c *devCmd) screen(stack *dev.Stack, at dev.Places, out *output, took time.Duration) error {
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
		Version: version, Data: c.Data, ClickHouse: clickhouse, Token: token, Took: took,
		Places: at.Rows(),
		Commands: []string{
			self + "pub acme chat.1 '{\"text\":\"hello\"}'" + where,
			self + "sub acme 'chat.*' --from begin --count 1" + where,
			"curl -sS -d '{\"text\":\"over HTTP\"}' -H 'Authorization: Bearer " + token + "' '" + at.Ingest + "/v1/events?type=demo.Message&subject=chat.1'",
		},
	}.Write(out.stdout)
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
		Logger: process.Logger(out.stderr, "info", "text"),
	})
}
