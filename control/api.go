package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spillway/spillway/control/keys"
	"github.com/spillway/spillway/schemas"
)

// Bounds of a request.
const (
	maxBody        = 8 << 20 // bytes of an apply
	correlationHdr = "X-Correlation-Id"
	followWithin   = 2 * time.Second // what a change waits for this process's own follower
)

// kinds by their plural in a path.
var plurals = map[string]Kind{"tenants": KindTenant, "endpoints": KindEndpoint, "flags": KindFlag}

// Result is the answer to a change.
type Result struct {
	Version  int64    `json:"version,omitempty"` // what was changed has this version now
	DryRun   bool     `json:"dry_run,omitempty"` // nothing was written
	Lines    []string `json:"lines"`             // what changes, one line a field; none: nothing
	Warnings []string `json:"warnings,omitempty"`
}

// handler serves
//
//	GET    /v1/tenants         {"items": [document …]}; likewise /v1/endpoints, /v1/flags
//	GET    /v1/tenants/NAME    document, ETag
//	PUT    /v1/tenants/NAME    body = spec; If-Match, If-None-Match: *, ?dry_run=1
//	DELETE /v1/tenants/NAME    If-Match, ?dry_run=1
//	POST   /v1/apply           {"documents": [document …]}: all of them or none, ?dry_run=1
//	POST   /v1/secrets/rotate  a new secret signs returns in a minute
func (c *Control) handler() http.Handler {
	mux := http.NewServeMux()
	for plural, kind := range plurals {
		mux.HandleFunc("GET /v1/"+plural, c.list(kind))
		mux.HandleFunc("GET /v1/"+plural+"/{name}", c.get(kind))
		mux.HandleFunc("PUT /v1/"+plural+"/{name}", c.put(kind))
		mux.HandleFunc("DELETE /v1/"+plural+"/{name}", c.remove(kind))
		mux.HandleFunc("/v1/"+plural, notAllowed("GET"))
		mux.HandleFunc("/v1/"+plural+"/{name}", notAllowed("GET, PUT, DELETE"))
	}
	mux.HandleFunc("POST /v1/apply", c.apply)
	mux.HandleFunc("/v1/apply", notAllowed("POST"))
	mux.HandleFunc("POST /v1/secrets/rotate", c.rotate)
	mux.HandleFunc("/v1/secrets/rotate", notAllowed("POST"))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		answerError(w, &Error{Code: schemas.NotFound, Message: schemas.NotFound.Text()})
	})
	return c.guard(mux)
}

type callerKey struct{}

// caller is who asks, for the audit.
type caller struct{ correlation, subject string }

// guard lets in operators, or everyone who is on this machine when there are
// no keys.
func (c *Control) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := caller{correlation: correlation(r, c.cfg.NewID)}
		w.Header().Set(correlationHdr, who.correlation)
		claims, err := c.authorise(r)
		if err != nil {
			c.metrics.changes.WithLabelValues("request", string(err.Code)).Inc()
			c.cfg.Logger.Warn("request refused", "correlation_id", who.correlation, "method", r.Method, "path", r.URL.Path, "reason", err.Code)
			answerError(w, err)
			return
		}
		who.subject = claims.Subject
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, who)))
	})
}

func (c *Control) authorise(r *http.Request) (schemas.Claims, *Error) {
	if c.cfg.Keys == nil {
		if !loopbackHost(r.Host) { // a page in a browser that calls its own name 127.0.0.1
			return schemas.Claims{}, &Error{Code: schemas.Forbidden, Message: fmt.Sprintf("without keys only loopback is served, not %.80q", r.Host)}
		}
		return schemas.Claims{}, nil
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return schemas.Claims{}, &Error{Code: schemas.AuthRequired, Message: "Authorization: Bearer <token> is required"}
	}
	claims, err := c.cfg.Keys.Verify(token)
	var refused *keys.Error
	switch {
	case errors.As(err, &refused):
		return claims, &Error{Code: refused.Reason, Message: refused.Message}
	case err != nil:
		return claims, &Error{Code: schemas.AuthFailed, Message: err.Error()}
	case claims.Role != schemas.RoleOperator:
		return claims, &Error{Code: schemas.Forbidden, Message: fmt.Sprintf("claim role: must be operator, got %q", claims.Role)}
	}
	return claims, nil
}

func loopbackHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// correlation is the caller's own id if it is a decent one, else a new one.
func correlation(r *http.Request, newID func() string) string {
	id := r.Header.Get(correlationHdr)
	if id == "" || len(id) > 128 || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return newID()
	}
	return id
}

func (c *Control) list(kind Kind) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		items := c.documents(kind)
		answer(w, http.StatusOK, map[string]any{"items": items})
	}
}

func (c *Control) documents(kind Kind) []Document {
	items := []Document{}
	for k, e := range c.follower.Snapshot().entries {
		if k.kind == kind {
			items = append(items, Document{k.kind, k.name, e.version, e.value})
		}
	}
	order(items)
	return items
}

func (c *Control) get(kind Kind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		e, ok := c.follower.Snapshot().entries[key{kind, name}]
		if !ok {
			answerError(w, &Error{Code: schemas.NotFound, Path: clip(name), Message: fmt.Sprintf("there is no %s of that name", kind)})
			return
		}
		w.Header().Set("ETag", etag(e.version))
		answer(w, http.StatusOK, Document{kind, name, e.version, e.value})
	}
}

func (c *Control) put(kind Kind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ch := change{key: key{kind, r.PathValue("name")}}
		body, err := read(w, r)
		if err == nil {
			ch.value, err = decodeSpec(kind, body)
		}
		if err == nil {
			ch.ifMatch, err = precondition(r)
		}
		c.do(w, r, []change{ch}, err)
	}
}

func (c *Control) remove(kind Kind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ch := change{key: key{kind, r.PathValue("name")}}
		var err error
		ch.ifMatch, err = precondition(r)
		c.do(w, r, []change{ch}, err)
	}
}

func (c *Control) apply(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Documents []Document `json:"documents"`
	}
	body, err := read(w, r)
	if err == nil {
		err = unreadable(strictJSON(body, &in))
	}
	if err == nil && len(in.Documents) > maxDocuments {
		err = invalid("documents", "%d at most, got %d", maxDocuments, len(in.Documents))
	}
	order(in.Documents)
	changes := make([]change, 0, len(in.Documents))
	for _, d := range in.Documents {
		changes = append(changes, d.change())
	}
	if err == nil {
		err = repeated(in.Documents)
	}
	c.do(w, r, changes, err)
}

func repeated(sorted []Document) error {
	for i := 1; i < len(sorted); i++ {
		if sorted[i].Kind == sorted[i-1].Kind && sorted[i].Name == sorted[i-1].Name {
			return invalid(clip(sorted[i].Name), "%s is in it twice", sorted[i].Kind)
		}
	}
	return nil
}

func (c *Control) rotate(w http.ResponseWriter, r *http.Request) {
	writer, err := c.current()
	id := ""
	if err == nil {
		id, err = writer.rotate(r.Context())
	}
	c.note(r, []change{{key: key{KindSecret, id}}}, "rotated", err)
	if err != nil {
		answerError(w, refusal(err))
		return
	}
	answer(w, http.StatusOK, map[string]any{"id": id, "active_in": rotateAfter.String()})
}

// do makes changes, unless err says already why not, and answers.
func (c *Control) do(w http.ResponseWriter, r *http.Request, changes []change, err error) {
	dry := r.URL.Query().Get("dry_run") != "" && r.URL.Query().Get("dry_run") != "0"
	result := Result{DryRun: dry, Lines: []string{}}
	if err == nil {
		err = c.write(r.Context(), changes, &result)
	}
	switch {
	case err != nil:
		c.note(r, changes, "", err)
		answerError(w, refusal(err))
		return
	case dry:
		c.note(r, changes, "dry_run", nil)
	case len(result.Lines) == 0:
		c.note(r, changes, "unchanged", nil)
	default:
		c.note(r, changes, "written", nil, "version", result.Version, "lines", result.Lines)
	}
	if result.Version > 0 {
		w.Header().Set("ETag", etag(result.Version))
	}
	answer(w, http.StatusOK, result)
}

func (c *Control) write(ctx context.Context, changes []change, result *Result) error {
	writer, err := c.current()
	if err != nil {
		return err
	}
	p, version, err := writer.write(ctx, changes, result.DryRun)
	if err != nil {
		return err
	}
	result.Warnings = p.warnings
	if p.lines != nil {
		result.Lines = p.lines
	}
	if len(p.changes) > 0 && !result.DryRun {
		result.Version = version
		c.awaitFollower(ctx, p.offset)
	}
	return nil
}

// awaitFollower lets a client that changed something see it in its next GET.
func (c *Control) awaitFollower(ctx context.Context, offset int64) {
	ctx, cancel := context.WithTimeout(ctx, followWithin)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for c.follower.Version() < offset {
		select {
		case <-ctx.Done():
			return // it is written; the follower's own readiness says what is wrong
		case <-tick.C:
		}
	}
}

// note audits what was asked: a line in the log and a count for each record.
func (c *Control) note(r *http.Request, changes []change, result string, err error, more ...any) {
	who, _ := r.Context().Value(callerKey{}).(caller)
	if err != nil {
		result = string(refusal(err).Code)
		more = append(more, "err", err)
	}
	for _, ch := range changes {
		c.metrics.changes.WithLabelValues(string(ch.key.kind), result).Inc()
	}
	names := make([]string, 0, min(len(changes), 20))
	for _, ch := range changes[:cap(names)] {
		names = append(names, clip(ch.key.String()))
	}
	c.cfg.Logger.Info("change", append([]any{
		"correlation_id", who.correlation, "subject", who.subject, "method", r.Method, "records", names, "count", len(changes), "result", result,
	}, more...)...)
}
