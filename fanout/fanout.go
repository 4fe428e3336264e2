package fanout

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/fanout/tail"
	"github.com/spillway/spillway/schemas"
)

// A Fanout is one fan-out node. Make it with New, then call Run once.
type Fanout struct {
	cfg      Config
	m        *metrics
	set      *tail.Set
	consumer *kgo.Client // reads for the tails
	kafka    *kgo.Client // reads for older places, and writes to audit and nodes
	reader   *reader
	source   *source
	audit    *auditor
	http     *http.Client // to ingest

	life     context.Context // ends when connections must
	endLife  context.CancelFunc
	draining atomic.Bool
	running  sync.WaitGroup // connections and streams

	mu      sync.Mutex // guards:
	members map[member]struct{}
	tenants map[string]int // open connections by tenant
}

// A member is an open connection or stream as the node deals with it.
type member interface {
	tickNow()                  // the second has passed
	drain(after time.Duration) // leave for another node, after a while
	stop()                     // end now
}

// New prepares a node. Nothing is read or served before Run.
func New(cfg Config) (*Fanout, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	f := &Fanout{
		cfg: cfg, set: tail.NewSet(cfg.TailBytes), members: make(map[member]struct{}), tenants: make(map[string]int),
		http: &http.Client{Timeout: publishTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: 64, MaxConnsPerHost: 256, IdleConnTimeout: time.Minute}},
	}
	f.m = newMetrics(cfg.Registerer, func() float64 { return float64(f.set.Bytes()) }, func() float64 { return f.source.events() })
	var err error
	if f.consumer, err = kgo.NewClient(append(cfg.Kafka[:len(cfg.Kafka):len(cfg.Kafka)], consumerOpts()...)...); err != nil {
		return nil, fmt.Errorf("fanout: consumer: %w", err)
	}
	if f.kafka, err = kgo.NewClient(append(cfg.Kafka[:len(cfg.Kafka):len(cfg.Kafka)], producerOpts()...)...); err != nil {
		f.consumer.Close()
		return nil, fmt.Errorf("fanout: producer: %w", err)
	}
	f.reader = newReader(f.kafka, cfg.Topics, cfg.Region, f.m)
	f.source = newSource(&f.cfg, f.consumer, f.reader, f.set, f.m)
	f.audit = newAuditor(&f.cfg, f.kafka, f.m)
	f.life, f.endLife = context.WithCancel(context.Background())
	return f, nil
}

// consumerOpts make a fetch answer as soon as there is a record.
func consumerOpts() []kgo.Opt {
	return []kgo.Opt{
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(fetchWait), kgo.FetchMinBytes(1),
		kgo.FetchMaxBytes(8 << 20), kgo.FetchMaxPartitionBytes(2 << 20), kgo.MaxConcurrentFetches(4),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	}
}

func producerOpts() []kgo.Opt {
	return []kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(50 * time.Millisecond), kgo.MaxBufferedRecords(20_000),
		kgo.MaxBufferedBytes(32 << 20), kgo.RecordDeliveryTimeout(10 * time.Second),
	}
}

// Run serves until ctx ends, then drains: clients are told, and within
// DrainTimeout the last connection is closed. It returns when all it started
// has ended.
func (f *Fanout) Run(ctx context.Context) error {
	defer f.kafka.Close()
	defer f.consumer.Close()
	defer f.http.CloseIdleConnections()
	server := &http.Server{
		Handler: f.Handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 32 << 10,
		BaseContext: func(net.Listener) context.Context { return f.life }, ConnContext: limitSendBuffer,
	}
	base, endBase := context.WithCancel(context.Background())
	defer endBase()
	var loops sync.WaitGroup
	loops.Go(func() { f.source.run(base) })
	loops.Go(func() { f.audit.run(base, f.node) })
	loops.Go(func() { f.sweep(base) })
	loops.Go(func() { f.watch(base) })
	served := make(chan error, 1)
	go func() { served <- server.Serve(f.cfg.Listener) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
		err = fmt.Errorf("serve: %w", err)
	}
	f.drainAll()
	if cerr := server.Close(); err == nil && cerr != nil && !errors.Is(cerr, net.ErrClosed) {
		err = fmt.Errorf("close the listener: %w", cerr)
	}
	endBase()
	loops.Wait()
	f.audit.finish()
	return err
}

// watch asks Kafka now and then, so that readiness is known before the first
// client, and when Kafka is silent: a consumer waits for it without a word.
func (f *Fanout) watch(ctx context.Context) {
	for ctx.Err() == nil {
		ask, cancel := context.WithTimeout(ctx, kafkaTimeout)
		_, err := f.reader.epoch(ask, 0)
		var log topicID
		if err == nil {
			log, err = f.reader.log(ask, 0)
		}
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			f.source.report(err)
			pause(ctx, time.Second)
			continue
		}
		f.source.answered(log)
		pause(ctx, watchEvery)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Ready is nil when the node can deliver now, else why it cannot.
func (f *Fanout) Ready() error {
	if f.draining.Load() {
		return errors.New("draining")
	}
	return f.source.failure()
}

// node is the heartbeat.
func (f *Fanout) node() schemas.Node {
	state := "live"
	if f.draining.Load() {
		state = "draining"
	}
	return schemas.Node{
		Name: f.cfg.Node, Region: f.cfg.Region, Address: f.cfg.Advertise, State: state,
		Connections: int32(f.connections()), MaxConnections: int32(f.cfg.MaxConnections),
	}
}

func (f *Fanout) connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.members)
}

// sweep ticks connections, lets go of shared frames and of idle partitions.
func (f *Fanout) sweep(ctx context.Context) {
	tick := time.NewTicker(min(time.Second, f.cfg.PingInterval/2))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, m := range f.list() {
			m.tickNow()
		}
		f.set.Sweep()
		f.source.sweep(f.cfg.Now())
	}
}

func (f *Fanout) list() []member {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]member, 0, len(f.members))
	for m := range f.members {
		all = append(all, m)
	}
	return all
}

// join takes a member in unless the node is full or draining. It holds a place
// from then on, and part gives it back.
func (f *Fanout) join(m member, kind string) *refusal {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.draining.Load() {
		return refuse(schemas.Draining, "this node is draining")
	}
	if len(f.members) >= f.cfg.MaxConnections {
		return refuse(schemas.ConnectionLimit, "this node has all its %d connections open", f.cfg.MaxConnections)
	}
	f.members[m] = struct{}{}
	f.running.Add(1)
	f.m.connections.WithLabelValues(kind).Inc()
	return nil
}

func (f *Fanout) part(m member, kind string) {
	f.mu.Lock()
	delete(f.members, m)
	f.mu.Unlock()
	f.m.connections.WithLabelValues(kind).Dec()
	f.running.Done()
}

// enter counts a connection of a tenant, unless it has all it may have.
func (f *Fanout) enter(tenant string) bool {
	most := 0
	if p, ok := f.cfg.Tenants.Policy(tenant); ok {
		most = p.MaxConnections
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if most > 0 && f.tenants[tenant] >= most {
		return false
	}
	f.tenants[tenant]++
	return true
}

func (f *Fanout) leave(tenant string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tenants[tenant]--; f.tenants[tenant] <= 0 {
		delete(f.tenants, tenant)
	}
}

// admit checks a token and the tenant it names.
func (f *Fanout) admit(token string) (schemas.Claims, *refusal) {
	if token == "" {
		return schemas.Claims{}, refuse(schemas.AuthRequired, "no token")
	}
	claims, err := f.cfg.Auth.Verify(token)
	if err != nil {
		code := schemas.AuthFailed
		var why interface {
			Refused() (schemas.Reason, string)
		}
		if errors.As(err, &why) {
			code, _ = why.Refused()
		}
		return claims, refuse(code, "%s", err)
	}
	if claims.Tenant == "" || claims.Tenant == schemas.Everyone {
		return claims, refuse(schemas.Forbidden, "the token's claim tenant must name one tenant: a connection sees one")
	}
	return claims, f.checkTenant(claims.Tenant)
}

func (f *Fanout) checkTenant(tenant string) *refusal {
	p, ok := f.cfg.Tenants.Policy(tenant)
	if !ok {
		return refuse(schemas.TenantUnknown, "tenant %s: %s", tenant, schemas.TenantUnknown.Text())
	}
	if p.State == "suspended" {
		return refuse(schemas.TenantSuspended, "tenant %s is suspended", tenant)
	}
	return nil
}

func (f *Fanout) home(tenant string) int32 {
	return schemas.HomePartition([]byte(tenant), f.cfg.Partitions)
}

// unavailable is what a client is told when Kafka could not be asked. The log
// has the cause.
func (f *Fanout) unavailable(err error) *refusal {
	f.source.report(err)
	return refuse(schemas.KafkaUnavailable, "the log cannot be read now")
}

// written accounts for a frame that a connection was sent.
func (f *Fanout) written(frame *tail.Frame, now time.Time) {
	us := now.UnixMicro()
	f.audit.wrote(frame, us)
	f.m.frames.Inc()
	f.m.deliveries.Add(float64(len(frame.Events)))
	first := &frame.Events[0]
	if first.Seen > 0 {
		f.m.nodeSeconds.Observe(float64(us-first.Seen) / 1e6)
		f.m.totalSeconds.Observe(float64(us-first.Appended*1000) / 1e6)
	}
}

// drainAll sends clients away, each after a time of its own, and closes at the
// end of DrainTimeout those that stayed.
func (f *Fanout) drainAll() {
	f.mu.Lock()
	f.draining.Store(true)
	f.mu.Unlock()
	f.audit.heartbeat(f.node())
	timeout := time.NewTimer(f.cfg.DrainTimeout)
	defer timeout.Stop()
	for _, m := range f.list() {
		m.drain(drainAfter(f.cfg.DrainTimeout))
	}
	empty := make(chan struct{})
	go func() {
		f.running.Wait()
		close(empty)
	}()
	select {
	case <-empty:
	case <-timeout.C:
	}
	for _, m := range f.list() {
		m.stop()
	}
	f.endLife()
	<-empty
}

// drainAfter spreads reconnects over 2 to 8 s, sooner if there is less time.
func drainAfter(timeout time.Duration) time.Duration {
	lo, hi := min(2*time.Second, timeout/15), min(8*time.Second, timeout/4)
	return lo + rand.N(max(hi-lo, 1))
}
