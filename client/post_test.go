package client_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/spillway/spillway/client"
)

func TestPost(t *testing.T) {
	for name, c := range map[string]struct {
		status       int
		answer, want string // want: the error, "" is none
	}{
		"accepted":      {202, `{"events":[{"id":"e1","partition":3,"offset":7}]}`, ""},
		"refused":       {422, `{"error":{"code":"schema_mismatch","message":"text: want a string","fix":"send text"}}`, "schema_mismatch: text: want a string (send text)"},
		"without a fix": {401, `{"error":{"code":"token_invalid","message":"expired"}}`, "token_invalid: expired"},
		"a proxy":       {502, "<html>bad gateway</html>", "502 Bad Gateway: <html>bad gateway</html>"},
		"two answers":   {202, `{"events":[{"id":"e1"},{"id":"e2"}]}`, "202 Accepted: "},
		"no answer":     {202, `{}`, "202 Accepted: {}"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if got := r.URL.RequestURI() + " " + r.Header.Get("Authorization") + " " + string(body); got != `/v1/events?id=e1&key=k&subject=chat.1&type=demo.Message Bearer tok {"text":"hi"}` {
					t.Error(got)
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.answer)
			}))
			defer s.Close()
			got, err := client.Post{URL: s.URL + "/", Token: "tok", HTTP: s.Client(), Type: "demo.Message", Channel: "chat.1", Key: "k"}.Send(t.Context(), "e1", []byte(`{"text":"hi"}`))
			switch {
			case c.want == "" && (err != nil || got != client.Accepted{ID: "e1", Partition: 3, Offset: 7}):
				t.Errorf("got %v, %v", got, err)
			case c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)):
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestParseFrom(t *testing.T) {
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]client.From{
		"live": client.Live, "begin": client.Begin, "last:7": client.Last(7), "2026-01-02T03:04:05Z": client.Since(when),
	} {
		if got, err := client.ParseFrom(text); err != nil || got != want {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "last:0", "last:x", "yesterday"} {
		if got, err := client.ParseFrom(text); err == nil {
			t.Errorf("%s: %q, want an error", text, got)
		}
	}
}
