//go:build integration

package integration

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestTopicsMadeAnew deletes topics and has setup create them again while
// roles run: each says so, decides nothing wrong, and what was accepted after
// that arrives.
func TestTopicsMadeAnew(t *testing.T) { onBroker(t, "anew.", testTopicsMadeAnew) }

func testTopicsMadeAnew(t *testing.T, d *deployment) {
	d.mustSetup(t)
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	a := &anew{
		deployment: d, ingest: d.role(t, "ingest", "--listen", local(ports[0])), delay: d.role(t, "delay"), route: d.role(t, "route"),
		token:  strings.TrimSpace(d.run(t, "", "token", "acme", "--role", "producer")),
		sender: &sending{s: &site{stack: elsewhere{d.stack, web(ports[0])}}},
	}
	a.accept(t, "first")
	a.arrives(t, "first")
	for _, story := range []struct {
		topic string
		tell  func(*testing.T)
	}{{"fanout.local", a.fanoutAnew}, {"events", a.eventsAnew}, {"overflow", a.overflowAnew}, {"control", a.controlAnew}} {
		t.Run(story.topic, story.tell)
	}
}

// anew is a deployment whose topics are made anew.
type anew struct {
	*deployment
	ingest, delay, route *proc
	token                string
	sender               *sending
}

// fanoutAnew: what route writes to goes away. Nothing is committed, and nothing
// is lost.
func (a *anew) fanoutAnew(t *testing.T) {
	a.remake(t, "fanout.local", func() {
		a.accept(t, "meanwhile")
		a.says(t, a.route, "anew.fanout.local")
	})
	a.arrives(t, "meanwhile")
	a.well(t, a.route)
}

// eventsAnew: the log itself. Ingest takes nothing and then goes on; route
// refuses the other log until it is started anew.
func (a *anew) eventsAnew(t *testing.T) {
	a.remake(t, "events", func() { a.says(t, a.ingest, "anew.events") })
	a.accept(t, "of the new log")
	a.well(t, a.ingest)
	a.says(t, a.route, "anew.events was deleted and made anew")
	if !strings.Contains(a.route.out.String(), "a partition is refused") {
		t.Errorf("route's log does not say so:\n%s", tail(a.route.out.String()))
	}
	text := ""
	eventually(t, "the metric says that all 12 partitions are refused", func() bool {
		_, text = get(t, web(a.route.admin)+"/metrics")
		sum := 0
		for _, m := range refusedRecreated.FindAllStringSubmatch(text, -1) {
			n, _ := strconv.Atoi(m[1]) // digits only
			sum += n
		}
		return sum == 12
	}, func() string { return text })
	if _, text := get(t, web(a.ingest.admin)+"/metrics"); !strings.Contains(text, "spillway_ingest_topic_changes_total 1") {
		t.Error("ingest's metrics do not say so")
	}
	roles := newRoleSet(a.data, a.at(), nil)
	if err := errors.Join(roles.kill(a.route), roles.start(a.route)); err != nil {
		t.Fatal(err)
	}
	a.arrives(t, "of the new log")
}

var refusedRecreated = regexp.MustCompile(`spillway_route_refused_partitions{reason="recreated",session="\d"} (\d+)`)

// overflowAnew: what delay reads. It ends with the reason; a restart reads the
// new one.
func (a *anew) overflowAnew(t *testing.T) {
	a.remake(t, "overflow", func() {})
	ended := make(chan error, 1)
	go func() { ended <- a.delay.cmd.Wait() }()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(a.delay.out.String(), "anew.overflow") {
			t.Errorf("delay ended with %v:\n%s", err, tail(a.delay.out.String()))
		}
	case <-time.After(time.Minute):
		t.Fatalf("delay does not end:\n%s", tail(a.delay.out.String()))
	}
	if err := newRoleSet(a.data, a.at(), nil).start(a.delay); err != nil {
		t.Error(err)
	}
}

// controlAnew: tenants and secrets. All keep what they know and say so.
func (a *anew) controlAnew(t *testing.T) {
	a.remake(t, "control", func() {})
	for _, p := range []*proc{a.ingest, a.route, a.delay} {
		a.says(t, p, "made anew")
	}
}

// accept sends an event until it is acknowledged.
func (a *anew) accept(t *testing.T, id string) {
	t.Helper()
	var err error
	id = strings.ReplaceAll(id, " ", "+")
	eventually(t, id+" is accepted", func() bool { _, err = a.sender.post("anew", id, a.token); return err == nil }, func() string { return fmt.Sprint(err) })
}

// arrives waits until it is let through, once.
func (a *anew) arrives(t *testing.T, id string) {
	t.Helper()
	eventually(t, id+" is let through", func() bool {
		return a.count(t, "anew.fanout.local", func(r *kgo.Record) bool { return strings.Contains(string(r.Value), `"id":"`+id+`"`) }) == 1
	}, func() string { return tail(a.route.out.String()) })
}

// says waits until a role says that it cannot do its work, and why.
func (a *anew) says(t *testing.T, p *proc, why string) {
	t.Helper()
	text := ""
	eventually(t, p.name+" is not ready: "+why, func() (ok bool) {
		var code int
		code, text = askReady(t, p)
		return code == http.StatusServiceUnavailable && strings.Contains(text, why)
	}, func() string { return text })
	t.Logf("%s: %s", p.name, text)
}

// well waits until a role is ready.
func (a *anew) well(t *testing.T, p *proc) {
	t.Helper()
	text := ""
	eventually(t, p.name+" is ready", func() (ok bool) {
		var code int
		code, text = askReady(t, p)
		return code == http.StatusOK
	}, func() string { return text })
}

// elsewhere is a stack whose ingest is another one.
type elsewhere struct {
	stack
	ingest string
}

func (e elsewhere) at() places {
	p := e.stack.at()
	p.Ingest = e.ingest
	return p
}
