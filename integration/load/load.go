package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"golang.org/x/sync/errgroup"

	"github.com/spillway/spillway/schemas"
)

// Config says what to play and to whom.
type Config struct {
	Plan         PlanConfig // NoisyRate is set from the tenant's own policy, three times its rate
	Kafka        []kgo.Opt  // brokers
	Topics       schemas.Topics
	RegistryURL  string
	RegistryHTTP *http.Client // how it is asked: TLS, credentials; nil: in clear, without
	IngestURL    string
	FanoutURL    string        // ws://…
	ControlURL   string        // where the quiet tenants' policies are set, and the noisy one's is read
	Noisy        bool          // whether the tenant "noisy" plays
	Restarts     bool          // Spillway is stopped or killed during the run: what that delays is not held against it
	Grace        time.Duration // how long after the last event everything must have arrived
	Token        func(tenant, role string) (string, error)
	Progress     io.Writer // a line a second
	Now          func() time.Time
}

// quietRate is the limit of quiet tenants: far above what any of them offers.
const quietRate = 20000

// A run is one play in progress.
type run struct {
	cfg    Config
	plan   *Plan
	ledger *Ledger
	subs   *subscribers
	wit    *witness
	count  counters
	start  time.Time
	ids    schemaIDs
	noisy  schemas.Rate
	sent   time.Duration
	stall  atomic.Int64 // see stalls
	bare   *bare
}

// Run plays the trace and returns the report. An error means that the run
// could not be played; what did not add up is in Report.Failures.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	r := &run{cfg: cfg}
	r.cfg.Plan.Run = "load" + strconv.FormatInt(cfg.Now().UnixMilli(), 36)
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	plan, err := NewPlan(r.cfg.Plan)
	if err != nil {
		return nil, err
	}
	r.plan, r.ledger = plan, NewLedger(plan, r.cfg.Plan.Run)
	if err := r.policies(ctx); err != nil {
		return nil, err
	}
	r.bare = newBare(cfg.Kafka, cfg.Topics, r.cfg.Plan.Run, r.now)
	if err := r.bare.open(ctx, cfg.Topics.Events()); err != nil {
		return nil, fmt.Errorf("measure the broker alone: %w", err)
	}
	err = r.play(ctx)
	if err := errors.Join(err, r.bare.close(context.WithoutCancel(ctx))); err != nil {
		return nil, err
	}
	return r.report(), nil
}

// prepare asks for schema ids and the noisy tenant's limit.
func (r *run) prepare(ctx context.Context) error {
	opts := []sr.ClientOpt{sr.URLs(r.cfg.RegistryURL)}
	if r.cfg.RegistryHTTP != nil {
		opts = append(opts, sr.HTTPClient(r.cfg.RegistryHTTP))
	}
	reg, err := sr.NewClient(opts...)
	if err != nil {
		return err
	}
	transitions := transitionIDs{}
	for name, set := range map[string]func(int){
		tokenType:              func(id int) { r.ids.token = int32(id) },
		completedType:          func(id int) { r.ids.completed = int32(id) },
		schemas.TransitionName: func(id int) { transitions[int32(id)] = true },
	} {
		s, err := reg.SchemaByVersion(ctx, name, -1)
		if err != nil {
			return fmt.Errorf("schema %s: %w", name, err)
		}
		set(s.ID)
	}
	if r.cfg.Noisy {
		if err := r.readNoisy(ctx); err != nil {
			return err
		}
	}
	r.wit, err = newWitness(ctx, r.cfg.Kafka, r.cfg.Topics, r.cfg.Plan.Run, transitions)
	return err
}

func (r *run) readNoisy(ctx context.Context) error {
	var got struct {
		Spec struct{ Fast schemas.Rate }
	}
	if err := r.control(ctx, http.MethodGet, "/v1/tenants/"+Noisy, nil, &got); err != nil {
		return fmt.Errorf("policy of %s: %w", Noisy, err)
	}
	r.noisy = schemas.Policy{Fast: got.Spec.Fast}.Under(schemas.DefaultPolicy(nil)).Fast
	r.cfg.Plan.NoisyRate = 3 * r.noisy.Rate
	return nil
}

// policies gives every quiet tenant a limit it will not reach.
func (r *run) policies(ctx context.Context) error {
	for _, tenant := range r.plan.Tenants {
		spec := schemas.Policy{Fast: schemas.Rate{Rate: quietRate}}
		if err := r.control(ctx, http.MethodPut, "/v1/tenants/"+tenant, spec, nil); err != nil {
			return fmt.Errorf("policy of %s: %w", tenant, err)
		}
	}
	return nil
}

func (r *run) control(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, r.cfg.ControlURL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	token, err := r.cfg.Token(schemas.Everyone, schemas.RoleOperator)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

// lead is the time between setting up and the first event.
const lead = 2 * time.Second

func (r *run) now() time.Duration { return r.cfg.Now().Sub(r.start) }

// play subscribes, offers everything and waits until it has arrived.
func (r *run) play(ctx context.Context) error {
	watch, stop := context.WithCancel(ctx)
	defer stop()
	listen, listenCtx := errgroup.WithContext(watch)
	listen.Go(func() error { r.wit.watch(listenCtx); return nil })
	r.start = r.cfg.Now().Add(lead)
	if err := r.subscribe(listenCtx, listen); err != nil {
		return err
	}
	r.start = r.cfg.Now().Add(lead) // tenants' subscribers are there; requests' come when theirs is near
	listen.Go(func() error { r.progress(listenCtx); return nil })
	listen.Go(func() error { r.stalls(listenCtx); return nil })
	listen.Go(func() error {
		if err := r.bare.measure(listenCtx, r.plan.Duration); err != nil && listenCtx.Err() == nil {
			return fmt.Errorf("measure the broker alone: %w", err)
		}
		return nil
	})
	for i := range r.plan.Requests {
		req := &r.plan.Requests[i]
		listen.Go(func() error { return r.subs.exact(listenCtx, req) })
	}
	offer, offerCtx := errgroup.WithContext(listenCtx)
	if err := r.offer(offerCtx, offer); err != nil {
		return err
	}
	if err := offer.Wait(); err != nil {
		stop()
		return errors.Join(err, listen.Wait())
	}
	r.sent = r.now()
	r.settle(listenCtx)
	select { // what comes too often comes late
	case <-time.After(lingerFor):
	case <-listenCtx.Done():
	}
	stop()
	return listen.Wait()
}

// subscribe opens the "*" subscribers and waits for all of them.
func (r *run) subscribe(ctx context.Context, g *errgroup.Group) error {
	tokens := map[string]string{}
	tenants := r.plan.Tenants
	if r.cfg.Noisy {
		tenants = append(tenants[:len(tenants):len(tenants)], Noisy)
	}
	for _, tenant := range tenants {
		token, err := r.cfg.Token(tenant, schemas.RoleClient)
		if err != nil {
			return err
		}
		tokens[tenant] = token
	}
	r.subs = &subscribers{
		plan: r.plan, ledger: r.ledger, url: r.cfg.FanoutURL, now: r.now, http: &http.Client{},
		token: func(tenant string) string { return tokens[tenant] },
	}
	var ready sync.WaitGroup
	for _, tenant := range tenants {
		ready.Add(1)
		g.Go(func() error { return r.subs.star(ctx, tenant, ready.Done) })
	}
	ready.Wait()
	return ctx.Err()
}

// offer starts the senders.
func (r *run) offer(ctx context.Context, g *errgroup.Group) error {
	web := &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: len(r.plan.HTTP), DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext, ResponseHeaderTimeout: 20 * time.Second,
	}}
	for tenant, sends := range r.plan.HTTP {
		token, err := r.cfg.Token(tenant, schemas.RoleProducer)
		if err != nil {
			return err
		}
		s := &httpSender{plan: r.plan, run: r.cfg.Plan.Run, url: r.cfg.IngestURL + "/v1/events", token: token, client: web, now: r.now, count: &r.count}
		g.Go(func() error { return s.play(ctx, sends) })
	}
	opts := append([]kgo.Opt{
		kgo.RecordPartitioner(foreign()), kgo.ProducerLinger(tick), kgo.ProducerBatchMaxBytes(4 << 20),
		kgo.RecordRetries(1 << 30), kgo.ProducerBatchCompression(kgo.NoCompression()),
	}, r.cfg.Kafka...)
	k, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	s := &kafkaSender{plan: r.plan, run: r.cfg.Plan.Run, topic: r.cfg.Topics.Events(), ids: r.ids, client: k, now: r.now, count: &r.count}
	g.Go(func() error {
		defer k.Close()
		return s.play(ctx, r.plan.Kafka)
	})
	return nil
}

// settle waits until everything has arrived, Grace at most.
func (r *run) settle(ctx context.Context) {
	deadline := time.After(r.cfg.Grace)
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for !r.settled() {
		select {
		case <-ticker.C:
		case <-deadline:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (r *run) settled() bool {
	v := r.wit.verdict()
	dead := 0
	for _, n := range v.Dead {
		dead += n
	}
	for _, n := range r.plan.Malformed {
		dead -= n
	}
	for _, kind := range []int{Exact, Star} {
		if r.ledger.Sum(kind, false).Lost > 0 || r.ledger.Sum(kind, true).Lost > v.OverQuota {
			return false
		}
	}
	return dead >= 0 && v.Duplicates >= r.plan.Repeats
}

func (r *run) progress(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			exact, star, noisy := r.ledger.Sum(Exact, false), r.ledger.Sum(Star, false), r.ledger.Sum(Exact, true)
			v := r.wit.verdict()
			fmt.Fprintf(r.cfg.Progress, "%5.0fs  offered %d  delivered %d + %d  noisy %d (over quota %d)  duplicates %d  p99 %.1f ms  reconnects %d\n",
				r.now().Seconds(), r.count.offered.Load(), exact.Delivered, star.Delivered, noisy.Delivered, v.OverQuota, v.Duplicates,
				r.ledger.Quiet.Percentiles().P99, r.subs.reconnects.Load())
		}
	}
}

// stalls notes the longest time for which this very process did not run: on a
// machine that freezes, no latency above it says anything about Spillway.
func (r *run) stalls(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	last := r.cfg.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			now := r.cfg.Now()
			r.stall.Store(max(r.stall.Load(), int64(now.Sub(last)-tick)))
			last = now
		}
	}
}

func (r *run) report() *Report {
	out := &Report{
		Run: r.cfg.Plan.Run, StartedAt: r.start.UnixMilli(), Duration: r.plan.Duration.Seconds(), Speed: r.cfg.Plan.Speed,
		Offered: r.plan.Offered, OfferedRate: float64(r.plan.Offered) / r.sent.Seconds(), SendSeconds: r.sent.Seconds(),
		Repeats: r.plan.Repeats, Retried: r.count.retried.Load(), Malformed: r.plan.Malformed,
		Exact: r.ledger.Sum(Exact, false), Star: r.ledger.Sum(Star, false),
		NoisyExact: r.ledger.Sum(Exact, true), NoisyStar: r.ledger.Sum(Star, true),
		Verdict: r.wit.verdict(), Gaps: int(r.subs.gaps.Load()), Foreign: int(r.subs.foreign.Load()), Reconnects: int(r.subs.reconnects.Load()),
		QuietLatency: r.ledger.Quiet.Percentiles(), HTTPLatency: r.ledger.HTTP.Percentiles(), BareLatency: r.bare.taken.Percentiles(), NoisyLatency: r.ledger.NoisyLatency.Percentiles(),
		Stall: float64(r.stall.Load()) / 1e6, Failures: []string{},
	}
	if r.cfg.Noisy {
		out.Noisy = shape(r.subs.noisy, r.noisy.Rate, float64(r.noisy.Burst), r.plan.Duration, wayToSocket(out.QuietLatency))
	}
	out.judge(r.cfg.Restarts)
	return out
}
