package connect

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// A tunnel is a proxy that leads every CONNECT to one address.
func tunnel(t *testing.T, to string) (address *url.URL, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var hosts []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		hosts = append(hosts, r.Method+" "+r.Host)
		mu.Unlock()
		there, err := net.Dial("tcp", to)
		if err != nil {
			t.Error(err)
			return
		}
		defer there.Close()
		w.WriteHeader(http.StatusOK)
		here, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer here.Close()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(there, buffered)
			there.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(here, there)
		here.Close()
		<-done
	}))
	t.Cleanup(s.Close)
	address, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return address, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return hosts
	}
}

// TestProxy: through a proxy a server is held to the same CA and name, and is
// shown the same certificate of ours, as without.
func TestProxy(t *testing.T) {
	ca := newAuthority(t, "test CA")
	ours, ourKey := ca.sign(t, "ours", time.Now().Add(time.Hour))
	server := func(name string) *httptest.Server {
		cert, key := ca.sign(t, name, time.Now().Add(time.Hour))
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "[]") }))
		s.TLS = serverTLS(t, cert, key, ca.ca)
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
		s.StartTLS()
		t.Cleanup(s.Close)
		return s
	}
	for name, c := range map[string]struct {
		at, ca string
		want   []string
	}{
		"by name":          {"registry.example", ca.ca, nil},
		"by address":       {"192.0.2.1", ca.ca, nil},
		"CA of the system": {"registry.example", "", []string{"--registry-ca", "registry.example"}},
	} {
		t.Run(name, func(t *testing.T) {
			proxy, asked := tunnel(t, server(c.at).Listener.Addr().String())
			got := throughProxy(t, proxy, "https://"+c.at+":8081", Files{c.ca, ours, ourKey})
			expect(t, got, c.want...)
			if hosts := asked(); len(hosts) != 1 || hosts[0] != "CONNECT "+c.at+":8081" {
				t.Errorf("the proxy was asked for %q", hosts)
			}
		})
	}
	t.Run("of another name", func(t *testing.T) {
		proxy, _ := tunnel(t, server("another.example").Listener.Addr().String())
		got := throughProxy(t, proxy, "https://registry.example:8081", Files{ca.ca, ours, ourKey})
		expect(t, got, "--registry-url", "not for that name")
	})
}

// throughProxy asks a registry, with the proxy where the environment's would
// be: that one is read once a process.
func throughProxy(t *testing.T, proxy *url.URL, address string, files Files) string {
	t.Helper()
	cfg := config(Kafka{})
	cfg.Registry = Web{URLs: []string{address}, Files: files}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	transport := c.registryTransport()
	defer transport.CloseIdleConnections()
	for _, next := range transport.next {
		if next.Proxy == nil {
			t.Error("the environment's proxy is not asked")
		}
		next.Proxy = http.ProxyURL(proxy)
	}
	_, text, err := ask(t.Context(), transport, http.MethodGet, address+"/subjects", "")
	if err != nil {
		return strings.TrimSpace(c.explain(&askedError{"registry", err}).Error())
	}
	if string(text) != "[]" {
		t.Errorf("answered %q", text)
	}
	return ""
}
