package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
)

// backoff is the pause after failures.
type backoff struct {
	until time.Time
	pause time.Duration
	since time.Time // of the first failure
	why   error     // of the last one; nil while the registry answers
}

const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// Ready says why the registry cannot be asked now, or nil. It answers at once.
// While it is not nil the client asks the registry by itself, so that it turns
// nil again also if nobody else has a question.
func (c *Client) Ready() error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.backoff.why == nil {
		return nil
	}
	return fmt.Errorf("%w since %s: %w", ErrUnavailable, c.backoff.since.UTC().Format(time.RFC3339), c.backoff.why)
}

// outcome turns the error of a request into ErrAbsent, ErrRefused or
// ErrUnavailable, counts it, and remembers whether the registry is up.
func (c *Client) outcome(err error) error {
	var re *sr.ResponseError
	if err != nil && errors.As(err, &re) && isRegistry(re) {
		c.up()
		if isAbsent(re) {
			c.metrics.requests.WithLabelValues("absent").Inc()
			return ErrAbsent
		}
		c.metrics.requests.WithLabelValues("refused").Inc()
		return fmt.Errorf("%w: %s %s answered %d: %s", ErrRefused, re.Method, re.URL, re.StatusCode, clipTo(1000, re.Message))
	}
	if err == nil {
		c.up()
		c.metrics.requests.WithLabelValues("ok").Inc()
		return nil
	}
	f := fault(err)
	if f.Reason != cancelled {
		c.metrics.requests.WithLabelValues("failed").Inc()
		c.metrics.failures.WithLabelValues(f.Reason).Inc()
		c.down(f)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, f)
}

// isRegistry tells the registry's own answer from that of a gateway that
// speaks JSON too: the codes of the API begin with the status.
func isRegistry(re *sr.ResponseError) bool {
	switch re.StatusCode {
	case 404:
		return re.ErrorCode/100 == 404
	case 409:
		return re.ErrorCode == 409 || re.ErrorCode/100 == 409
	case 422:
		return re.ErrorCode == 422 || re.ErrorCode/100 == 422
	}
	return false
}

// isAbsent: there is no such subject, version or schema.
func isAbsent(re *sr.ResponseError) bool { return re.ErrorCode >= 40401 && re.ErrorCode <= 40403 }

// byID asks about an id. Only 40403 denies one, and JSON of another kind, which
// would read as an empty schema, says nothing. A schema whose text is empty is
// one: Apicurio takes such.
func (c *Client) byID(ctx context.Context, id int) (got sr.Schema, err error) {
	path := fmt.Sprintf("/schemas/ids/%d", id)
	var text json.RawMessage
	err = c.sr.Do(ctx, http.MethodGet, path, nil, &text)
	var re *sr.ResponseError
	if errors.As(err, &re) && isRegistry(re) && isAbsent(re) && re.ErrorCode != 40403 {
		return got, fault(&sr.ResponseError{Method: re.Method, URL: re.URL, StatusCode: re.StatusCode, Raw: re.Raw})
	}
	if err != nil {
		return got, err
	}
	var member struct{ Schema *string }
	if err := errors.Join(json.Unmarshal(text, &member), json.Unmarshal(text, &got)); err != nil {
		return got, c.odd(path, err.Error())
	}
	if member.Schema == nil {
		return got, c.odd(path, "an answer without a schema")
	}
	return got, nil
}

// aboutVersion checks an answer that describes a version.
func (c *Client) aboutVersion(ss sr.SubjectSchema, err error) error {
	if err == nil && (ss.ID <= 0 || ss.ID > maxID || ss.Version <= 0 || ss.Subject == "") {
		return c.odd("/subjects", fmt.Sprintf("a version without subject, number or id: %q %d %d", clip(ss.Subject), ss.Version, ss.ID))
	}
	return err
}

func (c *Client) odd(path, text string) *Fault {
	return &Fault{Method: "GET", URL: strings.TrimSuffix(c.cfg.URLs[0], "/") + path, Status: 200, Reason: wrongAnswer, Text: text}
}

// fault is what is wrong with an answer that is none, without the wrapping
// that repeats method and URL.
func fault(err error) *Fault {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	var re *sr.ResponseError
	if errors.As(err, &re) {
		return &Fault{re.Method, re.URL, re.StatusCode, wrongAnswer, "no answer of a schema registry (--registry-url): " + clip(string(re.Raw))}
	}
	return &Fault{Method: "registry", Reason: wrongAnswer, Text: clip(err.Error())} // JSON of another shape
}

func (c *Client) up() {
	c.mu.Lock()
	was := c.backoff
	c.backoff = backoff{}
	c.mu.Unlock()
	if was.why != nil {
		c.log.Info("schema registry answers again", "after", c.cfg.Now().Sub(was.since))
	}
}

// down notes a failure. The first one has the client look for the registry
// until it is back.
func (c *Client) down(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	b, now := &c.backoff, c.cfg.Now()
	if b.why == nil {
		b.since = now
		c.log.Warn("schema registry does not answer", "err", why)
	}
	b.why = why
	b.pause = min(max(2*b.pause, minBackoff), maxBackoff)
	b.until = now.Add(b.pause)
	if !c.looking {
		c.looking = true
		c.done.Add(1)
		go c.look()
	}
}

// look asks a small question after each pause until one is answered.
func (c *Client) look() {
	defer c.done.Done()
	timer := time.NewTimer(minBackoff)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-c.base.Done():
			return
		}
		wait, down := c.pause()
		if down && wait <= 0 {
			_, err := c.sr.Subjects(sr.WithParams(c.base, sr.Limit(1)))
			_ = c.outcome(err) // noted there
			wait, down = c.pause()
		}
		if !down {
			return
		}
		timer.Reset(max(wait, minBackoff))
	}
}

// pause is how long the registry is not to be asked; not down ends the search
// for it.
func (c *Client) pause() (wait time.Duration, down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.backoff.why == nil {
		c.looking = false
		return 0, false
	}
	return c.backoff.until.Sub(c.cfg.Now()), true
}
