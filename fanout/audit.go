package fanout

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/fanout/tail"
	"github.com/spillway/spillway/schemas"
)

// Bounds of what is remembered for the next receipts.
const (
	receiptEvery  = time.Second
	receiptBytes  = 16 << 20 // frames listed: then receipts are written at once
	receiptMost   = 64 << 20 // frames listed: then more are dropped and counted
	receiptEvents = 2000     // deliveries of one record
)

// An auditor writes receipts and session ranges to `audit` and heartbeats to
// `nodes`, best effort: it never makes anyone wait, and counts what it drops.
type auditor struct {
	cfg *Config
	cl  *kgo.Client
	m   *metrics
	now func() time.Time

	full chan struct{} // receiptBytes are listed; never closed

	mu     sync.Mutex // guards:
	frames []*tail.Frame
	bytes  int
	stale  map[string]bool // topics of which there is a new one
}

func newAuditor(cfg *Config, cl *kgo.Client, m *metrics) *auditor {
	return &auditor{cfg: cfg, cl: cl, m: m, now: cfg.Now, full: make(chan struct{}, 1), stale: make(map[string]bool)}
}

// wrote notes that a frame was written to one more connection.
func (a *auditor) wrote(f *tail.Frame, unixMicro int64) {
	f.Written.Store(unixMicro)
	if f.Sessions.Add(1) > 1 {
		return // listed already
	}
	a.mu.Lock()
	if a.bytes > receiptMost {
		a.mu.Unlock()
		f.Sessions.Store(0)
		a.m.auditDropped.WithLabelValues("receipt").Add(float64(len(f.Events)))
		return
	}
	a.frames = append(a.frames, f)
	a.bytes += len(f.Bytes)
	full := a.bytes > receiptBytes
	a.mu.Unlock()
	if full {
		select {
		case a.full <- struct{}{}:
		default:
		}
	}
}

// run writes receipts and heartbeats until ctx ends.
func (a *auditor) run(ctx context.Context, node func() schemas.Node) {
	receipts := time.NewTicker(receiptEvery)
	defer receipts.Stop()
	beats := time.NewTicker(heartbeatEvery)
	defer beats.Stop()
	a.heartbeat(node())
	for {
		select {
		case <-ctx.Done():
			return
		case <-receipts.C:
			a.flushReceipts()
		case <-a.full:
			a.flushReceipts()
		case <-beats.C:
			a.renew()
			a.heartbeat(node())
		}
	}
}

// heartbeatEvery is how often a node says that it lives (DESIGN section 6.2).
const heartbeatEvery = 3 * time.Second

func (a *auditor) heartbeat(n schemas.Node) {
	body := schemas.AppendWireHeader(nil, a.cfg.SchemaIDs[schemas.NodeName])
	a.produce("node", &kgo.Record{Topic: a.cfg.Topics.Nodes(), Key: []byte(n.Name), Value: n.AppendAvro(body)})
}

// A log names the one that cursors of a receipt belong to.
type logName struct {
	tenant string
	home   int32
	epoch  uint64
}

func (a *auditor) flushReceipts() {
	a.mu.Lock()
	frames := a.frames
	a.frames, a.bytes = nil, 0
	a.mu.Unlock()
	byLog := make(map[logName][]schemas.Delivery)
	for _, f := range frames {
		name := logName{f.Tenant, f.Home, f.P.Epoch}
		byLog[name] = appendDeliveries(byLog[name], f)
	}
	for name, deliveries := range byLog {
		for part := range slices.Chunk(mergeDeliveries(deliveries), receiptEvents) {
			a.receipt(name, part)
		}
	}
}

func appendDeliveries(dst []schemas.Delivery, f *tail.Frame) []schemas.Delivery {
	written, sessions := f.Written.Load(), f.Sessions.Swap(0)
	for i := range f.Events {
		e := &f.Events[i]
		dst = append(dst, schemas.Delivery{
			Cursor: e.Cursor, Appended: e.Appended, Sessions: sessions, LatencyUS: max(0, written-e.Appended*1000),
		})
	}
	return dst
}

// mergeDeliveries makes one of those that several feeds had of one event.
func mergeDeliveries(all []schemas.Delivery) []schemas.Delivery {
	slices.SortFunc(all, func(a, b schemas.Delivery) int { return cmp.Compare(a.Cursor, b.Cursor) })
	out := all[:0]
	for _, d := range all {
		if n := len(out); n > 0 && out[n-1].Cursor == d.Cursor {
			out[n-1].Sessions += d.Sessions
			out[n-1].LatencyUS = max(out[n-1].LatencyUS, d.LatencyUS)
			continue
		}
		out = append(out, d)
	}
	return out
}

func (a *auditor) receipt(name logName, deliveries []schemas.Delivery) {
	r := schemas.Receipt{
		Tenant: name.tenant, Node: a.cfg.Node, Region: a.cfg.Region, Home: name.home, Epoch: int64(name.epoch),
		At: a.now().UnixMilli(), Deliveries: deliveries,
	}
	body := schemas.AppendWireHeader(make([]byte, 0, 128+16*len(deliveries)), a.cfg.SchemaIDs[schemas.ReceiptName])
	a.audit("receipt", name.tenant, name.home, r.AppendAvro(body))
}

// session writes what a subscription was sent so far; closeCode 0: it goes on.
func (a *auditor) session(info sessionInfo, s *sub, closeCode int) {
	a.sessionRange(info, s, s.at.Offset, s.acked, closeCode)
}

// resumed notes the cursor that a client came with: what it has, whoever sent
// it.
func (a *auditor) resumed(info sessionInfo, s *sub, at schemas.Cursor) {
	if at.Epoch == s.at.Epoch {
		a.sessionRange(info, s, at.Offset, at.Offset, 0)
	}
}

// sessionInfo is what SessionRanges say of a session.
type sessionInfo struct {
	id, subject string
	openedAt    time.Time
}

func (a *auditor) sessionRange(info sessionInfo, s *sub, to, acked int64, closeCode int) {
	r := schemas.SessionRange{
		Tenant: s.feed.Tenant, Session: info.id, Subject: info.subject, Node: a.cfg.Node, Region: a.cfg.Region, Channel: s.feed.Pattern,
		Home: s.part.id, Epoch: int64(s.at.Epoch), From: min(s.from.Offset, to), To: to, Acked: acked, CloseCode: int32(closeCode),
		OpenedAt: info.openedAt.UnixMilli(), At: a.now().UnixMilli(),
	}
	body := schemas.AppendWireHeader(make([]byte, 0, 256), a.cfg.SchemaIDs[schemas.SessionRangeName])
	a.audit("session_range", r.Tenant, r.Home, r.AppendAvro(body))
}

func (a *auditor) audit(what, tenant string, home int32, value []byte) {
	a.produce(what, &kgo.Record{Topic: a.cfg.Topics.Audit(), Partition: home, Key: []byte(tenant), Value: value})
}

func (a *auditor) produce(what string, rec *kgo.Record) {
	a.cl.TryProduce(context.Background(), rec, func(_ *kgo.Record, err error) {
		if err == nil {
			return
		}
		a.m.auditDropped.WithLabelValues(what).Inc()
		if errors.Is(err, kerr.UnknownTopicID) { // made anew: the client keeps to the old one until it is told
			a.mu.Lock()
			a.stale[rec.Topic] = true
			a.mu.Unlock()
		}
	})
}

// renew has the client look anew for topics that were deleted and made anew.
func (a *auditor) renew() {
	a.mu.Lock()
	topics := slices.Collect(maps.Keys(a.stale))
	clear(a.stale)
	a.mu.Unlock()
	if len(topics) > 0 {
		a.cfg.Logger.Warn("topics were made anew; what was to be written to the old ones is counted as dropped", "topics", strings.Join(topics, " "))
		a.cl.PurgeTopicsFromClient(topics...)
	}
}

// finish writes what is left, within a moment.
func (a *auditor) finish() {
	a.flushReceipts()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := a.cl.Flush(ctx); err != nil {
		a.m.auditDropped.WithLabelValues("unflushed").Add(float64(a.cl.BufferedProduceRecords()))
	}
}
