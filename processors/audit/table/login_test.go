package table

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillway/spillway/control/connect"
)

// connected is a server as a process meets it, with what flags say of it.
func connected(t *testing.T, web connect.Web) Server {
	t.Helper()
	conns, err := connect.New(connect.Config{ClickHouse: web, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	config, user, password, err := conns.ClickHouse()
	if err != nil {
		t.Fatal(err)
	}
	return Server{URL: web.URLs[0], User: user, Password: password, Login: conns.ClickHouseLogin, TLS: config}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestPasswordChanges: a pool that is open shows the password of now, in both
// ways that the client knows, and says so if it cannot be read.
func TestPasswordChanges(t *testing.T) {
	var password atomic.Value
	var odd atomic.Int32
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, word, two := r.BasicAuth()
		if !two {
			user, word = r.Header.Get("X-ClickHouse-User"), r.Header.Get("X-ClickHouse-Key")
		} else if r.Header.Get("X-ClickHouse-User") != "" {
			odd.Add(1) // which ClickHouse refuses
		}
		if user != "writer" || word != password.Load() {
			w.Header().Set("X-ClickHouse-Exception-Code", "516")
			http.Error(w, "Code: 516. DB::Exception: writer: Authentication failed", http.StatusForbidden)
			return
		}
		w.Header().Set("X-ClickHouse-Exception-Code", "241")
		http.Error(w, "Code: 241. DB::Exception: let in, but no memory", http.StatusInternalServerError)
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	dir := t.TempDir()
	ca, secret := filepath.Join(dir, "ca"), filepath.Join(dir, "password")
	write(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})))
	for _, web := range []connect.Web{{URLs: []string{plain.URL}}, {URLs: []string{secure.URL}, Files: connect.Files{CA: ca}}} {
		write(t, secret, "first\n")
		password.Store("first")
		web.User, web.Password = "writer", connect.Secret{File: secret}
		conn, err := connected(t, web).Open()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		for i, c := range []struct {
			server, file string
			want         Reason
		}{{"first", "first", MemoryLimit}, {"second", "first", AuthFailed}, {"second", "second\n", MemoryLimit}, {"third", "third", MemoryLimit}} {
			password.Store(c.server)
			write(t, secret, c.file)
			if f := Diagnose(conn.Exec(t.Context(), "SELECT 1")); f == nil || f.Reason != c.want {
				t.Errorf("%s, step %d: %v, want %s", web.URLs[0], i, f, c.want)
			}
		}
		if err := os.Remove(secret); err != nil {
			t.Fatal(err)
		}
		if f := Diagnose(conn.Exec(t.Context(), "SELECT 1")); f == nil || f.Reason != AuthFailed || !errors.Is(f, os.ErrNotExist) {
			t.Errorf("%s without its file: %v", web.URLs[0], f)
		}
	}
	if odd.Load() > 0 {
		t.Errorf("%d requests showed two passwords", odd.Load())
	}
}

// TestLoginWithACertificate: without a password the certificate stands for us,
// and without a user the server's default one.
func TestLoginWithACertificate(t *testing.T) {
	var got atomic.Pointer[http.Header]
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Header.Clone()
		got.Store(&h)
		http.Error(w, "Code: 516. DB::Exception: no", http.StatusForbidden)
	}))
	t.Cleanup(srv.Close)
	trusted := x509.NewCertPool()
	trusted.AddCert(srv.Certificate())
	conn, err := Server{
		URL: srv.URL, Password: "old", TLS: &tls.Config{RootCAs: trusted}, Login: func() (string, string, error) { return "", "", nil },
	}.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.Ping(t.Context()); err == nil || got.Load() == nil {
		t.Fatal(err)
	}
	if h := *got.Load(); h.Get("X-ClickHouse-User") != "default" || h.Get("X-ClickHouse-Key") != "" || h.Get("X-ClickHouse-SSL-Certificate-Auth") != "on" {
		t.Errorf("%v", h)
	}
}

// TestDiagnoseTLS: whatever is wrong between the two certificates, as a process
// meets it, is about TLS.
func TestDiagnoseTLS(t *testing.T) {
	never := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request came through") })
	srv := httptest.NewTLSServer(never)
	t.Cleanup(srv.Close)
	strict := httptest.NewUnstartedServer(never)
	strict.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	strict.StartTLS()
	t.Cleanup(strict.Close)
	ca := filepath.Join(t.TempDir(), "ca")
	write(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	expired := connected(t, connect.Web{URLs: []string{srv.URL}, Files: connect.Files{CA: ca}})
	conns, err := connect.New(connect.Config{
		ClickHouse: connect.Web{URLs: []string{srv.URL}, Files: connect.Files{CA: ca}}, Logger: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return srv.Certificate().NotAfter.Add(time.Hour) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if expired.TLS, _, _, err = conns.ClickHouse(); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]Server{
		"signed by another": connected(t, connect.Web{URLs: []string{srv.URL}}),
		"another name":      connected(t, connect.Web{URLs: []string{fmt.Sprintf("https://localhost:%s", u.Port())}, Files: connect.Files{CA: ca}}),
		"expired":           expired,
		"wants ours":        connected(t, connect.Web{URLs: []string{strict.URL}, Files: connect.Files{CA: ca}}),
	} {
		_, err := Migrate(t.Context(), MigrateConfig{Server: s})
		if f := Diagnose(err); f == nil || f.Reason != TLSRefused || strings.Contains(f.Error(), "\n") {
			t.Errorf("%s: %v", name, f)
		}
	}
}
