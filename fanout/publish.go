package fanout

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spillway/spillway/schemas"
)

// publishTimeout bounds one call of ingest.
const publishTimeout = 15 * time.Second

// publish hands a pub frame to the connection's publisher. One at a time goes
// to ingest, so that a client's events keep their order; maxInFlight wait at
// most, then the client is told to slow down.
func (c *conn) publish(f *schemas.ClientFrame) {
	no := checkPub(c.claims, f)
	if no == nil && c.f.cfg.IngestURL == "" {
		no = refuse(schemas.NotFound, "this node takes no pub: it knows no ingest")
	}
	if no != nil {
		c.f.m.publishes.WithLabelValues(string(no.code)).Inc()
		c.refuse(no, f.N)
		return
	}
	if c.pubs == nil {
		c.pubs = make(chan schemas.ClientFrame, maxInFlight)
		c.pubDone.Go(c.publishAll)
	}
	select {
	case c.pubs <- *f:
	default:
		c.f.m.publishes.WithLabelValues(string(schemas.Overloaded)).Inc()
		c.refuse(refuse(schemas.Overloaded, "%d publishes of this connection wait for an answer", maxInFlight), f.N)
	}
}

// publishAll is the publisher: it ends with the connection.
func (c *conn) publishAll() {
	ctx, cancel := context.WithCancel(c.f.life)
	defer cancel()
	go func() {
		select {
		case <-c.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		select {
		case <-c.done:
			return
		case f := <-c.pubs:
			answer := c.f.forward(ctx, c.token, &f)
			if answer.T == "ack" {
				c.f.m.publishes.WithLabelValues("ack").Inc()
			} else {
				c.f.m.publishes.WithLabelValues(string(answer.Code)).Inc()
			}
			if !c.post(message{reply: encodeFrame(answer)}) {
				return
			}
		}
	}
}

// forward publishes one event with the client's own token and makes the frame
// that answers it.
func (f *Fanout) forward(ctx context.Context, token string, p *schemas.ClientFrame) schemas.ServerFrame {
	b := []byte(`{"specversion":"1.0","type":`)
	b = schemas.AppendJSONString(b, p.Type)
	b = schemas.AppendJSONString(append(b, `,"subject":`...), p.Ch)
	b = schemas.AppendJSONString(append(b, `,"idempotencykey":`...), p.Key)
	b = append(append(append(b, `,"datacontenttype":"application/json","data":`...), p.Data...), '}')
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(f.cfg.IngestURL, "/")+"/v1/events", bytes.NewReader(b))
	if err != nil {
		return errFrame(refuse(schemas.Internal, "%s", err), p.N)
	}
	req.Header.Set("Content-Type", "application/cloudevents+json")
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := f.http.Do(req)
	if err != nil {
		return errFrame(refuse(schemas.KafkaUnavailable, "ingest does not answer"), p.N)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return errFrame(refuse(schemas.KafkaUnavailable, "ingest broke off its answer"), p.N)
	}
	if resp.StatusCode/100 == 2 {
		return schemas.ServerFrame{T: "ack", N: p.N, Ident: idOf(body)}
	}
	return refusedBy(resp, body, p.N)
}

// idOf finds the event's id in the answer of ingest; "" if it is known only
// later, when the policy takes it from the payload.
func idOf(body []byte) json.RawMessage {
	var answer struct {
		Events []struct {
			ID string `json:"id"`
		} `json:"events"`
	}
	id := ""
	if json.Unmarshal(body, &answer) == nil && len(answer.Events) > 0 {
		id = answer.Events[0].ID
	}
	return schemas.AppendJSONString(nil, id)
}

// refusedBy relays what ingest says of an event it does not take.
func refusedBy(resp *http.Response, body []byte, n int64) schemas.ServerFrame {
	var answer struct {
		Error struct {
			Code    schemas.Reason `json:"code"`
			Message string         `json:"message"`
			Fix     string         `json:"fix"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Error.Code == "" {
		answer.Error.Code, answer.Error.Message = schemas.Internal, fmt.Sprintf("ingest answered %d", resp.StatusCode)
	}
	e := &answer.Error
	if e.Fix != "" {
		e.Message += "; " + e.Fix
	}
	out := errFrame(&refusal{code: e.Code, msg: e.Message}, n)
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		out.Retry, out.MS = "after", 1000
		if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s >= 0 && s < 1<<20 {
			out.MS = s * 1000
		}
	}
	return out
}
