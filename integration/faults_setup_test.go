//go:build integration

package integration

import (
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
)

// TestSetup: `spillway setup` creates the topics as they must be, tells each
// way in which one differs, changes none that is there, and says in one line
// what Kafka refuses.
func TestSetup(t *testing.T) { onBroker(t, "setup.", testSetup) }

func testSetup(t *testing.T, d *deployment) {
	check := func(args ...string) (string, bool) {
		out, err := d.setup(t, append(args, "--check")...)
		return out, err == nil
	}
	if out, good := check(); good || !strings.Contains(out, "setup.events is missing") {
		t.Errorf("nothing is there, and --check says (%v):\n%s", good, out)
	}
	d.mustSetup(t)
	if out, good := check(); !good || strings.Contains(out, "!") {
		t.Errorf("after setup, --check says (%v):\n%s", good, out)
	}
	adm := d.admin(t)
	configs, err := adm.DescribeTopicConfigs(t.Context(), "setup.events", "setup.control")
	if err != nil {
		t.Fatal(err)
	}
	real := map[string]string{}
	for _, c := range configs {
		for _, entry := range c.Configs {
			real[c.Name+" "+entry.Key] = entry.MaybeValue()
		}
	}
	for what, want := range map[string]string{
		"setup.events message.timestamp.type": "LogAppendTime", "setup.events cleanup.policy": "delete", "setup.events retention.ms": "604800000",
		"setup.events max.message.bytes": "16777216", "setup.events min.insync.replicas": "1", "setup.events unclean.leader.election.enable": "false",
		"setup.control cleanup.policy": "compact",
	} {
		if real[what] != want {
			t.Errorf("%s is %q, want %q", what, real[what], want)
		}
	}
	grown, err := adm.UpdatePartitions(t.Context(), 15, "setup.events")
	if err := errors.Join(err, grown.Error()); err != nil {
		t.Fatal(err)
	}
	alter(t, adm, "setup.control", "cleanup.policy", "delete")
	alter(t, adm, "setup.audit", "message.timestamp.type", "CreateTime")
	alter(t, adm, "setup.overflow", "max.message.bytes", "1000000", "retention.ms", "1000")
	differ := []string{
		"! setup.events partitions is 15, must be 12",
		"! setup.control cleanup.policy is delete, must be compact",
		"! setup.audit message.timestamp.type is CreateTime, must be LogAppendTime",
		"! setup.overflow max.message.bytes is 1000000, must be 20971520",
		"! setup.overflow retention.ms is 1000, must be 604800000",
	}
	out, good := check()
	for _, line := range differ {
		if good || !strings.Contains(out, line) {
			t.Errorf("--check (%v) does not say %q:\n%s", good, line, out)
		}
	}
	if n := strings.Count(out, "\n! ") + strings.Count(out[:min(2, len(out))], "! "); n != len(differ) {
		t.Errorf("%d differences, want %d:\n%s", n, len(differ), out)
	}
	if out, err := d.setup(t); err != nil || !strings.Contains(out, differ[0]) || strings.Contains(out, "WARN") { // nothing is changed that is there
		t.Errorf("setup (%v) does not say %q:\n%s", err, differ[0], out)
	}
	if out, good := check("--replication", "2"); good || !strings.Contains(out, "! setup.events replication is 1, must be 2") {
		t.Errorf("--check of replication (%v):\n%s", good, out)
	}
	testSetupRefused(t, d, adm)
}

// testSetupRefused: one broker cannot hold three replicas.
func testSetupRefused(t *testing.T, d *deployment, adm *kadm.Client) {
	refused := &deployment{site: d.site, prefix: "refused."}
	out, err := refused.setup(t, "--replication", "3", "--min-isr", "2")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	last := lines[len(lines)-1]
	if err == nil || len(lines) > 1 || !strings.Contains(last, "refused.") || !strings.Contains(last, "--replication") || !strings.Contains(last, "INVALID_REPLICATION_FACTOR") {
		t.Errorf("setup with more replicas than brokers (%v) says:\n%s", err, out)
	}
	topics, err := adm.ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range topics.Names() {
		if strings.HasPrefix(name, "refused.") {
			t.Errorf("%s was created", name)
		}
	}
}
