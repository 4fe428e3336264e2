package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"
)

// What a registry, or what stands in its place, can do wrong. The words are
// also the label of spillway_registry_failures_total.
const (
	timedOut     = "timeout"      // no whole answer in time
	refused      = "refused"      // nobody listens, or hangs up
	unencrypted  = "tls"          // no agreement about TLS or its certificates
	redirected   = "redirect"     // 3xx: a proxy, or http for https
	unauthorized = "unauthorized" // 401, 403
	busy         = "busy"         // 429
	serverError  = "server_error" // 5xx
	notJSON      = "not_json"     // a proxy's page, garbage, half an answer
	tooLarge     = "too_large"    // more than MaxResponse
	cutOff       = "cut_off"      // ended before its announced length
	wrongAnswer  = "wrong_answer" // JSON, but not what this API answers
	cancelled    = "cancelled"    // who asked has gone; says nothing about the registry
)

// A Fault is a request that got no answer of a schema registry.
type Fault struct {
	Method, URL string // without user and password
	Status      int    // 0 if there was none
	Reason      string // one of the words above
	Text        string // what came instead, shortened
}

func (f *Fault) Error() string {
	where := f.Method + " " + f.URL
	if f.Status != 0 {
		return fmt.Sprintf("%s answered %d: %s", where, f.Status, f.Text)
	}
	return where + ": " + f.Text
}

const (
	maxAtOnce   = 8       // requests under way, with their answers in memory
	maxOneBytes = 4 << 20 // of one schema's answer; lists may take MaxResponse
)

// answers is a transport that lets through only what a registry may have said:
// a whole body of JSON, in time and within bounds, with a status that the API
// knows. Everything else is a *Fault.
type answers struct {
	base    http.RoundTripper
	timeout time.Duration
	max     int64
	slots   chan struct{}
}

func (a *answers) RoundTrip(req *http.Request) (*http.Response, error) {
	asked := req.Context()
	ctx, cancel := context.WithTimeout(asked, a.timeout)
	defer cancel()
	f := &Fault{Method: req.Method, URL: req.URL.Redacted()}
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		return nil, f.broke(asked, ctx.Err(), a.timeout)
	}
	ctx, cancel = context.WithTimeout(asked, a.timeout)
	defer cancel()
	resp, err := a.base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return nil, f.broke(asked, err, a.timeout)
	}
	defer resp.Body.Close()
	f.Status = resp.StatusCode
	bound := a.bound(req, resp)
	body, err := io.ReadAll(io.LimitReader(resp.Body, bound+1))
	switch {
	case f.byStatus(resp, body):
		return nil, f
	case err != nil:
		return nil, f.broke(asked, err, a.timeout)
	case int64(len(body)) > bound:
		f.Reason, f.Text = tooLarge, fmt.Sprintf("the answer exceeds %d bytes", bound)
		return nil, f
	case !json.Valid(body):
		f.Reason, f.Text = notJSON, "not JSON: "+clip(string(body))
		return nil, f
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return resp, nil
}

// bound is how much of an answer is read. What is refused needs only a reason.
func (a *answers) bound(req *http.Request, resp *http.Response) int64 {
	path := strings.TrimSuffix(req.URL.Path, "/")
	list := strings.HasSuffix(path, "/schemas") || strings.HasSuffix(path, "/subjects") || strings.HasSuffix(path, "/versions")
	if list && resp.StatusCode < 300 {
		return a.max
	}
	return min(a.max, maxOneBytes)
}

// byStatus says whether the status alone makes it no answer, and why.
func (f *Fault) byStatus(resp *http.Response, body []byte) bool {
	switch s := resp.StatusCode; {
	case s == http.StatusUnauthorized || s == http.StatusForbidden:
		f.Reason, f.Text = unauthorized, "it does not accept the user or the password (--registry-user, --registry-password): "+clip(string(body))
	case s == http.StatusTooManyRequests:
		f.Reason, f.Text = busy, clip(string(body))
	case s >= 500:
		f.Reason, f.Text = serverError, clip(string(body))
	case s >= 300 && s < 400:
		// Not followed: a POST would become a GET, and the password would travel on.
		f.Reason, f.Text = redirected, fmt.Sprintf("a redirect to %q, which is not followed: set --registry-url to the registry's own address", clip(resp.Header.Get("Location")))
	default:
		return false
	}
	return true
}

// broke words the error of a connection.
func (f *Fault) broke(asked context.Context, err error, timeout time.Duration) *Fault {
	text := clip(err.Error())
	var dns *net.DNSError
	switch {
	case asked.Err() != nil:
		f.Reason, f.Text = cancelled, "given up: "+asked.Err().Error()
	case isTimeout(err):
		f.Reason, f.Text = timedOut, fmt.Sprintf("no whole answer within %s", timeout)
	case errors.Is(err, io.ErrUnexpectedEOF):
		f.Reason, f.Text = cutOff, "the answer was cut off"
	case isTLS(text):
		f.Reason, f.Text = unencrypted, text+" (--registry-ca, --registry-cert, --registry-key)"
	case errors.As(err, &dns):
		f.Reason, f.Text = refused, "no such host (--registry-url): "+text
	default:
		f.Reason, f.Text = refused, text
	}
	return f
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

// isTLS knows crypto/tls's errors by their words: they have no common type.
func isTLS(text string) bool {
	for _, word := range []string{"tls: ", "x509: ", "HTTP response to HTTPS client"} {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}

// clip shortens what comes from outside to a line.
func clip(text string) string { return clipTo(200, text) }

func clipTo(most int, text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		cut := most
		for cut > 0 && !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut] + "…"
	}
	return text
}
