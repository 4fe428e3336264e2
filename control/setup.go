package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// SetupConfig says what a deployment's topics must be like.
type SetupConfig struct {
	Kafka          []kgo.Opt
	Topics         schemas.Topics
	SchemaIDs      map[string]int32 // ids of schemas.ControlSchemas by full name; absent: 0
	Partitions     int32            // P; 0: what control says, else schemas.DefaultPartitions
	Regions        []string         // one at least
	Replication    int16            // of every topic; 0: 3
	MinISR         int16            // min.insync.replicas; 0: 2, or 1 with one replica
	CompactControl bool             // false: control keeps everything (the embedded broker)
	Open           bool             // the default policy admits tenants that have none
	Check          bool             // report, change nothing
	Logger         *slog.Logger     // nil: slog.Default()
	Now            func() time.Time // nil: time.Now
}

func (c *SetupConfig) validate() error {
	if c.Replication == 0 {
		c.Replication = 3
	}
	if c.MinISR == 0 {
		c.MinISR = min(2, c.Replication)
	}
	if c.Replication < 0 || c.MinISR < 1 || c.MinISR > c.Replication {
		return fmt.Errorf("min-isr: must be 1 to replication (%d), got %d", c.Replication, c.MinISR)
	}
	b := c.bootstrap()
	err := b.validate()
	c.Logger, c.Now = b.Logger, b.Now
	return err
}

func (c *SetupConfig) bootstrap() BootstrapConfig {
	return BootstrapConfig{
		Kafka: c.Kafka, Topics: c.Topics, SchemaIDs: c.SchemaIDs, Partitions: c.Partitions,
		Regions: c.Regions, Open: c.Open, Logger: c.Logger, Now: c.Now,
	}
}

// A Difference is one way in which a topic is not what it must be.
type Difference struct {
	Topic, What, Want, Have string
}

// Report is what Setup found and did.
type Report struct {
	Partitions  int32        // P in force
	Created     []string     // topics made now
	Missing     []string     // topics that are not there (Check)
	Same        int          // topics that are as they must be
	Differences []Difference // nothing of this was changed
	Unready     []string     // what else is not set up (Check)
}

// OK reports whether everything is there and as it must be.
func (r Report) OK() bool { return len(r.Missing)+len(r.Differences)+len(r.Unready) == 0 }

// Lines is the report for a person.
func (r Report) Lines() []string {
	var out []string
	for _, name := range r.Created {
		out = append(out, "+ "+name+" created")
	}
	for _, name := range r.Missing {
		out = append(out, "- "+name+" is missing")
	}
	for _, d := range r.Differences {
		out = append(out, fmt.Sprintf("! %s %s is %s, must be %s", d.Topic, d.What, cmp.Or(d.Have, "unset"), d.Want))
	}
	for _, text := range r.Unready {
		out = append(out, "- "+text)
	}
	return append(out, fmt.Sprintf("%d topics as they must be, %d created, %d missing, %d differences; %d partitions", r.Same, len(r.Created), len(r.Missing), len(r.Differences), r.Partitions))
}

// Setup creates the topics that a deployment lacks, then what control begins
// with (Bootstrap). A topic that is there but different is reported and never
// changed. It may be called any number of times.
func Setup(ctx context.Context, cfg SetupConfig) (Report, error) {
	if err := cfg.validate(); err != nil {
		return Report{}, fmt.Errorf("setup: %w", err)
	}
	admin, err := kadm.NewOptClient(cfg.Kafka...)
	if err != nil {
		return Report{}, fmt.Errorf("setup: %w", err)
	}
	defer admin.Close()
	s := &setup{cfg: cfg, admin: admin}
	if err := s.partitions(ctx); err != nil {
		return s.report, fmt.Errorf("setup: %w", err)
	}
	if err := s.topics(ctx); err != nil {
		return s.report, fmt.Errorf("setup: %w", err)
	}
	if !cfg.Check {
		if _, err := Bootstrap(ctx, s.cfg.bootstrap()); err != nil {
			return s.report, fmt.Errorf("setup: %w", err)
		}
	}
	return s.report, nil
}

// setup is one run of Setup.
type setup struct {
	cfg    SetupConfig
	admin  *kadm.Client
	report Report
}

// partitions settles P before anything is created with it: what control says
// wins, and a wish for another is refused.
func (s *setup) partitions(ctx context.Context) error {
	topics, err := s.admin.ListTopics(ctx, s.cfg.Topics.Control())
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	b := s.cfg.bootstrap()
	var entries map[key]entry
	if topics.Has(s.cfg.Topics.Control()) {
		if entries, _, err = readToEnd(ctx, b.writer()); err != nil {
			return err
		}
	}
	missing, settings, err := b.missing(entries)
	if err != nil {
		return err
	}
	s.cfg.Partitions, s.report.Partitions = settings.Partitions, settings.Partitions
	if s.cfg.Check {
		for _, c := range missing {
			what := c.key.String()
			if secret, ok := c.value.(storedSecret); ok {
				what = "secret for " + secret.Use
			}
			s.report.Unready = append(s.report.Unready, "control lacks "+what)
		}
	}
	return nil
}

func (s *setup) topics(ctx context.Context) error {
	layout := s.cfg.Topics.Layout(s.cfg.Partitions, s.cfg.Regions, s.cfg.CompactControl)
	names := make([]string, len(layout))
	for i := range layout {
		layout[i].Config = maps.Clone(layout[i].Config)
		layout[i].Config["min.insync.replicas"] = strconv.Itoa(int(s.cfg.MinISR))
		layout[i].Config[uncleanElection] = "false"
		names[i] = layout[i].Name
	}
	there, err := s.admin.ListTopics(ctx, names...)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	var present []string
	for _, name := range names {
		if there.Has(name) {
			present = append(present, name)
		}
	}
	configs := map[string]map[string]string{}
	if len(present) > 0 { // asked about nothing, Kafka tells about everything
		if configs, err = s.configs(ctx, present); err != nil {
			return err
		}
	}
	for _, spec := range layout {
		if err := s.topic(ctx, spec, there[spec.Name], configs[spec.Name]); err != nil {
			return err
		}
	}
	return nil
}

func (s *setup) configs(ctx context.Context, names []string) (map[string]map[string]string, error) {
	described, err := s.admin.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	out := map[string]map[string]string{}
	for _, d := range described {
		if d.Err != nil {
			return nil, fmt.Errorf("describe %s: %w", d.Name, d.Err)
		}
		out[d.Name] = map[string]string{}
		for _, c := range d.Configs {
			out[d.Name][c.Key] = c.MaybeValue()
		}
	}
	return out, nil
}

const uncleanElection = "unclean.leader.election.enable"

// topic creates one topic or says how it differs.
func (s *setup) topic(ctx context.Context, spec schemas.TopicSpec, have kadm.TopicDetail, config map[string]string) error {
	switch {
	case config != nil:
		s.compare(spec, have, config)
		return nil
	case s.cfg.Check:
		s.report.Missing = append(s.report.Missing, spec.Name)
		return nil
	}
	wanted := make(map[string]*string, len(spec.Config))
	for name, value := range spec.Config {
		wanted[name] = kadm.StringPtr(value)
	}
	answer, err := s.admin.CreateTopic(ctx, spec.Partitions, s.cfg.Replication, wanted, spec.Name)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) { // two setups at once make the same
		return s.refused(spec, answer.ErrMessage, err)
	}
	s.report.Created = append(s.report.Created, spec.Name)
	return nil
}

// refused is why a topic was not created, in one line: the setting to look at,
// Kafka's code, and its own words.
func (s *setup) refused(spec schemas.TopicSpec, words string, err error) error {
	what := ""
	switch {
	case errors.Is(err, kerr.InvalidReplicationFactor):
		what = fmt.Sprintf(" with --replication %d", s.cfg.Replication)
	case errors.Is(err, kerr.InvalidPartitions):
		what = fmt.Sprintf(" with %d partitions (--partitions)", spec.Partitions)
	case errors.Is(err, kerr.PolicyViolation):
		what = " (the brokers' create.topic.policy.class.name says what may be)"
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		what = " (the user needs the ACL CREATE for topics with the prefix " + s.cfg.Topics.Prefix + ")"
	case errors.Is(err, kerr.InvalidConfig):
		what = " (one of its settings is not allowed)"
	}
	if words != "" {
		return fmt.Errorf("Kafka refuses to create topic %s%s: %w Kafka says: %s", spec.Name, what, err, words)
	}
	return fmt.Errorf("Kafka refuses to create topic %s%s: %w", spec.Name, what, err)
}

func (s *setup) compare(spec schemas.TopicSpec, have kadm.TopicDetail, config map[string]string) {
	before := len(s.report.Differences)
	differ := func(what, want, is string) {
		if want != is {
			s.report.Differences = append(s.report.Differences, Difference{spec.Name, what, want, is})
		}
	}
	differ("partitions", strconv.Itoa(int(spec.Partitions)), strconv.Itoa(len(have.Partitions)))
	differ("replication", strconv.Itoa(int(s.cfg.Replication)), strconv.Itoa(have.Partitions.NumReplicas()))
	for _, name := range slices.Sorted(maps.Keys(spec.Config)) {
		is, known := config[name]
		if !known && name == uncleanElection {
			continue // a broker that has no such setting, as the embedded one, has no such election
		}
		differ(name, spec.Config[name], is)
	}
	if len(s.report.Differences) == before {
		s.report.Same++
	}
}
