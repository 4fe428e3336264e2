package connect

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Use says which parts a process uses and what it does with Kafka.
type Use struct {
	Kafka      bool
	Needs      []Need
	Registry   bool
	ClickHouse bool
	// Spare lets the registry go away once the process runs: it goes on with
	// the schemas that it knows.
	Spare bool
	// Exist wants the topics to be there.
	Exist bool
	// Later lets ClickHouse be away: who writes to it can wait for it.
	Later bool
}

// Times of a check.
const (
	checkTimeout = 15 * time.Second // for each part
	tryTimeout   = 7 * time.Second
	answerWithin = 3 * time.Second // of one broker; then another is asked
	checkPause   = 250 * time.Millisecond
)

// A probe asks one part once.
type probe struct {
	part, address string // address: the setting that says where it is
	try           func(context.Context) error
	later         bool // may be away at the start
	spare         bool // may go away later
}

// The parts as a person calls them.
const (
	kafkaPart      = "Kafka"
	registryPart   = "the schema registry"
	clickhousePart = "ClickHouse"
)

func (c *Connections) probes(use Use) (out []probe) {
	if use.Kafka {
		out = append(out, probe{part: kafkaPart, address: "--kafka-brokers", try: func(ctx context.Context) error { return c.askKafka(ctx, use) }})
	}
	if use.Registry {
		out = append(out, probe{part: registryPart, address: "--registry-url", try: c.askRegistry, spare: use.Spare})
	}
	if use.ClickHouse {
		out = append(out, probe{part: clickhousePart, address: "--clickhouse-url", try: c.askClickHouse, later: use.Later})
	}
	return out
}

// Check connects to the parts that are used and asks whether we may do what we
// need. What may pass, such as a broker that is just starting, is tried again
// for 15 s a part, with one line in the log. The error is a *Refused.
func (c *Connections) Check(ctx context.Context, use Use) error {
	return c.checkAll(ctx, c.probes(use))
}

func (c *Connections) checkAll(ctx context.Context, probes []probe) error {
	for _, p := range probes {
		if err := c.await(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// Lines say for a person what Check found, a part a line.
func (c *Connections) Lines(use Use) (out []string) {
	if k := c.cfg.Kafka; use.Kafka {
		how := "in clear"
		if k.TLS {
			how = "over TLS"
		}
		out = append(out, fmt.Sprintf("kafka: %s %s as %s, %d permissions: ok", strings.Join(k.Brokers, ","), how, c.principal(), len(use.Needs)))
	}
	for _, w := range []struct {
		part string
		used bool
		web  *Web
	}{{"registry", use.Registry, &c.cfg.Registry}, {"clickhouse", use.ClickHouse, &c.cfg.ClickHouse}} {
		if w.used {
			for _, u := range w.web.URLs {
				out = append(out, w.part+": "+redacted(u)+": ok")
			}
		}
	}
	return out
}

// await asks a part until it answers, its time is over, or ctx ends.
func (c *Connections) await(ctx context.Context, p probe) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	var told error // what a try said of a setting; the last one may only have run out of time
	for said := false; ; said = true {
		err := c.once(ctx, p)
		if isRefused(err) {
			told = err
		}
		switch {
		case err == nil || final(err):
			return err
		case p.later:
			c.cfg.Logger.Warn("a part cannot be reached yet, what it shall have waits", "part", p.part, "err", err)
			return nil
		case !said:
			c.cfg.Logger.Warn("a part cannot be reached yet, trying again", "part", p.part, "err", err, "most", checkTimeout)
		}
		select {
		case <-time.After(checkPause):
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return c.given(p, cmp.Or(told, err))
		}
	}
}

// once asks a part and explains the error.
func (c *Connections) once(ctx context.Context, p probe) error {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	return c.explain(p.try(ctx))
}

func isRefused(err error) bool {
	var r *Refused
	return errors.As(err, &r)
}

// given is the last word about a part that did not answer in time.
func (c *Connections) given(p probe, err error) error {
	if isRefused(err) {
		return err
	}
	return setting(p.address, "%s cannot be reached: %w", p.part, err)
}

func (c *Connections) askKafka(ctx context.Context, use Use) error {
	var t trace
	client, err := kgo.NewClient(append(c.Kafka(), kgo.WithHooks(&t), c.dialWithin(answerWithin), kgo.RequestTimeoutOverhead(answerWithin),
		kgo.RequestRetries(len(c.cfg.Kafka.Brokers)), kgo.RetryTimeout(tryTimeout), kgo.RetryBackoffFn(func(int) time.Duration { return checkPause }))...)
	if err != nil {
		return err
	}
	defer client.Close()
	lacking, missing, err := denied(ctx, client, use.Needs)
	if cause := t.cause(); cause != nil && (errors.Is(err, context.DeadlineExceeded) || isBareEOF(err)) { // a bare EOF says nothing
		return cause
	}
	if err != nil {
		return err
	}
	switch {
	case len(lacking) > 0:
	case use.Exist && len(missing) > 0:
		return setting("--topic-prefix", "these topics are missing: %s; run spillway setup", strings.Join(missing, ", "))
	default:
		return nil
	}
	texts := make([]string, len(lacking))
	for i, n := range lacking {
		texts[i] = n.String()
	}
	return setting(c.who(), "Kafka does not allow %s what is needed; these ACLs are missing: %s", c.principal(), strings.Join(texts, "; "))
}

// isBareEOF reports whether an error is an EOF without a word on what ended.
func isBareEOF(err error) bool {
	var first *kgo.ErrFirstReadEOF
	return errors.Is(err, io.EOF) && !errors.As(err, &first)
}

// askRegistry asks each address until one answers.
func (c *Connections) askRegistry(ctx context.Context) error {
	var last error
	for _, base := range c.cfg.Registry.URLs {
		if last = c.askRegistryAt(ctx, base); last == nil || final(last) {
			return last
		}
	}
	return last
}

func (c *Connections) askRegistryAt(ctx context.Context, base string) error {
	transport := c.registryTransport()
	defer transport.CloseIdleConnections()
	status, text, err := ask(ctx, transport, http.MethodGet, strings.TrimRight(base, "/")+"/subjects", "")
	if err != nil {
		return c.explain(&askedError{"registry", err})
	}
	text = bytes.TrimSpace(text)
	switch refused := c.refusedBy("registry", status, ""); {
	case refused != nil:
		return refused
	case status == http.StatusOK && bytes.HasPrefix(text, []byte("[")):
		return nil
	case status == http.StatusNotFound:
		return setting("--registry-url", "%s has no /subjects: is the path of its Confluent-compatible API missing?", redacted(base))
	}
	return passing("--registry-url", "%s is not answered as a registry would: %d %s", redacted(base), status, start(text))
}

func (c *Connections) askClickHouse(ctx context.Context) error {
	w := &c.cfg.ClickHouse
	transport := &signed{web: w, next: c.clickhouse.transports(w.URLs), header: func(r *http.Request, user, password string) {
		r.Header.Set("X-ClickHouse-User", user)
		if password != "" {
			r.Header.Set("X-ClickHouse-Key", password)
		} else if w.Files.Cert != "" {
			r.Header.Set("X-ClickHouse-SSL-Certificate-Auth", "on")
		}
	}}
	defer transport.CloseIdleConnections()
	u, err := url.Parse(w.URLs[0])
	if err != nil {
		return setting("--clickhouse-url", "cannot be read as an address")
	}
	status, text, err := ask(ctx, transport, http.MethodPost, u.String(), "SELECT 1")
	if err != nil {
		return c.explain(&askedError{"clickhouse", err})
	}
	switch refused := c.refusedBy("clickhouse", status, start(text)); {
	case refused != nil:
		return refused
	case status == http.StatusOK && strings.TrimSpace(string(text)) == "1":
		return nil
	}
	return passing("--clickhouse-url", "%s is not answered as ClickHouse would: %d %s", u.Redacted(), status, start(text))
}

// ask sends one request and reads the beginning of its answer.
func ask(ctx context.Context, transport http.RoundTripper, method, to, body string) (int, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, to, strings.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("the address cannot be read")
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	return resp.StatusCode, text, err
}

// start is the first line of a text, 200 bytes at most.
func start(text []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(text), []byte("\n"))
	return fmt.Sprintf("%q", line[:min(len(line), 200)])
}

func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "the address"
	}
	return u.Redacted()
}
