package control

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A Client asks the control role over HTTP. The zero value asks nobody: set
// URL.
type Client struct {
	URL   string       // where control listens: "http://127.0.0.1:8070"
	Token string       // an operator's; "" where no keys are configured
	HTTP  *http.Client // nil: one with a timeout of 30 s
}

// maxAnswer bounds what a client reads: 50,000 documents of a modest size.
const maxAnswer = 64 << 20

// Get returns the documents of a kind, "" meaning all that people write, in
// the order they are applied. With a name it returns that one.
func (c *Client) Get(ctx context.Context, kind Kind, name string) ([]Document, error) {
	var out []Document
	for _, k := range []Kind{KindEndpoint, KindTenant, KindFlag} {
		if kind != "" && k != kind {
			continue
		}
		if name != "" {
			var d Document
			if err := c.call(ctx, http.MethodGet, "/v1/"+plural(k)+"/"+url.PathEscape(name), nil, &d); err != nil {
				return nil, err
			}
			out = append(out, d)
			continue
		}
		var list struct {
			Items []Document `json:"items"`
		}
		if err := c.call(ctx, http.MethodGet, "/v1/"+plural(k), nil, &list); err != nil {
			return nil, err
		}
		out = append(out, list.Items...)
	}
	return out, nil
}

// Apply makes all documents so, or none: they are checked together and written
// in one transaction. With dryRun nothing is written; the result says what
// would be.
func (c *Client) Apply(ctx context.Context, docs []Document, dryRun bool) (Result, error) {
	var out Result
	err := c.call(ctx, http.MethodPost, "/v1/apply"+query(dryRun), map[string]any{"documents": docs}, &out)
	return out, err
}

// Delete removes one record.
func (c *Client) Delete(ctx context.Context, kind Kind, name string, dryRun bool) (Result, error) {
	var out Result
	err := c.call(ctx, http.MethodDelete, "/v1/"+plural(kind)+"/"+url.PathEscape(name)+query(dryRun), nil, &out)
	return out, err
}

func plural(k Kind) string { return string(k) + "s" }

func query(dryRun bool) string {
	if dryRun {
		return "?dry_run=1"
	}
	return ""
}

// call sends in as JSON and reads out. A refusal is returned as *Error.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(c.URL, "/")+path, body)
	if err != nil {
		return fmt.Errorf("ask control: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	resp, err := cmp.Or(c.HTTP, &http.Client{Timeout: 30 * time.Second}).Do(req)
	if err != nil {
		return fmt.Errorf("ask control: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("ask control: %w", err)
	case len(answer) > maxAnswer:
		return fmt.Errorf("ask control: the answer has more than %d bytes", maxAnswer)
	case resp.StatusCode/100 != 2:
		return refused(resp.StatusCode, answer)
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("ask control: %s answers something else: %w", c.URL, err)
	}
	return nil
}

func refused(status int, answer []byte) error {
	var out struct {
		Error *Error `json:"error"`
	}
	if json.Unmarshal(answer, &out) != nil || out.Error == nil {
		return errors.New("ask control: " + http.StatusText(status))
	}
	return out.Error
}
