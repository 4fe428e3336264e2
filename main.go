// Command spillway is every layer of Spillway: a Kafka-native, multi-tenant
// realtime event pipeline. Each layer is a subcommand; `spillway dev` runs all
// of them with the parts they need.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/willabides/kongplete"

	"github.com/spillway/spillway/control/admin"
)

// version is set by the linker (see Makefile).
var version = "dev"

// commands is the table of subcommands: roles first, then what a person calls.
// Roles are wired in roles.go, the rest in people.go.
type commands struct {
	Dev     devCmd     `cmd:"" group:"Roles" help:"Run everything on this machine: broker, registry, ClickHouse, all roles."`
	Ingest  ingestCmd  `cmd:"" group:"Roles" help:"Take events over HTTP and write them to Kafka."`
	Route   routeCmd   `cmd:"" group:"Roles" help:"Decide once about each event: valid, new, within budget, where to."`
	Delay   delayCmd   `cmd:"" group:"Roles" help:"Give back what waits, when it is due."`
	Fanout  fanoutCmd  `cmd:"" group:"Roles" help:"Deliver a region's events to WebSocket and SSE clients."`
	Audit   auditCmd   `cmd:"" group:"Roles" help:"Write what happened to ClickHouse and answer for it."`
	Control controlCmd `cmd:"" group:"Roles" help:"Hold tenants and endpoints; validate what may change."`

	Setup   setupCmd   `cmd:"" group:"People" help:"Create topics, schemas and tables, or say what differs."`
	Schemas schemasCmd `cmd:"" group:"People" help:"Check, register, list, infer and use schemas."`
	Token   tokenCmd   `cmd:"" group:"People" help:"Make or read a token."`
	Pub     pubCmd     `cmd:"" group:"People" help:"Publish an event, or JSON lines from standard input."`
	Sub     subCmd     `cmd:"" group:"People" help:"Subscribe to a channel and print what comes."`
	Explain explainCmd `cmd:"" group:"People" help:"Tell an event's story, step by step."`
	Get     getCmd     `cmd:"" group:"People" help:"Print tenants and endpoints."`
	Apply   applyCmd   `cmd:"" group:"People" help:"Change tenants and endpoints from a file."`
	Load    loadCmd    `cmd:"" group:"People" help:"Play a trace through the pipeline and check every delivery."`

	Ready      readyCmd                     `cmd:"" group:"Other" help:"Say whether a role can do its work now: for health checks of containers."`
	Version    versionCmd                   `cmd:"" group:"Other" help:"Print which build this is."`
	Completion kongplete.InstallCompletions `cmd:"" group:"Other" help:"Print the line that switches shell completion on."`

	DevEngine engineCmd `cmd:"" hidden:""` // the embedded ClickHouse's own process
}

func main() {
	ctx, stop := interruptible(context.Background())
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

const description = `Kafka-native, multi-tenant realtime event pipeline.

Every flag --like-this may also be set as SPILLWAY_LIKE_THIS, a secret also as SPILLWAY_LIKE_THIS_FILE, the file it is kept in.

SIGTERM stops a role in order: it takes nothing new, finishes what is under way, and ends. SIGHUP has it read keys, certificates and secrets again.

Exit status: 0 done, or stopped in order; 1 it could not be done, and the last line says why; 2 it was asked wrongly; 130 a second SIGTERM or SIGINT came before all had ended.`

// run is the whole program. It returns the exit status: 0, 1 if the command
// could not do what was asked, 2 if it was asked wrongly.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var table commands
	exit := -1
	parser, err := kong.New(&table,
		kong.Name("spillway"),
		kong.Description(description),
		kong.DefaultEnvars("SPILLWAY"),
		kong.Vars{"data": defaultData()},
		kong.Resolvers(secretFiles()),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exit = code }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(&output{stdout, stderr}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "spillway:", err)
		return 2
	}
	kongplete.Complete(parser)
	if len(args) == 0 {
		args = []string{"--help"}
	}
	if args[0] == "route" && (len(args) == 1 || strings.HasPrefix(args[1], "-")) {
		args = slices.Insert(slices.Clone(args), 1, "run") // its --help is that of the role
	}
	command, err := parser.Parse(args)
	switch {
	case exit >= 0: // --help was asked for
		return exit
	case err != nil:
		fmt.Fprintf(stderr, "spillway: %v (%s --help says how)\n", err, asked(err))
		return 2
	}
	if err := command.Run(); err != nil {
		fmt.Fprintln(stderr, "spillway:", err)
		return 1
	}
	return 0
}

// asked is the command that was asked wrongly, as far as it was understood.
func asked(err error) string {
	name := "spillway"
	var wrong *kong.ParseError
	if errors.As(err, &wrong) {
		for _, step := range wrong.Context.Path {
			if step.Command != nil {
				name += " " + step.Command.Name
			}
		}
	}
	return name
}

// output is where a command writes.
type output struct{ stdout, stderr io.Writer }

// json writes v for programs to read.
func (o *output) json(v any) error {
	e := json.NewEncoder(o.stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

type versionCmd struct{}

func (versionCmd) Run(out *output) error {
	v := build()
	_, err := fmt.Fprintf(out.stdout, "spillway %s %s %s\n", v.Version, v.Revision, v.Go)
	return err
}

type readyCmd struct {
	URL string `arg:"" default:"http://127.0.0.1:8099/readyz" help:"Where its admin port is."`
}

// Run asks once; the reason goes to standard error.
func (c *readyCmd) Run(ctx context.Context, out *output) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second) // health checks wait 5 s
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 16<<10))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", bytes.TrimSpace(text))
	}
	_, err = out.stdout.Write(text)
	return err
}

// build says which build this is.
func build() admin.Version {
	v := admin.Version{Version: version}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Go = info.GoVersion
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Revision = s.Value
			}
		}
	}
	return v
}

// interruptible ends the context at the first SIGINT or SIGTERM; a second one
// ends the process at once.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // lives as long as the process
		<-signals
		cancel()
		<-signals
		os.Exit(130)
	}()
	return ctx, cancel
}
