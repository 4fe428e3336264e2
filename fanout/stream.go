package fanout

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/spillway/spillway/fanout/tail"
	"github.com/spillway/spillway/schemas"
)

// A stream is one SSE connection: one subscription, the same places as a
// WebSocket's.
//
//	id: c…            the place after the event: what Last-Event-ID brings back
//	data: {…}         a CloudEvent
//
//	event: gap
//	data: {"from":"c…","to":"c…","why":"…","replay":"…"}
type stream struct {
	f     *Fanout
	w     http.ResponseWriter
	rc    *http.ResponseController
	woken chan struct{}

	ticked  atomic.Bool
	drained atomic.Int64 // as conn's
	cut     atomic.Bool

	// Owned by run.
	info   sessionInfo
	claims schemas.Claims
	sub    *sub
	chunks chunks
	buf    []byte
	wrote  time.Time
	ranged time.Time
}

// Wake tells the owner that its feed has something new.
func (s *stream) Wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

func (s *stream) tickNow() {
	s.ticked.Store(true)
	s.Wake()
}

func (s *stream) drain(after time.Duration) {
	s.drained.Store(after.Milliseconds() + 1)
	s.Wake()
}

func (s *stream) stop() {
	s.cut.Store(true)
	s.rc.SetWriteDeadline(time.Unix(1, 0))
	s.Wake()
}

func (f *Fanout) serveStream(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	token := bearer(r)
	if token == "" {
		token = q.Get("access_token") // EventSource cannot send a header
	}
	claims, no := f.admit(token)
	if no != nil {
		f.deny(w, no)
		return
	}
	from := r.Header.Get("Last-Event-ID")
	if from == "" {
		from = q.Get("from")
	}
	req := schemas.SubRequest{Ch: q.Get("channel"), From: streamFrom(from), OnLag: q.Get("on_lag")}
	begin, no := checkSub(&claims, &req)
	if no != nil {
		f.deny(w, no)
		return
	}
	s := &stream{
		f: f, w: w, rc: http.NewResponseController(w), woken: make(chan struct{}, 1), claims: claims, chunks: chunks{r: f.reader},
		info: sessionInfo{rand.Text(), claims.Subject, f.cfg.Now()},
	}
	if no := f.join(s, "sse"); no != nil {
		f.deny(w, no)
		return
	}
	defer f.part(s, "sse")
	if !f.enter(claims.Tenant) {
		f.deny(w, refuse(schemas.ConnectionLimit, "tenant %s has all its connections open", claims.Tenant))
		return
	}
	defer f.leave(claims.Tenant)
	s.serve(r.Context(), &req, begin)
}

// streamFrom is a query's "from" as a frame has it: an object as it is,
// anything else as a string.
func streamFrom(s string) json.RawMessage {
	if s == "" {
		return nil
	}
	if s[0] == '{' {
		return json.RawMessage(s)
	}
	return schemas.AppendJSONString(nil, s)
}

// serve subscribes and writes until the stream ends.
func (s *stream) serve(ctx context.Context, req *schemas.SubRequest, from start) {
	f := s.f
	ask, cancel := context.WithTimeout(ctx, kafkaTimeout)
	part, err := f.source.acquire(ask, f.home(s.claims.Tenant))
	cancel()
	if err != nil {
		f.deny(s.w, f.unavailable(err))
		return
	}
	defer f.source.release(part)
	s.sub = &sub{part: part, onLag: req.OnLag, feed: part.tail.Subscribe(s.claims.Tenant, req.Ch, s)}
	defer s.sub.feed.Leave(s)
	ask, cancel = context.WithTimeout(ctx, kafkaTimeout)
	_, gap, err := s.sub.begin(ask, f.reader, from)
	cancel()
	if err != nil {
		f.deny(s.w, f.unavailable(err))
		return
	}
	f.m.subscriptions.Inc()
	defer f.m.subscriptions.Dec()
	if from.kind == fromCursor {
		f.audit.resumed(s.info, s.sub, from.cursor)
	}
	code := s.run(ctx, gap)
	f.audit.session(s.info, s.sub, code)
	f.m.closed(code)
}

// run writes events until the stream ends, and returns its close code.
func (s *stream) run(ctx context.Context, gap *note) int {
	h := s.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	s.w.WriteHeader(http.StatusOK)
	s.ranged = s.f.cfg.Now()
	s.appendNote(&note{from: s.sub.at, to: s.sub.at}) // the place to resume from, before there is an event
	if gap != nil {
		s.appendNote(gap)
	}
	if !s.flush(nil) {
		return int(schemas.CloseSlow)
	}
	for {
		if !s.sub.pending() {
			select {
			case <-ctx.Done():
				return 1001 // the client has gone away (RFC 6455 section 7.4.1)
			case <-s.woken:
			}
		}
		if code := s.due(); code != 0 {
			return code
		}
		if code := s.pass(ctx); code != 0 {
			return code
		}
	}
}

// due does what the node or the second asks for; a code ends the stream.
func (s *stream) due() int {
	if after := s.drained.Load(); after > 0 || s.cut.Load() {
		s.buf = append(s.buf, "retry: "...)
		s.buf = append(strconv.AppendInt(s.buf, max(after-1, 0), 10), "\n\n"...)
		s.flush(nil)
		return int(schemas.CloseDrain)
	}
	if !s.ticked.Swap(false) {
		return 0
	}
	now := s.f.cfg.Now()
	if exp := s.claims.ExpiresAt; !exp.IsZero() && now.After(exp.Add(expiryLeeway)) {
		return int(schemas.CloseTokenExpired)
	}
	if no := s.f.checkTenant(s.claims.Tenant); no != nil && no.code == schemas.TenantSuspended {
		return int(schemas.CloseSuspended)
	}
	if n := s.sub.advance(); n != nil && now.Sub(s.wrote) >= advanceEvery {
		s.appendNote(n)
	} else if now.Sub(s.wrote) >= s.f.cfg.PingInterval {
		s.buf = append(s.buf, ":\n\n"...)
	}
	if now.Sub(s.ranged) >= rangeEvery {
		s.ranged = now
		s.f.audit.session(s.info, s.sub, 0)
	}
	if !s.flush(nil) {
		return int(schemas.CloseSlow)
	}
	return 0
}

// pass writes one frame or note; a code ends the stream.
func (s *stream) pass(ctx context.Context) int {
	frame, n, err := s.sub.next(ctx, &s.chunks)
	switch {
	case errors.Is(err, errSlow):
		return int(schemas.CloseSlow)
	case err != nil:
		s.f.unavailable(err)
		return int(schemas.CloseOverloaded)
	case n != nil:
		s.appendNote(n)
	case frame != nil:
		s.appendEvents(frame)
	default:
		return 0
	}
	if !s.flush(frame) {
		return int(schemas.CloseSlow)
	}
	return 0
}

func (s *stream) appendEvents(frame *tail.Frame) {
	at := frame.P
	for i := range frame.Events {
		e := &frame.Events[i]
		at.Offset = e.Cursor
		s.buf = append(at.AppendTo(append(s.buf, "id: "...)), "\ndata: "...)
		s.buf = append(append(s.buf, e.JSON...), "\n\n"...)
	}
}

func (s *stream) appendNote(n *note) {
	s.buf = append(n.to.AppendTo(append(s.buf, "id: "...)), '\n')
	if n.why != "" {
		s.f.m.gaps.WithLabelValues(n.why).Inc()
		s.buf = append(s.buf, "event: gap\ndata: "...)
		b, err := json.Marshal(schemas.ServerFrame{
			T: "gap", From: n.from.String(), To: n.to.String(), Why: n.why, Replay: replayAddress(s.sub.feed.Tenant, n),
		})
		if err != nil {
			panic("fanout: a gap does not encode: " + err.Error())
		}
		s.buf = append(append(s.buf, b...), '\n')
	}
	s.buf = append(s.buf, '\n')
}

// flush writes what is there and reports whether the client took it.
func (s *stream) flush(frame *tail.Frame) bool {
	if len(s.buf) == 0 {
		return true
	}
	defer func() { s.buf = s.buf[:0] }()
	now := s.f.cfg.Now()
	if err := s.rc.SetWriteDeadline(now.Add(stallTimeout)); err != nil {
		return false
	}
	if s.cut.Load() { // after the deadline, which cutting off shortens
		if err := s.rc.SetWriteDeadline(now.Add(closeTimeout)); err != nil {
			return false
		}
	}
	if _, err := s.w.Write(s.buf); err != nil {
		return false
	}
	if err := s.rc.Flush(); err != nil {
		return false
	}
	s.wrote = s.f.cfg.Now()
	s.f.m.writes.Inc()
	s.f.m.bytes.Add(float64(len(s.buf)))
	if frame != nil {
		s.f.written(frame, s.wrote)
	}
	return true
}

var _ tail.Waker = (*stream)(nil)
