package ingest

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spillway/spillway/ingest/binding"
	"github.com/spillway/spillway/schemas"
)

// Path is the one address ingest serves.
const Path = "/v1/events"

// Handler answers POST /v1/events, and 404 or 405 for everything else. It
// needs Run to be running.
func (in *Ingest) Handler() http.Handler { return http.HandlerFunc(in.serve) }

// An exchange is one request and what is known of it so far.
type exchange struct {
	in     *Ingest
	r      *http.Request
	claims schemas.Claims
	body   *buffer
	hold   hold
}

func (in *Ingest) serve(w http.ResponseWriter, r *http.Request) {
	in.serving.RLock()
	defer in.serving.RUnlock()
	x := exchange{in: in, r: r, body: buffers.get()}
	x.hold.events, x.hold.bytes = &in.events, &in.bytes
	x.hold.owners.Store(1)
	answer := buffers.get()
	defer func() {
		x.hold.release()
		buffers.put(x.body)
		buffers.put(answer)
	}()
	accepted, refused := x.run(answer)
	if refused != nil {
		in.refuse(w, r, answer, refused)
		return
	}
	in.metrics.accepted(accepted)
	header := w.Header()
	header["Content-Type"] = jsonType
	header["Content-Length"] = []string{strconv.Itoa(len(answer.b))}
	if in.draining.Load() {
		header.Set("Connection", "close")
	}
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write(answer.b)
}

var jsonType = []string{"application/json"}

func (in *Ingest) refuse(w http.ResponseWriter, r *http.Request, answer *buffer, refused *binding.Refusal) {
	in.metrics.refused(refused)
	header := w.Header()
	header["Content-Type"] = jsonType
	switch refused.Code {
	case schemas.AuthRequired, schemas.AuthFailed, schemas.TokenExpired:
		header.Set("WWW-Authenticate", "Bearer")
	case schemas.MethodNotAllowed:
		header.Set("Allow", http.MethodPost)
	case schemas.ContentTypeUnsupport:
		header.Set("Accept-Encoding", "gzip") // RFC 9110, section 15.5.16
	case schemas.Internal:
		in.cfg.Logger.Error("request failed", "err", refused.Message)
	}
	if refused.RetryAfter > 0 {
		header.Set("Retry-After", strconv.FormatInt(int64((refused.RetryAfter+time.Second-1)/time.Second), 10))
	}
	if in.draining.Load() {
		header.Set("Connection", "close")
	}
	answer.b = refused.AppendJSON(answer.b[:0])
	header["Content-Length"] = []string{strconv.Itoa(len(answer.b))}
	w.WriteHeader(status(refused.Code))
	if r.Method != http.MethodHead {
		_, _ = w.Write(answer.b)
	}
}

// run is the whole way of a request, see the package's picture. The body of
// the answer is in answer when it was accepted.
func (x *exchange) run(answer *buffer) (*builder, *binding.Refusal) {
	b, refused := x.prepare()
	if refused != nil {
		return nil, refused
	}
	return b, x.write(b, answer)
}

// prepare does all that comes before Kafka: the records of the request are
// complete, or it is refused.
func (x *exchange) prepare() (*builder, *binding.Refusal) {
	if refused := x.admit(); refused != nil {
		return nil, refused
	}
	m, avro, refused := binding.ReadMode(x.r.Header.Get("Content-Type"))
	if refused == nil {
		refused = readBody(x.body, x.r, maxBody(m), &x.hold)
	}
	if refused != nil {
		return nil, refused
	}
	b := &builder{in: x.in, ctx: x.r.Context(), claims: &x.claims, now: x.in.cfg.Now()}
	if parent := x.r.Header.Get("Traceparent"); binding.ValidTraceparent(parent) {
		b.parent = parent
	}
	return b, x.build(b, m, avro)
}

// admit answers all that needs no look into the body.
func (x *exchange) admit() (refused *binding.Refusal) {
	switch {
	case x.r.URL.Path != Path:
		return binding.Refuse(schemas.NotFound, "", "%s", schemas.NotFound.Text()).WithFix("events go to POST %s", Path)
	case x.r.Method != http.MethodPost:
		return binding.Refuse(schemas.MethodNotAllowed, "", "%s", schemas.MethodNotAllowed.Text()).WithFix("events go to POST %s", Path)
	case x.in.draining.Load() || x.in.closed:
		return unavailable(schemas.Draining, time.Second, "%s", schemas.Draining.Text())
	}
	if size := headerBytes(x.r); size > schemas.MaxHeaders {
		return binding.Refuse(schemas.HeadersTooLarge, "", "the headers have %d bytes, at most %d are taken", size, schemas.MaxHeaders)
	}
	token, refused := bearer(x.r.Header)
	if refused != nil {
		return refused
	}
	var err error
	if x.claims, err = x.in.cfg.Tokens.Verify(token); err != nil {
		return fromTokenError(err)
	}
	if x.claims.Role == schemas.RoleClient && len(x.claims.Publish) == 0 {
		return forbidden("publish", "claim publish is missing: a client needs it to publish; or use a token with role producer")
	}
	return nil
}

func headerBytes(r *http.Request) int {
	n := len(r.RequestURI)
	for key, values := range r.Header {
		for _, v := range values {
			n += len(key) + len(v)
		}
	}
	return n
}

// bearer is the token of the request (RFC 6750, section 2.1).
func bearer(h http.Header) (string, *binding.Refusal) {
	text := h.Get("Authorization")
	if text == "" {
		return "", binding.Refuse(schemas.AuthRequired, "", "%s", schemas.AuthRequired.Text()).
			WithFix("send the header Authorization: Bearer TOKEN; spillway token TENANT makes one")
	}
	scheme, token, _ := strings.Cut(text, " ")
	if !strings.EqualFold(scheme, "bearer") {
		return "", binding.Refuse(schemas.AuthFailed, "", "authorization scheme %q is not taken", binding.Clip(scheme)).WithFix("send Authorization: Bearer TOKEN")
	}
	return strings.TrimSpace(token), nil
}

// build makes records of the body.
func (x *exchange) build(b *builder, m binding.Mode, avro bool) *binding.Refusal {
	var d binding.Draft
	body := x.body.b
	switch {
	case m != binding.Binary && x.r.URL.RawQuery != "":
		return binding.Refuse(schemas.Malformed, "", "query parameters are for events in binary mode").WithFix("put attributes into the event")
	case m == binding.Binary:
		if refused := d.ReadBinary(x.r.Header, x.r.URL.RawQuery); refused != nil {
			return refused
		}
		d.Data, d.Avro = body, avro
	default:
		if refused := binding.CheckJSON(body); refused != nil {
			return refused
		}
		if m == binding.Batched {
			return x.buildBatch(b, body)
		}
		if refused := d.ReadStructured(body); refused != nil {
			return refused
		}
	}
	if !x.hold.takeEvents(1) {
		return overloaded()
	}
	b.grow(1, len(body))
	return b.add(&d)
}

func (x *exchange) buildBatch(b *builder, body []byte) *binding.Refusal {
	batch, refused := binding.ReadBatch(body)
	switch {
	case refused != nil:
		return refused
	case batch.Len() > MaxBatchEvents:
		return binding.Refuse(schemas.TooLarge, "", "the batch has %d events, at most %d are taken", batch.Len(), MaxBatchEvents).WithFix("send smaller batches")
	case !x.hold.takeEvents(int64(batch.Len())):
		return overloaded()
	}
	b.grow(batch.Len(), len(body))
	var d binding.Draft
	for i := range batch.Len() {
		d.Reset()
		refused := d.ReadStructured(batch.Next())
		if refused == nil {
			refused = b.add(&d)
		}
		if refused != nil {
			return refused.InEvent(i)
		}
	}
	return nil
}

// write produces the records and waits for Kafka's answer.
func (x *exchange) write(b *builder, answer *buffer) *binding.Refusal {
	topic, refused := x.in.topicID()
	if refused == nil {
		refused = x.in.accepting(b.records)
	}
	if refused != nil {
		return refused
	}
	if refused := x.in.countQuota(b.records); refused != nil {
		return refused
	}
	if len(b.records) > 0 {
		began := x.in.cfg.Now()
		if refused := x.in.produce(b.records, &x.hold).wait(x.r.Context()); refused != nil {
			x.in.uncountQuota(b.records)
			return refused
		}
		x.in.metrics.ack.Observe(x.in.cfg.Now().Sub(began).Seconds())
	}
	answer.b = b.appendAnswer(answer.b[:0], topic)
	return nil
}

// appendAnswer lists where the events are. An event without an id has its
// place as one; the member is left out if the policy takes it from the payload,
// for only the line looks there.
func (b *builder) appendAnswer(dst []byte, topic schemas.TopicID) []byte {
	dst = append(dst, `{"events":[`...)
	for i := range b.records {
		r := &b.records[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '{')
		switch {
		case b.ids[i] != "":
			dst = append(schemas.AppendJSONString(append(dst, `"id":`...), b.ids[i]), ',')
		case !b.takesID[i] && r.Offset >= 0:
			origin := schemas.Origin{Topic: topic, Partition: r.Partition, Offset: r.Offset}
			dst = append(origin.AppendTo(append(dst, `"id":"`...)), `",`...)
		}
		dst = strconv.AppendInt(append(dst, `"partition":`...), int64(r.Partition), 10)
		if r.Offset >= 0 { // Kafka may acknowledge a repeat without saying where it lies
			dst = strconv.AppendInt(append(dst, `,"offset":`...), r.Offset, 10)
		}
		dst = append(dst, '}')
	}
	return append(dst, "]}\n"...)
}
