package fanout

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/spillway/spillway/schemas"
)

// Handler serves clients:
//
//	GET /v1/ws       WebSocket, subprotocol spillway.v1.json
//	GET /v1/stream   SSE, one channel
//	GET /v1/connect  where to connect
func (f *Fanout) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/ws", f.get(f.serveWebSocket))
	mux.HandleFunc("/v1/stream", f.get(f.serveStream))
	mux.HandleFunc("/v1/connect", f.get(f.serveConnect))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		f.deny(w, refuse(schemas.NotFound, "%s", schemas.NotFound.Text()))
	})
	return mux
}

// get lets GET from allowed pages pass, and answers the question that browsers
// ask before (CORS).
func (f *Fanout) get(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		if !f.originAllowed(origin, r.Host) {
			f.deny(w, refuse(schemas.Forbidden, "pages from %q may not connect here", clip(origin)))
			return
		}
		if origin != "" {
			w.Header().Set("Access-Control-Allow-Origin", origin)
			w.Header().Add("Vary", "Origin")
		}
		switch r.Method {
		case http.MethodGet:
			next(w, r)
		case http.MethodOptions:
			w.Header().Set("Access-Control-Allow-Methods", "GET")
			w.Header().Set("Access-Control-Allow-Headers", "Authorization, Last-Event-ID")
			w.WriteHeader(http.StatusNoContent)
		default:
			w.Header().Set("Allow", "GET, OPTIONS")
			f.deny(w, refuse(schemas.MethodNotAllowed, "%s", schemas.MethodNotAllowed.Text()))
		}
	}
}

// originAllowed reports whether a page may connect: one of the same host, or
// one that Origins names. Clients that are no browsers send no Origin.
func (f *Fanout) originAllowed(origin, host string) bool {
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return false
	}
	if strings.EqualFold(u.Host, host) {
		return true
	}
	for _, pattern := range f.cfg.Origins {
		target := u.Host
		if strings.Contains(pattern, "://") {
			target = u.Scheme + "://" + u.Host
		}
		if ok, err := path.Match(strings.ToLower(pattern), strings.ToLower(target)); err == nil && ok {
			return true
		}
	}
	return false
}

var statusOf = map[schemas.Reason]int{
	schemas.AuthRequired: http.StatusUnauthorized, schemas.AuthFailed: http.StatusUnauthorized, schemas.TokenExpired: http.StatusUnauthorized,
	schemas.Forbidden: http.StatusForbidden, schemas.TenantUnknown: http.StatusForbidden, schemas.TenantSuspended: http.StatusForbidden,
	schemas.NotFound: http.StatusNotFound, schemas.MethodNotAllowed: http.StatusMethodNotAllowed,
	schemas.ConnectionLimit: http.StatusServiceUnavailable, schemas.Draining: http.StatusServiceUnavailable,
	schemas.KafkaUnavailable: http.StatusServiceUnavailable,
}

// deny answers a request that is refused.
func (f *Fanout) deny(w http.ResponseWriter, no *refusal) {
	f.m.refused.WithLabelValues(string(no.code)).Inc()
	status, ok := statusOf[no.code]
	if !ok {
		status = http.StatusBadRequest
	}
	switch status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case http.StatusServiceUnavailable:
		after := "1" // draining: another node, or this one in a moment
		if no.code == schemas.ConnectionLimit {
			after = strconv.Itoa(int(drainAfter(30*time.Second)/time.Second) + 1)
		}
		w.Header().Set("Retry-After", after)
		w.Header().Set("Reconnect-After", after)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	type body struct {
		Code    schemas.Reason `json:"code"`
		Message string         `json:"message"`
	}
	json.NewEncoder(w).Encode(map[string]body{"error": {no.code, no.msg}})
}

// bearer is the token of a request's Authorization header, "" if there is none.
func bearer(r *http.Request) string {
	kind, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(kind, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

func (f *Fanout) serveConnect(w http.ResponseWriter, r *http.Request) {
	if _, no := f.admit(bearer(r)); no != nil {
		f.deny(w, no)
		return
	}
	address := f.cfg.Advertise
	if address == "" {
		address = "ws://" + r.Host
		if r.TLS != nil {
			address = "wss://" + r.Host
		}
		address += "/v1/ws"
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	json.NewEncoder(w).Encode(map[string]string{"url": address})
}

// hijacked gives the WebSocket library its connection and keeps it for us.
type hijacked struct {
	http.ResponseWriter
	conn net.Conn
}

func (h *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	h.conn = conn
	return conn, rw, err
}

// limitSendBuffer makes a client that does not read show early.
func limitSendBuffer(ctx context.Context, conn net.Conn) context.Context {
	raw := conn
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		raw = t.NetConn()
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		tcp.SetWriteBuffer(sendBuffer)
	}
	return ctx
}

func (f *Fanout) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	c := &conn{
		f: f, id: rand.Text(), openedAt: f.cfg.Now(), bearer: bearer(r), chunks: chunks{r: f.reader},
		inbox: make(chan message, 4), woken: make(chan struct{}, 1), done: make(chan struct{}), gone: make(chan struct{}),
	}
	if c.bearer != "" {
		if _, no := f.admit(c.bearer); no != nil {
			f.deny(w, no)
			return
		}
	}
	if no := f.join(c, "ws"); no != nil {
		f.deny(w, no)
		return
	}
	hw := &hijacked{ResponseWriter: w}
	ws, err := websocket.Accept(hw, r, &websocket.AcceptOptions{
		Subprotocols: []string{schemas.Subprotocol}, InsecureSkipVerify: true, OnPingReceived: c.pong,
	})
	if err != nil { // it has answered
		f.part(c, "ws")
		f.m.refused.WithLabelValues(string(schemas.Malformed)).Inc()
		return
	}
	ws.SetReadLimit(-1) // read bounds it, with an error of ours
	c.ws, c.sock = ws, hw.conn
	c.shaken.Store(true)
	if ws.Subprotocol() == "" && r.Header.Get("Sec-WebSocket-Protocol") != "" {
		f.m.closed(int(schemas.CloseVersion))
		ws.Close(websocket.StatusCode(schemas.CloseVersion), string(schemas.VersionUnknown))
		f.part(c, "ws")
		return
	}
	go func() { // the handler returns, which frees the request
		defer f.part(c, "ws")
		c.run(f.life)
	}()
}

// pong answers a client's WebSocket ping through the owner: the library would
// give up on a connection whose client does not read just now.
func (c *conn) pong(_ context.Context, payload []byte) bool {
	const finPong = 0x8a
	frame := append([]byte{finPong, byte(len(payload))}, payload...)
	select {
	case c.inbox <- message{reply: frame}:
	default: // RFC 6455 section 5.5.3: not every ping needs an answer
	}
	c.heard.Store(c.f.cfg.Now().UnixMilli())
	return false
}

func (c *conn) tickNow() {
	c.ticked.Store(true)
	c.Wake()
}

func (c *conn) drain(after time.Duration) {
	c.drained.Store(after.Milliseconds() + 1)
	c.Wake()
}
