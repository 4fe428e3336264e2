package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/spillway/spillway/client"
	"github.com/spillway/spillway/control"
	"github.com/spillway/spillway/control/boot"
	"github.com/spillway/spillway/control/connect"
	"github.com/spillway/spillway/control/keys"
	"github.com/spillway/spillway/control/process"
	"github.com/spillway/spillway/deploy/dev"
	"github.com/spillway/spillway/integration/load"
	"github.com/spillway/spillway/processors/audit"
	"github.com/spillway/spillway/processors/audit/explain"
	"github.com/spillway/spillway/processors/route"
	"github.com/spillway/spillway/processors/route/look"
	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/desk"
	"github.com/spillway/spillway/schemas/registry"
)

// secretFiles lets every flag with the tag secret come from the file that
// SPILLWAY_…_FILE names.
func secretFiles() kong.Resolver {
	return kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		if !flag.Tag.Has("secret") {
			return nil, nil
		}
		file := secretFile(flag.Name)
		if file == "" {
			return nil, nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", secretVariable(flag.Name), err) // kong says which flag
		}
		return strings.TrimSpace(string(text)), nil
	})
}

// secretFile is the file that SPILLWAY_…_FILE names for a flag, "" if none.
func secretFile(flag string) string { return os.Getenv(secretVariable(flag)) }

func secretVariable(flag string) string {
	return "SPILLWAY_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_")) + "_FILE"
}

// reach returns connections for a person's command, checked.
func reach(ctx context.Context, out *output, use connect.Use, cfg connect.Config) (*connect.Connections, error) {
	cfg.Now, cfg.Logger, cfg.ClientID = time.Now, process.Logger(out.stderr, "warn", "text"), "spillway-cli"
	conns, err := connect.New(cfg)
	if err != nil {
		return nil, err
	}
	if err := conns.Check(ctx, use); err != nil {
		return nil, err
	}
	return conns, nil
}

// whereFlags tell a person's command where things are. What is not said comes
// from the running `spillway dev`, see place.
type whereFlags struct {
	Data  string `default:"${data}" type:"path" help:"Folder of spillway dev: its addresses and keys are used where no flag says else."`
	Token string `secret:"" help:"Token to show; default: one made with --keys."`
	Keys  string `help:"JWKS file with a private key; default: that of spillway dev."`
}

func (w whereFlags) place() (dev.Places, error) { return dev.ReadPlaces(w.Data) }

func (w whereFlags) ring() (*keys.Ring, error) {
	file := cmp.Or(w.Keys, filepath.Join(w.Data, "keys.json"))
	r, err := keys.New(keys.Config{File: file, Now: time.Now, Logger: process.Logger(os.Stderr, "warn", "text")})
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no key to make a token with: %w; give --token or --keys, or start spillway dev", err)
	}
	return r, err
}

// token is the flag's, or one made for this command that lives an hour.
func (w whereFlags) token(c schemas.Claims) (string, error) {
	if w.Token != "" {
		if err := keys.SpeaksFor(w.Token, c.Tenant); err != nil {
			return "", fmt.Errorf("--token %w", err)
		}
		return w.Token, nil
	}
	r, err := w.ring()
	if err != nil {
		return "", err
	}
	c.Subject, c.ExpiresAt = "spillway", time.Now().Add(time.Hour)
	return r.Sign(c)
}

type tokenCmd struct {
	Make  tokenMakeCmd  `cmd:"" default:"withargs" help:"Make a token for a tenant."`
	Check tokenCheckCmd `cmd:"" help:"Read a token: what it says, and whether it counts."`
}

type tokenMakeCmd struct {
	whereFlags
	Tenant   string        `arg:"" help:"Tenant; * for an operator."`
	Role     string        `default:"client" enum:"client,producer,operator" help:"client, producer or operator."`
	Channels []string      `default:"*" help:"Channels it may subscribe to: exact, prefix.* or *."`
	Publish  []string      `help:"Channels it may publish to."`
	Subject  string        `default:"spillway" help:"Who it is for."`
	TTL      time.Duration `default:"24h" help:"How long it counts."`
}

func (c *tokenMakeCmd) Run(out *output) error {
	r, err := c.ring()
	if err != nil {
		return err
	}
	claims := schemas.Claims{Tenant: c.Tenant, Role: c.Role, Subject: c.Subject, ExpiresAt: time.Now().Add(c.TTL)}
	if c.Role == schemas.RoleClient {
		claims.Channels, claims.Publish = c.Channels, c.Publish
	}
	token, err := r.Sign(claims)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out.stdout, token)
	return err
}

type tokenCheckCmd struct {
	whereFlags
	JWT string `arg:"" help:"The token; - reads standard input."`
}

func (c *tokenCheckCmd) Run(out *output) error {
	r, err := c.ring()
	if err != nil {
		return err
	}
	text := []byte(c.JWT)
	if c.JWT == "-" {
		if text, err = io.ReadAll(io.LimitReader(os.Stdin, keys.MaxToken+1)); err != nil {
			return err
		}
	}
	d := r.Describe(strings.TrimSpace(string(text)))
	shown, err := json.MarshalIndent(map[string]any{
		"key": d.KeyID, "algorithm": d.Algorithm, "tenant": d.Claims.Tenant, "role": d.Claims.Role, "sub": d.Claims.Subject,
		"channels": d.Claims.Channels, "publish": d.Claims.Publish, "exp": d.Claims.ExpiresAt,
	}, "", "  ")
	if err != nil {
		return err
	}
	fmt.Fprintln(out.stdout, string(shown))
	if d.Refused != nil {
		return fmt.Errorf("%s: %w", d.Refused.Reason, d.Refused)
	}
	return nil
}

type schemasCmd struct {
	Check    schemasCheckCmd    `cmd:"" help:"Say whether a schema may follow its versions, and why not."`
	Register schemasRegisterCmd `cmd:"" help:"Register a schema."`
	List     schemasListCmd     `cmd:"" help:"List the newest version of each subject."`
	Infer    schemasInferCmd    `cmd:"" help:"Make a schema from JSON examples."`
	Encode   schemasEncodeCmd   `cmd:"" help:"Turn JSON into the wire format that any Kafka producer can send."`
}

type schemaFlags struct {
	whereFlags
	RegistryURL []string `name:"registry-url" help:"Schema registry; default: that of spillway dev."`
	TopicPrefix string   `default:"spillway." help:"What topic names begin with."`
	registryFlags
}

func (f schemaFlags) desk(out *output) desk.Desk {
	return desk.Desk{Out: out.stdout, Open: func(ctx context.Context) (*registry.Client, error) { return f.open(ctx, out) }}
}

func (f schemaFlags) open(ctx context.Context, out *output) (*registry.Client, error) {
	p, err := f.place()
	if err != nil {
		return nil, err
	}
	urls := f.RegistryURL
	if len(urls) == 0 {
		urls = []string{p.Registry}
	}
	conns, err := reach(ctx, out, connect.Use{Registry: true}, connect.Config{Registry: f.registryFlags.at(urls)})
	if err != nil {
		return nil, err
	}
	return registry.New(registry.Config{URLs: urls, HTTP: conns.Registry(), Topic: schemas.Topics{Prefix: f.TopicPrefix}.Events()})
}

type schemasCheckCmd struct {
	schemaFlags
	File    string   `arg:"" type:"existingfile" help:"Schema, .avsc."`
	Against []string `type:"existingfile" help:"Earlier versions, oldest first; default: those in the registry."`
	Subject string   `help:"Subject; default: the record's full name."`
	Level   string   `help:"NONE, BACKWARD, FORWARD, FULL or one of the last three with _TRANSITIVE; default: the subject's."`
}

func (c *schemasCheckCmd) Run(ctx context.Context, out *output) error {
	return c.desk(out).Check(ctx, desk.Question{File: c.File, Against: c.Against, Subject: c.Subject, Level: c.Level})
}

type schemasRegisterCmd struct {
	schemaFlags
	File    string `arg:"" type:"existingfile" help:"Schema, .avsc."`
	Subject string `help:"Subject; default: the record's full name."`
	Level   string `default:"FULL_TRANSITIVE" help:"Compatibility, set if this creates the subject."`
}

func (c *schemasRegisterCmd) Run(ctx context.Context, out *output) error {
	return c.desk(out).RegisterFile(ctx, c.File, c.Subject, c.Level)
}

type schemasListCmd struct{ schemaFlags }

func (c *schemasListCmd) Run(ctx context.Context, out *output) error { return c.desk(out).List(ctx) }

type schemasInferCmd struct {
	schemaFlags
	Name     string `arg:"" help:"Full name of the record: shop.Order."`
	File     string `arg:"" help:"JSON examples, one after the other; - reads standard input."`
	Register bool   `help:"Register it as well."`
}

func (c *schemasInferCmd) Run(ctx context.Context, out *output) error {
	in, err := open(c.File)
	if err != nil {
		return err
	}
	defer in.Close()
	return c.desk(out).Infer(ctx, c.Name, in, c.Register)
}

type schemasEncodeCmd struct {
	schemaFlags
	Name string `arg:"" help:"Full name of the record."`
	File string `arg:"" help:"JSON; - reads standard input."`
}

func (c *schemasEncodeCmd) Run(ctx context.Context, out *output) error {
	in, err := open(c.File)
	if err != nil {
		return err
	}
	defer in.Close()
	return c.desk(out).Encode(ctx, c.Name, in)
}

// open opens a file, or standard input for "-".
func open(file string) (io.ReadCloser, error) {
	if file == "-" {
		return io.NopCloser(os.Stdin), nil
	}
	return os.Open(file)
}

type pubCmd struct {
	whereFlags
	Tenant    string `arg:"" help:"Tenant."`
	Channel   string `arg:"" help:"Channel."`
	JSON      string `arg:"" name:"json" default:"-" help:"The event's data; - reads JSON lines from standard input."`
	Type      string `default:"demo.Message" help:"Event type: full name of a registered record."`
	ID        string `help:"Event id; with JSON lines, -1, -2 … is added. Default: its place in Kafka."`
	Key       string `help:"Idempotency key."`
	Priority  string `help:"fast or slow; default: the type's policy."`
	IngestURL string `name:"ingest-url" help:"Address of ingest; default: that of spillway dev."`
}

func (c *pubCmd) Run(ctx context.Context, out *output) error {
	p, err := c.place()
	if err != nil {
		return err
	}
	token, err := c.token(schemas.Claims{Tenant: c.Tenant, Role: schemas.RoleProducer})
	if err != nil {
		return err
	}
	to := client.Post{
		URL: cmp.Or(c.IngestURL, p.Ingest), Token: token, Type: c.Type, Channel: c.Channel, Key: c.Key, Priority: c.Priority,
	}
	if c.JSON != "-" {
		return c.send(ctx, out, to, c.ID, []byte(c.JSON))
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, schemas.MaxEvent+1)
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		id := c.ID
		if id != "" {
			id += "-" + strconv.Itoa(n)
		}
		if err := c.send(ctx, out, to, id, line); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return lines.Err()
}

func (c *pubCmd) send(ctx context.Context, out *output, to client.Post, id string, data []byte) error {
	e, err := to.Send(ctx, id, data)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out.stdout, "%s accepted, partition %d offset %d\n", e.ID, e.Partition, e.Offset)
	return err
}

type subCmd struct {
	whereFlags
	Tenant    string        `arg:"" help:"Tenant."`
	Channel   string        `arg:"" help:"Channel, prefix.* or *."`
	From      string        `default:"live" help:"live, begin, last:N, a time (RFC 3339) or a cursor."`
	Count     int           `help:"Stop after so many events; 0 never stops."`
	Timeout   time.Duration `help:"Give up after this long; 0 never does."`
	Output    string        `default:"human" enum:"human,json" help:"human, or json: CloudEvents, one a line."`
	FanoutURL string        `name:"fanout-url" help:"Address of fan-out, ws://…; default: that of spillway dev."`
}

func (c *subCmd) Run(ctx context.Context, out *output) error {
	p, err := c.place()
	if err != nil {
		return err
	}
	from, err := client.ParseFrom(c.From)
	if err != nil {
		return fmt.Errorf("--from %w", err)
	}
	token, err := c.token(schemas.Claims{Tenant: c.Tenant, Role: schemas.RoleClient, Channels: []string{c.Channel}})
	if err != nil {
		return err
	}
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("nothing more within %s", c.Timeout))
		defer cancel()
	}
	conn, err := client.Dial(ctx, client.Config{URL: cmp.Or(c.FanoutURL, p.Fanout), Token: token})
	if err != nil {
		return err
	}
	defer conn.Close()
	sub, err := conn.Subscribe(ctx, c.Channel, from)
	if err != nil {
		return err
	}
	n := 0
	for e, err := range sub.Events(ctx) {
		var gap *client.Gap
		switch {
		case errors.As(err, &gap):
			fmt.Fprintf(out.stderr, "%v; the rest is at the audit role: %s\n", gap, gap.Replay)
			continue
		case err != nil:
			return cmp.Or(ended(ctx), err)
		}
		c.print(out, e)
		if n++; n == c.Count {
			return nil
		}
	}
	return ended(ctx)
}

// ended is why ctx has ended, nil if a person ended it.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func (c *subCmd) print(out *output, e client.Event) {
	if c.Output == "json" {
		fmt.Fprintf(out.stdout, "%s\n", e.Raw)
		return
	}
	fmt.Fprintf(out.stdout, "%s  %s  %s  %s\n", e.Time().Local().Format("15:04:05.000"), e.Channel(), e.Type(), e.Data())
}

type setupCmd struct {
	clusterFlags
	tableFlags
	Partitions  int32    `help:"Partitions of events, fixed from then on; 0: what there is, else 12."`
	Regions     []string `default:"local" help:"Regions; each has a fan-out topic."`
	Replication int16    `default:"3" help:"Replicas of each partition."`
	MinISR      int16    `name:"min-isr" default:"2" help:"Replicas that must hold a record before it is acknowledged."`
	Open        bool     `help:"The default policy admits tenants that have none."`
	Compact     bool     `default:"true" negatable:"" help:"The topic control is compacted; --no-compact keeps every version, as spillway dev does."`
	Check       bool     `help:"Change nothing; report, and exit with 1 if something is missing or differs."`
}

func (c *setupCmd) Run(ctx context.Context, out *output) error {
	log := process.Logger(out.stderr, "warn", "text")
	cfg := c.connect()
	cfg.ClickHouse = c.clickhouse()
	conns, err := reach(ctx, out, c.use(c.topics()), cfg)
	if err != nil {
		return err
	}
	return conns.Explain(c.setup(ctx, out, conns, log))
}

func (c *setupCmd) use(t schemas.Topics) connect.Use {
	use := connect.Use{Kafka: true, Registry: true, ClickHouse: true, Needs: []connect.Need{connect.Topic(t.Control(), connect.Read)}}
	for _, spec := range t.Layout(schemas.DefaultPartitions, c.Regions, c.Compact) {
		if c.Check {
			use.Needs = append(use.Needs, connect.Topic(spec.Name, connect.DescribeConfigs))
			continue
		}
		use.Needs = append(use.Needs, connect.Topic(spec.Name, connect.Create, connect.DescribeConfigs))
	}
	if !c.Check {
		use.Needs = append(use.Needs, connect.Topic(t.Control(), connect.Write), connect.Transaction(t.Prefix+"control"))
	}
	return use
}

// setup:  schemas ─▶ topics ─▶ tables
func (c *setupCmd) setup(ctx context.Context, out *output, conns *connect.Connections, log *slog.Logger) error {
	reg, err := registry.New(registry.Config{URLs: c.RegistryURL, HTTP: conns.Registry(), Topic: c.topics().Events(), Logger: log})
	if err != nil {
		return err
	}
	defer reg.Close()
	learn := boot.RegisterSystem
	if c.Check {
		learn = boot.LookUpSystem
	}
	ids, err := learn(ctx, reg)
	if err != nil {
		return err
	}
	report, err := control.Setup(ctx, control.SetupConfig{
		Kafka: conns.Kafka(), Topics: c.topics(), SchemaIDs: ids, Partitions: c.Partitions, Regions: c.Regions,
		Replication: c.Replication, MinISR: c.MinISR, CompactControl: c.Compact, Open: c.Open, Check: c.Check, Logger: log, Now: time.Now,
	})
	if err != nil {
		return err
	}
	for _, line := range report.Lines() {
		fmt.Fprintln(out.stdout, line)
	}
	same, err := c.tables(ctx, out, conns)
	if err != nil {
		return err
	}
	if c.Check && !(same && report.OK()) {
		return errors.New("something is missing or differs")
	}
	return nil
}

// tables makes ClickHouse's tables, or says what differs.
func (c *setupCmd) tables(ctx context.Context, out *output, conns *connect.Connections) (same bool, err error) {
	at, err := server(conns, c.ClickhouseURL, c.ClickhouseDatabase)
	if err != nil {
		return false, err
	}
	if !c.Check {
		applied, err := audit.Migrate(ctx, audit.MigrateConfig{Server: at})
		if err == nil {
			fmt.Fprintf(out.stdout, "clickhouse: %d migrations applied\n", len(applied))
		}
		return true, err
	}
	differs, err := audit.Check(ctx, audit.MigrateConfig{Server: at})
	for _, line := range differs {
		fmt.Fprintln(out.stdout, "clickhouse:", line)
	}
	return len(differs) == 0, err
}

type controlFlags struct {
	whereFlags
	ControlURL string `name:"control-url" help:"Address of control; default: that of spillway dev."`
}

// api is a client of the control role.
func (c controlFlags) api() (*control.Client, error) {
	p, err := c.place()
	if err != nil {
		return nil, err
	}
	token, err := c.token(schemas.Claims{Tenant: schemas.Everyone, Role: schemas.RoleOperator})
	if err != nil {
		return nil, err
	}
	return &control.Client{URL: cmp.Or(c.ControlURL, p.Control), Token: token}, nil
}

type getCmd struct {
	controlFlags
	Kind   string `arg:"" optional:"" enum:"tenants,endpoints,flags,all" default:"all" help:"tenants, endpoints, flags or all."`
	Name   string `arg:"" optional:"" help:"One of them."`
	Output string `short:"o" default:"yaml" enum:"yaml,json" help:"yaml, which apply takes unchanged, or json."`
}

func (c *getCmd) Run(ctx context.Context, out *output) error {
	api, err := c.api()
	if err != nil {
		return err
	}
	kinds := map[string]control.Kind{"tenants": control.KindTenant, "endpoints": control.KindEndpoint, "flags": control.KindFlag}
	docs, err := api.Get(ctx, kinds[c.Kind], c.Name)
	if err != nil {
		return err
	}
	var text []byte
	if c.Output == "json" {
		text, err = json.MarshalIndent(docs, "", "  ")
		text = append(text, '\n')
	} else {
		text, err = control.Export(docs)
	}
	if err != nil {
		return err
	}
	_, err = out.stdout.Write(text)
	return err
}

type applyCmd struct {
	controlFlags
	File   string `short:"f" required:"" help:"YAML or JSON documents; - reads standard input."`
	DryRun bool   `help:"Say what would change, and change nothing."`
}

func (c *applyCmd) Run(ctx context.Context, out *output) error {
	in, err := open(c.File)
	if err != nil {
		return err
	}
	defer in.Close()
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	docs, err := control.Load(text)
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	api, err := c.api()
	if err != nil {
		return err
	}
	result, err := api.Apply(ctx, docs, c.DryRun)
	if err != nil {
		return err
	}
	for _, line := range result.Lines {
		fmt.Fprintln(out.stdout, line)
	}
	for _, line := range result.Warnings {
		fmt.Fprintln(out.stderr, "warning:", line)
	}
	switch {
	case len(result.Lines) == 0:
		fmt.Fprintln(out.stdout, "nothing changes")
	case c.DryRun:
		fmt.Fprintln(out.stdout, "dry run: nothing was written")
	}
	return nil
}

type routeAcceptCmd struct {
	Partition int32  `arg:"" help:"Number of the partition of events."`
	AdminURL  string `name:"admin-url" default:"http://127.0.0.1:8099" help:"Admin port of the router that refuses it."`
	Token     string `help:"An operator's token, if that port is not on loopback."`
	Yes       bool   `help:"Do it. Without it, what would happen is printed."`
}

// Run looks first: what a person accepts must be what they have read.
func (c *routeAcceptCmd) Run(ctx context.Context, out *output) error {
	router := route.Operator{URL: c.AdminURL, Token: c.Token}
	refused, err := router.Refused(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(refused, func(r route.Refused) bool { return r.Partition == c.Partition })
	if i < 0 {
		return fmt.Errorf("the router at %s does not refuse partition %d (it refuses %d partitions)", c.AdminURL, c.Partition, len(refused))
	}
	from := "the committed offset"
	if refused[i].GoOn >= 0 {
		from = fmt.Sprint("offset ", refused[i].GoOn)
	}
	fmt.Fprintf(out.stdout, "partition %d is refused (%s): %s\nIt would go on from %s with nothing remembered: repeats of the last 24 h pass, quotas and buckets begin full.\n",
		c.Partition, refused[i].Reason, refused[i].Text, from)
	if !c.Yes {
		return errors.New("nothing was done; say --yes to do it")
	}
	if err := router.Accept(ctx, c.Partition); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out.stdout, "accepted: it goes on within seconds")
	return err
}

type routeExplainCmd struct {
	whereFlags
	Topic     string `arg:"" help:"Topic without the prefix: events, or one that route writes, such as overflow or dead."`
	Partition int32  `arg:"" help:"Its partition."`
	Offset    int64  `arg:"" help:"Offset of the record."`
	Output    string `default:"human" enum:"human,json" help:"human or json."`
	meetFlags
}

func (c *routeExplainCmd) Run(ctx context.Context, out *output) error {
	p, err := c.place()
	if err != nil {
		return err
	}
	f := c.meetFlags.at(p)
	conns, err := reach(ctx, out, connect.Use{Kafka: true, Registry: true}, f.connect())
	if err != nil {
		return err
	}
	reg, err := registry.New(registry.Config{URLs: f.RegistryURL, HTTP: conns.Registry()})
	if err != nil {
		return err
	}
	defer reg.Close()
	follower, err := control.NewFollower(control.FollowerConfig{Kafka: conns.Kafka(), Topics: f.topics(), Logger: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { _ = follower.Run(ctx) }() // Wait says what went wrong
	if err := follower.Wait(ctx); err != nil {
		return conns.Explain(err)
	}
	now := follower.Snapshot()
	report, err := look.Record(ctx, look.Config{
		Kafka: conns.Kafka(), Topics: f.topics(), Partitions: now.Partitions(),
		Tenants: pinned{now}, Policies: now.Version(), Secrets: now, Schemas: route.Known(reg),
		Learn: func(ctx context.Context, id int) { _, _ = reg.Resolve(ctx, id) }, // what is not known is told as such
	}, f.topics().Prefix+c.Topic, c.Partition, c.Offset)
	if err != nil {
		return conns.Explain(err)
	}
	if c.Output == "json" {
		return out.json(report)
	}
	_, err = report.WriteTo(out.stdout)
	return err
}

// pinned are the policies of one snapshot, just read.
type pinned struct{ *control.Snapshot }

func (pinned) Age() int64 { return 0 }

type explainCmd struct {
	whereFlags
	ID       string        `arg:"" name:"event-id" help:"Event id, as accepted, or topic id/partition/offset."`
	Tenant   string        `help:"Its tenant, if several have used the id."`
	Source   string        `default:"auto" enum:"auto,clickhouse,kafka" help:"clickhouse, kafka, or auto: Kafka if ClickHouse does not answer."`
	Since    time.Duration `default:"24h" help:"How far back Kafka is read."`
	Output   string        `default:"human" enum:"human,json" help:"human or json."`
	Database string        `default:"spillway" aliases:"clickhouse-database" help:"Database of the audit."`
	meetFlags
	ClickhouseURL string `name:"clickhouse-url" help:"ClickHouse; default: that of spillway dev."`
	clickhouseFlags
}

// meetFlags say where Kafka and the registry are, unless they are those of
// spillway dev.
type meetFlags struct {
	KafkaBrokers []string `help:"Kafka bootstrap servers; default: those of spillway dev."`
	TopicPrefix  string   `default:"spillway." help:"What topic names begin with."`
	RegistryURL  []string `name:"registry-url" help:"Schema registry; default: that of spillway dev."`
	kafkaFlags
	registryFlags
}

// at fills in the addresses of spillway dev.
func (f meetFlags) at(p dev.Places) clusterFlags {
	c := clusterFlags(f)
	if len(c.KafkaBrokers) == 0 {
		c.KafkaBrokers = strings.Split(p.Kafka, ",")
	}
	if len(c.RegistryURL) == 0 {
		c.RegistryURL = []string{p.Registry}
	}
	return c
}

func (c *explainCmd) Run(ctx context.Context, out *output) error {
	p, err := c.place()
	if err != nil {
		return err
	}
	var story explain.Story
	if c.Source != "kafka" {
		story, err = c.askClickHouse(ctx, p, out)
	}
	if c.Source == "kafka" || c.Source == "auto" && err != nil && !errors.Is(err, explain.ErrNotFound) {
		if err != nil {
			fmt.Fprintln(out.stderr, "ClickHouse does not answer, Kafka is read instead:", err)
		}
		story, err = c.askKafka(ctx, p, out)
	}
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return out.json(story)
	}
	_, err = story.WriteTo(out.stdout)
	return err
}

func (c *explainCmd) askClickHouse(ctx context.Context, p dev.Places, out *output) (explain.Story, error) {
	at := cmp.Or(c.ClickhouseURL, p.ClickHouse)
	conns, err := reach(ctx, out, connect.Use{}, connect.Config{ClickHouse: c.clickhouseFlags.at(at)}) // Kafka is asked at once if it is away
	if err != nil {
		return explain.Story{}, err
	}
	s, err := server(conns, at, c.Database)
	if err != nil {
		return explain.Story{}, err
	}
	conn, err := s.Open()
	if err != nil {
		return explain.Story{}, err
	}
	defer conn.Close()
	deadline := time.Now().Add(auditLag)
	for {
		story, err := explain.Explain(ctx, explain.ClickHouse(conn), c.ID, c.Tenant)
		if !errors.Is(err, explain.ErrNotFound) || time.Now().After(deadline) {
			return story, conns.Explain(err)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return story, err
		}
	}
}

// auditLag is how far ClickHouse may be behind Kafka when all is well: who asks
// for an event that was accepted a moment ago is answered nevertheless.
const auditLag = 2 * time.Second

func (c *explainCmd) askKafka(ctx context.Context, p dev.Places, out *output) (explain.Story, error) {
	f := c.meetFlags.at(p)
	conns, err := reach(ctx, out, connect.Use{Kafka: true, Registry: true}, f.connect())
	if err != nil {
		return explain.Story{}, err
	}
	reg, err := registry.New(registry.Config{URLs: f.RegistryURL, HTTP: conns.Registry()})
	if err != nil {
		return explain.Story{}, err
	}
	defer reg.Close()
	ids, err := boot.LookUpSystem(ctx, reg)
	if err != nil {
		return explain.Story{}, err
	}
	story, err := explain.Explain(ctx, explain.Kafka(explain.KafkaConfig{
		Kafka: conns.Kafka(), Topics: f.topics(), SchemaIDs: ids, Since: time.Now().Add(-c.Since),
		Progress: func(read, total int64) { fmt.Fprintf(out.stderr, "read %d of %d records\r", read, total) },
	}), c.ID, c.Tenant)
	return story, conns.Explain(err)
}

type loadCmd struct {
	whereFlags
	Trace     string        `required:"" type:"existingfile" help:"CSV with TIMESTAMP, ContextTokens, GeneratedTokens."`
	Speed     float64       `default:"1" help:"How many times faster than it was."`
	Tenants   int           `default:"20" help:"Quiet tenants; requests go to them by 1/rank."`
	Duration  time.Duration `default:"60s" help:"How long to offer."`
	Noisy     bool          `default:"true" negatable:"" help:"Let the tenant noisy offer three times its limit."`
	Repeats   float64       `default:"0.02" help:"Share of events that are sent twice."`
	Malformed float64       `default:"0.001" help:"Malformed records, as a share of events."`
	ViaKafka  float64       `default:"0.1" help:"Share of events offered over Kafka with a foreign partitioner."`
	Seed      uint64        `default:"1" help:"Another seed, another run."`
	Grace     time.Duration `default:"150s" help:"How long after the last event all must have arrived."`
	Restarts  bool          `help:"Spillway is stopped or killed meanwhile: falling behind is not held against it."`
	JSON      bool          `name:"json" help:"Print the report as JSON."`
	Report    string        `type:"path" help:"Write the report as JSON to this file, too."`

	meetFlags
	IngestURL  string `name:"ingest-url" help:"Address of ingest; default: that of spillway dev."`
	FanoutURL  string `name:"fanout-url" help:"Address of fan-out, ws://…; default: that of spillway dev."`
	ControlURL string `name:"control-url" help:"Address of control; default: that of spillway dev."`
}

func (c *loadCmd) Run(ctx context.Context, out *output) error {
	cfg, err := c.config(ctx, out)
	if err != nil {
		return err
	}
	report, err := load.Run(ctx, cfg)
	if err != nil {
		return err
	}
	write := report.Write
	if c.JSON {
		write = report.WriteJSON
	}
	if err := write(out.stdout); err != nil {
		return err
	}
	if c.Report != "" {
		var text bytes.Buffer
		if err := report.WriteJSON(&text); err != nil {
			return err
		}
		if err := os.WriteFile(c.Report, text.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if len(report.Failures) > 0 {
		return fmt.Errorf("%d things do not add up", len(report.Failures))
	}
	return nil
}

func (c *loadCmd) config(ctx context.Context, out *output) (cfg load.Config, err error) {
	p, err := c.place()
	if err != nil {
		return cfg, err
	}
	ring, err := c.ring()
	if err != nil {
		return cfg, err
	}
	f, err := os.Open(c.Trace)
	if err != nil {
		return cfg, err
	}
	defer f.Close()
	rows, err := load.ReadTrace(f)
	if err != nil {
		return cfg, err
	}
	at := c.meetFlags.at(p)
	conns, err := reach(ctx, out, connect.Use{Kafka: true, Registry: true}, at.connect())
	if err != nil {
		return cfg, err
	}
	return load.Config{
		Plan: load.PlanConfig{
			Trace: rows, Speed: c.Speed, Tenants: c.Tenants, Duration: c.Duration,
			Repeats: c.Repeats, Malformed: c.Malformed, Kafka: c.ViaKafka, Seed: c.Seed,
		},
		Kafka: conns.Kafka(), Topics: at.topics(), RegistryURL: at.RegistryURL[0], RegistryHTTP: conns.Registry(),
		IngestURL: cmp.Or(c.IngestURL, p.Ingest), FanoutURL: cmp.Or(c.FanoutURL, p.Fanout), ControlURL: cmp.Or(c.ControlURL, p.Control),
		Noisy: c.Noisy, Restarts: c.Restarts, Grace: c.Grace, Progress: out.stderr, Now: time.Now,
		Token: func(tenant, role string) (string, error) {
			return ring.Sign(schemas.Claims{
				Tenant: tenant, Role: role, Subject: "load", Channels: channelsOf(role), ExpiresAt: time.Now().Add(c.Duration + time.Hour),
			})
		},
	}, nil
}

func channelsOf(role string) []string {
	if role == schemas.RoleClient {
		return []string{"*"}
	}
	return nil
}
