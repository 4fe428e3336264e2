package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestFront looks at who comes in, and at what the engine behind it gets.
func TestFront(t *testing.T) {
	var got *http.Request
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Clone(r.Context())
		_, _ = io.Copy(w, r.Body)
	}))
	defer engine.Close()
	f := front{user: "ann", password: "secret", to: strings.TrimPrefix(engine.URL, "http://")}
	door := httptest.NewServer(f.handler())
	defer door.Close()

	for _, c := range []struct {
		name, path string
		how        func(*http.Request)
		status     int
	}{
		{"basic", "/?query=x", func(r *http.Request) { r.SetBasicAuth("ann", "secret") }, 200},
		{"headers", "/?query=x", func(r *http.Request) {
			r.Header.Set("X-ClickHouse-User", "ann")
			r.Header.Set("X-ClickHouse-Key", "secret")
		}, 200},
		{"query", "/?user=ann&password=secret&query=x", func(*http.Request) {}, 200},
		{"host by name", "/?query=x", func(r *http.Request) { r.Host = "clickhouse:8123"; r.SetBasicAuth("ann", "secret") }, 200},
		{"ping", "/ping", func(*http.Request) {}, 200},
		{"wrong password", "/?query=x", func(r *http.Request) { r.SetBasicAuth("ann", "other") }, 403},
		{"wrong user", "/?query=x", func(r *http.Request) { r.SetBasicAuth("bob", "secret") }, 403},
		{"nobody", "/?query=x", func(*http.Request) {}, 403},
		{"headers before basic", "/?query=x", func(r *http.Request) {
			r.Header.Set("X-ClickHouse-User", "ann")
			r.SetBasicAuth("ann", "secret")
		}, 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			got = nil
			r, err := http.NewRequest(http.MethodPost, door.URL+c.path, strings.NewReader("rows"))
			if err != nil {
				t.Fatal(err)
			}
			c.how(r)
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != c.status {
				t.Fatalf("status %d, want %d (%v)", res.StatusCode, c.status, err)
			}
			if c.status != http.StatusOK {
				if res.Header.Get("X-ClickHouse-Exception-Code") != "516" || !strings.Contains(string(body), "AUTHENTICATION_FAILED") || got != nil {
					t.Errorf("refused with %q %q; the engine got %v", res.Header, body, got)
				}
				return
			}
			if string(body) != "rows" || got.Host != f.to {
				t.Errorf("body %q, Host %q", body, got.Host)
			}
			if said := got.URL.RawQuery + got.Header.Get("Authorization") + got.Header.Get("X-ClickHouse-Key"); strings.Contains(said, "secret") || got.Header.Get("Authorization") != "" {
				t.Errorf("the engine got the credentials: %s", said)
			}
		})
	}
}

func TestTLSConfigNamesTheSetting(t *testing.T) {
	if c, err := tlsConfig("", "", ""); c != nil || err != nil {
		t.Errorf("without a certificate: %v, %v", c, err)
	}
	if _, err := tlsConfig("/nowhere", "/nowhere", ""); err == nil || !strings.Contains(err.Error(), "CLICKHOUSE_TLS_CERT") {
		t.Errorf("missing file: %v", err)
	}
}
