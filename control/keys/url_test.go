package keys

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/spillway/spillway/schemas"
)

// transport answers with the key set in body, or fails if there is none.
type transport struct {
	body  atomic.Pointer[string]
	calls atomic.Int32
}

func (tr *transport) RoundTrip(*http.Request) (*http.Response, error) {
	tr.calls.Add(1)
	body := tr.body.Load()
	if body == nil {
		return nil, errors.New("connection refused")
	}
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: io.NopCloser(strings.NewReader(*body))}, nil
}

func (tr *transport) serve(t *testing.T, keys ...Key) {
	t.Helper()
	raw, err := marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	body := string(raw)
	tr.body.Store(&body)
}

func TestURLIsRefreshedAndKeepsTheLastGoodSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &transport{}
		r, err := New(Config{
			URL: "https://id.example/jwks", Client: &http.Client{Transport: tr}, Refresh: time.Hour,
			Now: time.Now, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		synctest.Wait()
		if r.Ready() == nil {
			t.Error("ready without keys")
		}
		first, second, secret := generated(t, "ES256", "1", ""), generated(t, "EdDSA", "2", ""), generated(t, "HS256", "3", "")
		tr.serve(t, first, secret)
		time.Sleep(minRefresh) //nolint:forbidigo // moves the bubble's clock
		synctest.Wait()
		if err := r.Ready(); err != nil {
			t.Fatal(err)
		}
		claim := jwt.MapClaims{"tenant": "acme", "exp": time.Now().Add(24 * time.Hour).Unix()}
		verifies := func(k Key) bool {
			_, err := r.Verify(token(t, k, nil, claim))
			return err == nil
		}
		if !verifies(first) || verifies(secret) || verifies(second) { // the unknown key asks for a fetch
			t.Error("first set: want key 1 alone; a secret from an address must not count")
		}
		if tok, err := r.Sign(schemas.Claims{Tenant: "acme", ExpiresAt: time.Now().Add(time.Hour)}); err == nil {
			t.Errorf("signed with a key from an address: %s", tok)
		}
		tr.serve(t, second)
		time.Sleep(minRefresh) //nolint:forbidigo // moves the bubble's clock
		synctest.Wait()
		if verifies(first) || !verifies(second) {
			t.Error("second set: want key 2 alone")
		}
		tr.body.Store(nil)
		time.Sleep(3 * time.Hour) //nolint:forbidigo // moves the bubble's clock
		synctest.Wait()
		if !verifies(second) {
			t.Error("the last good set is gone")
		}
		if n := tr.calls.Load(); n > 8 {
			t.Errorf("%d fetches", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
