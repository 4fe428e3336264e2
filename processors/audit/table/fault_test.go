package table

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// closed is an address where nothing listens.
func closed(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestDiagnoseNetwork(t *testing.T) {
	refuses := func(code int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-ClickHouse-Exception-Code", fmt.Sprint(code))
			http.Error(w, fmt.Sprintf("Code: %d. DB::Exception: no", code), http.StatusInternalServerError)
		})
	}
	plain, secure := httptest.NewServer(refuses(999)), httptest.NewTLSServer(refuses(516))
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	trusted := x509.NewCertPool()
	trusted.AddCert(secure.Certificate())
	for name, c := range map[string]struct {
		server Server
		want   Reason
	}{
		"nothing listens":       {Server{URL: "http://" + closed(t)}, Unreachable},
		"no such host":          {Server{URL: "http://nowhere.invalid:1"}, Unreachable},
		"unknown authority":     {Server{URL: secure.URL}, TLSRefused},
		"http where https is":   {Server{URL: strings.Replace(secure.URL, "https", "http", 1)}, NotClickHouse},
		"https where http is":   {Server{URL: strings.Replace(plain.URL, "http", "https", 1)}, TLSRefused},
		"Keeper is away":        {Server{URL: plain.URL}, Replicas},
		"let in by TLS, not by": {Server{URL: secure.URL, TLS: &tls.Config{RootCAs: trusted}}, AuthFailed},
	} {
		c.server.User, c.server.Password = "writer", "hunter2secret"
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := Migrate(ctx, MigrateConfig{Server: c.server})
		cancel()
		f := Diagnose(err)
		if f == nil || f.Reason != c.want {
			t.Errorf("%s: %v, want %s", name, f, c.want)
			continue
		}
		if text := f.Error(); strings.Contains(text, "hunter2") || strings.ContainsAny(text, "\n") || len(text) > 700 || !strings.HasPrefix(text, string(c.want)+": ") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func TestDiagnoseKeepsTheCause(t *testing.T) {
	if Diagnose(nil) != nil {
		t.Error("nil has a fault")
	}
	cause := errors.New("x")
	f := Diagnose(fmt.Errorf("around: %w", &Fault{TooOld, cause}))
	if f.Reason != TooOld || !errors.Is(f, cause) {
		t.Errorf("%v", f)
	}
	for code, r := range byCode {
		if reasons[r] == "" {
			t.Errorf("code %d: reason %q has no text", code, r)
		}
	}
	if long := oneLine(errors.New(strings.Repeat("é\n", 1000))); len(long) > 410 || strings.Contains(long, "\n") {
		t.Errorf("%d bytes", len(long))
	}
}

// TestWhoWeAre: user and password of the fields win over those of the URL, and
// reach the server over TLS, with a certificate instead of a password too.
func TestWhoWeAre(t *testing.T) {
	var got http.Header
	var certs int
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, certs = r.Header.Clone(), len(r.TLS.PeerCertificates)
		http.Error(w, "Code: 516. DB::Exception: no", http.StatusForbidden)
	}))
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	trusted := x509.NewCertPool()
	trusted.AddCert(srv.Certificate())
	cfg := &tls.Config{RootCAs: trusted}
	ask := func(s Server) {
		t.Helper()
		conn, err := s.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.Ping(t.Context()); Diagnose(err) == nil || Diagnose(err).Reason != AuthFailed {
			t.Fatal(err)
		}
	}
	withUser := strings.Replace(srv.URL, "https://", "https://url:word@", 1)
	ask(Server{URL: withUser, TLS: cfg})
	if got.Get("X-ClickHouse-User") != "url" || got.Get("X-ClickHouse-Key") != "word" {
		t.Errorf("from the URL: %v", got)
	}
	ask(Server{URL: withUser, User: "flag", Password: "secret", TLS: cfg})
	if got.Get("X-ClickHouse-User") != "flag" || got.Get("X-ClickHouse-Key") != "secret" {
		t.Errorf("from the fields: %v", got)
	}
	mine := cfg.Clone()
	mine.Certificates = srv.TLS.Certificates
	ask(Server{URL: srv.URL, User: "flag", TLS: mine})
	if got.Get("X-ClickHouse-SSL-Certificate-Auth") != "on" || certs == 0 {
		t.Errorf("with a certificate: %v, %d certificates", got, certs)
	}
	if err := (Server{URL: "http://h:1", TLS: cfg}).Validate(); err == nil || !strings.Contains(err.Error(), "https://") {
		t.Errorf("TLS without https: %v", err)
	}
}
