package explain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/processors/audit/table"
	"github.com/spillway/spillway/schemas"
)

// Config of the API.
type Config struct {
	// Conn is a connection pool in the audit's database. Required.
	Conn driver.Conn
	// Tokens verify who asks. Required.
	Tokens Tokens
	// Schemas turn payloads into JSON. Nil: payloads are given as they are, as
	// data_base64.
	Schemas processors.Schemas
	// Resolve asks the registry for one schema, so that Schemas knows it
	// afterwards. Nil: never.
	Resolve func(ctx context.Context, id int32) error
	Now     func() time.Time
	Logger  *slog.Logger
}

// Tokens verify a bearer token. Its error tells reason and claim, see refusal.
type Tokens interface {
	Verify(token string) (schemas.Claims, error)
}

// api answers
//
//	GET /v1/events/{id}?tenant=                        the story, JSON
//	GET /v1/events?tenant=&from=&to=[&channel=]        events, CloudEvents as NDJSON
//
// An operator may ask for every tenant, anyone else for the token's. A client
// sees only channels that its token lets it subscribe to.
type api struct {
	cfg   Config
	src   Source
	slots chan struct{} // a token per export that runs
}

// maxExports is how many exports run at once; the next is told to come back.
const maxExports = 4

// storyTimeout bounds the look-up of a story.
const storyTimeout = 15 * time.Second

// NewHandler returns the API of the audit role.
func NewHandler(cfg Config) (http.Handler, error) {
	if cfg.Conn == nil || cfg.Tokens == nil || cfg.Now == nil || cfg.Logger == nil {
		return nil, errors.New("explain: Conn, Tokens, Now and Logger are required")
	}
	a := &api{cfg: cfg, src: ClickHouse(cfg.Conn), slots: make(chan struct{}, maxExports)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/events/{id...}", a.story)
	mux.HandleFunc("GET /v1/events", a.export)
	mux.HandleFunc("/v1/events", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", "GET")
		refuse(schemas.MethodNotAllowed, "use GET; events are sent to ingest").write(w)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(schemas.NotFound, "the audit role has /v1/events and /v1/events/{id}").write(w)
	})
	return mux, nil
}

func (a *api) story(w http.ResponseWriter, r *http.Request) {
	claims, no := a.who(r)
	if no != nil {
		no.write(w)
		return
	}
	tenant, no := tenantOf(claims, r.URL.Query().Get("tenant"))
	if no != nil {
		no.write(w)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), storyTimeout)
	defer cancel()
	s, err := Explain(ctx, a.src, r.PathValue("id"), tenant)
	if err == nil && claims.Role == schemas.RoleClient {
		s.keep(func(acc *Account) bool { return acc.Channel != "" && claims.MaySubscribe(acc.Channel) })
		if len(s.Events) == 0 {
			err = ErrNotFound // whether it exists is none of this client's business
		}
	}
	switch {
	case errors.Is(err, ErrNotFound):
		refuse(schemas.NotFound, "no such event is known; it is written here within 2 s, and kept 90 days").write(w)
		return
	case err != nil:
		a.unavailable(r, err).write(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(s) // the client left: nobody to tell
}

// keep leaves only the accounts that may be seen.
func (s *Story) keep(may func(*Account) bool) {
	kept := s.Events[:0]
	for i := range s.Events {
		if may(&s.Events[i]) {
			kept = append(kept, s.Events[i])
		}
	}
	s.Events = kept
}

// unavailable is what a client is told when ClickHouse fails; the log has why.
func (a *api) unavailable(r *http.Request, err error) *refusal {
	if r.Context().Err() == nil {
		f := table.Diagnose(err)
		a.cfg.Logger.Warn("a question could not be answered", "reason", string(f.Reason), "err", f)
	}
	no := refuse(schemas.AuditUnavailable, schemas.AuditUnavailable.Text())
	no.retryAfter = 5
	return no
}

// who reads the bearer token.
func (a *api) who(r *http.Request) (schemas.Claims, *refusal) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" {
		return schemas.Claims{}, refuse(schemas.AuthRequired, "send the header Authorization: Bearer TOKEN; spillway token makes one")
	}
	claims, err := a.cfg.Tokens.Verify(token)
	var known interface {
		error
		Refused() (reason schemas.Reason, claim string)
	}
	switch {
	case err == nil:
		return claims, nil
	case errors.As(err, &known):
		reason, claim := known.Refused()
		no := refuse(reason, known.Error())
		no.claim = claim
		return claims, no
	}
	return claims, refuse(schemas.AuthFailed, schemas.AuthFailed.Text())
}

// tenantOf is the tenant to ask for: the token's, or the one an operator names,
// "" for all of them.
func tenantOf(c schemas.Claims, asked string) (string, *refusal) {
	if c.Role == schemas.RoleOperator && (c.Tenant == schemas.Everyone || c.Tenant == asked) {
		return asked, nil
	}
	if asked != "" && asked != c.Tenant {
		no := refuse(schemas.Forbidden, fmt.Sprintf("the token is for tenant %s", c.Tenant))
		no.claim = "tenant"
		return "", no
	}
	return c.Tenant, nil
}

// A refusal is an error as every layer writes it: {"error":{"code","message","claim"}}.
type refusal struct {
	code           schemas.Reason
	message, claim string
	retryAfter     int // seconds; 0: none
}

func refuse(code schemas.Reason, message string) *refusal {
	return &refusal{code: code, message: message}
}

var statuses = map[schemas.Reason]int{
	schemas.Malformed: http.StatusBadRequest, schemas.CursorIllegal: http.StatusBadRequest, schemas.ChannelIllegal: http.StatusBadRequest,
	schemas.AuthRequired: http.StatusUnauthorized, schemas.AuthFailed: http.StatusUnauthorized, schemas.TokenExpired: http.StatusUnauthorized,
	schemas.Forbidden: http.StatusForbidden, schemas.NotFound: http.StatusNotFound, schemas.MethodNotAllowed: http.StatusMethodNotAllowed,
	schemas.Overloaded: http.StatusServiceUnavailable, schemas.AuditUnavailable: http.StatusServiceUnavailable,
}

func (no *refusal) write(w http.ResponseWriter) {
	status, ok := statuses[no.code]
	if !ok {
		status = http.StatusInternalServerError
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	if no.retryAfter > 0 {
		h.Set("Retry-After", fmt.Sprint(no.retryAfter))
	}
	w.WriteHeader(status)
	_, _ = w.Write(no.appendJSON(nil)) // the client left: nobody to tell
}

func (no *refusal) appendJSON(dst []byte) []byte {
	dst = schemas.AppendJSONString(append(dst, `{"error":{"code":`...), string(no.code))
	dst = schemas.AppendJSONString(append(dst, `,"message":`...), no.message)
	if no.claim != "" {
		dst = schemas.AppendJSONString(append(dst, `,"claim":`...), no.claim)
	}
	return append(dst, "}}\n"...)
}
