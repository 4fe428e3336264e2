package ingest

import (
	"bytes"
	"context"
	"net/http"
	"sort"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"github.com/spillway/spillway/schemas"
)

// TestCloudEventsSDK sends with the official client in all three modes.
func TestCloudEventsSDK(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *stack) {
		transport := &http.Transport{DialContext: s.http.DialContext}
		defer transport.CloseIdleConnections()
		const url = "http://127.0.0.1:8080/v1/events"
		bearer := "Bearer " + s.producer("acme")
		protocol, err := cehttp.New(cehttp.WithTarget(url), cehttp.WithRoundTripper(transport), cehttp.WithHeader("Authorization", bearer))
		if err != nil {
			t.Fatal(err)
		}
		client, err := cloudevents.NewClient(protocol)
		if err != nil {
			t.Fatal(err)
		}
		event := func(id string, data any) cloudevents.Event {
			e := cloudevents.NewEvent()
			e.SetID(id)
			e.SetSource("/sdk")
			e.SetType("demo.Message")
			e.SetSubject("chat.ä")
			e.SetTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
			e.SetExtension("idempotencykey", "k-"+id)
			e.SetExtension("number", 7)
			e.SetExtension("flag", true)
			if err := e.SetData(cloudevents.ApplicationJSON, data); err != nil {
				t.Fatal(err)
			}
			return e
		}
		message := map[string]string{"text": "hi"}
		for id, ctx := range map[string]context.Context{
			"binary":     context.Background(),
			"structured": binding.WithForceStructured(context.Background()),
		} {
			if result := client.Send(ctx, event(id, message)); !cloudevents.IsACK(result) {
				t.Errorf("%s: %v", id, result)
			}
		}
		batch, err := cehttp.NewHTTPRequestFromEvents(context.Background(), url, []cloudevents.Event{event("batch-1", message), event("batch-2", message)})
		if err != nil {
			t.Fatal(err)
		}
		batch.Header.Set("Authorization", bearer)
		resp, err := transport.RoundTrip(batch)
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		_, _ = body.ReadFrom(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted || strings.Count(body.String(), `"id":"batch-`) != 2 {
			t.Errorf("batch: %s %s", resp.Status, &body)
		}

		var result *cehttp.Result
		refused := client.Send(context.Background(), event("bad", map[string]string{"txt": "hi"}))
		if !cloudevents.ResultAs(refused, &result) || result.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("data that does not fit: %v", refused)
		}

		var ids []string
		for _, rec := range s.all() {
			id := header(rec, schemas.HeaderID)
			ids = append(ids, id)
			want := `acme ce_id=` + id + ` ce_source=/sdk ce_type=demo.Message ce_subject=chat.ä ce_time=2026-01-02T03:04:05Z ce_idempotencykey=k-` + id +
				` ce_flag=true ce_number=7 #1 {"text":"hi","from":""}`
			if got := s.describe(rec); got != want && got != strings.Replace(want, "ce_flag=true ce_number=7", "ce_number=7 ce_flag=true", 1) {
				t.Errorf("%s\nwant %s", got, want)
			}
		}
		sort.Strings(ids)
		if got := strings.Join(ids, " "); got != "batch-1 batch-2 binary structured" {
			t.Errorf("written: %s", got)
		}
	})
}
