package route

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// RefusedPath lists what a router refuses, as JSON; a POST to a partition's
// number below it accepts that. Both are for operators, on the admin port.
const RefusedPath = "/v1/route/refused"

// Refusals serves RefusedPath.
func (r *Router) Refusals(w http.ResponseWriter, _ *http.Request) { answer(w, r.Refused()) }

// AcceptOne serves POST RefusedPath/{partition}; see Accept.
func (r *Router) AcceptOne(w http.ResponseWriter, req *http.Request) {
	number, err := strconv.ParseInt(req.PathValue("partition"), 10, 32)
	if err != nil || number < 0 {
		http.Error(w, req.PathValue("partition")+" is no partition", http.StatusBadRequest)
		return
	}
	why, err := r.Accept(int32(number))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	r.cfg.Logger.Warn("a person accepts that a refused partition goes on", "partition", number, "reason", why.Reason)
	answer(w, why)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client has gone: nobody to tell
}

// An Operator asks a router by its admin port.
type Operator struct {
	URL   string // of the admin port
	Token string // an operator's; empty on loopback
}

// Refused are the partitions that the router refuses.
func (o Operator) Refused(ctx context.Context) (list []Refused, err error) {
	return list, o.ask(ctx, http.MethodGet, "", &list)
}

// Accept has the router accept a partition that it refuses.
func (o Operator) Accept(ctx context.Context, partition int32) error {
	var why Refused
	return o.ask(ctx, http.MethodPost, fmt.Sprint("/", partition), &why)
}

func (o Operator) ask(ctx context.Context, method, path string, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(o.URL, "/")+RefusedPath+path, nil)
	if err != nil {
		return err
	}
	if o.Token != "" {
		r.Header.Set("Authorization", "Bearer "+o.Token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s answers %d: %s", r.URL, resp.StatusCode, bytes.TrimSpace(body))
	}
	return json.Unmarshal(body, into)
}
