package main

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"time"
)

// front is the door: it knows the user and passes on to the engine, which knows none and serves loopback only.
type front struct {
	user, password string
	to             string // where the engine listens

	servers []*http.Server
}

// start opens 8123, and 8443 when there is a certificate. Each is served by a part of its own.
func (f *front) start(ctx context.Context, part func(func() error)) error {
	handler := f.handler()
	if err := f.makeDatabase(ctx); err != nil {
		return err
	}
	config, err := tlsConfig(os.Getenv("CLICKHOUSE_TLS_CERT"), os.Getenv("CLICKHOUSE_TLS_KEY"), os.Getenv("CLICKHOUSE_TLS_CLIENT_CA"))
	if err != nil {
		return err
	}
	plain, err := net.Listen("tcp", ":8123")
	if err != nil {
		return err
	}
	f.serve(part, plain, handler)
	if config == nil {
		return nil
	}
	secure, err := net.Listen("tcp", ":8443")
	if err != nil {
		return err
	}
	f.serve(part, tls.NewListener(secure, config), handler)
	return nil
}

func (f *front) serve(part func(func() error), l net.Listener, h http.Handler) {
	srv := &http.Server{Addr: l.Addr().String(), Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	f.servers = append(f.servers, srv)
	part(func() error { return srv.Serve(l) })
}

func (f *front) ports() (addrs []string) {
	for _, s := range f.servers {
		addrs = append(addrs, s.Addr)
	}
	return addrs
}

// stop ends the ports; requests get stopTimeout, then they are cut.
func (f *front) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	for _, s := range f.servers {
		if s.Shutdown(ctx) != nil {
			_ = s.Close()
		}
	}
}

// tlsConfig is nil without a certificate.
func tlsConfig(cert, key, clientCA string) (*tls.Config, error) {
	if cert == "" && key == "" && clientCA == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("CLICKHOUSE_TLS_CERT, CLICKHOUSE_TLS_KEY: %w", err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if clientCA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(clientCA)
	if err != nil {
		return nil, fmt.Errorf("CLICKHOUSE_TLS_CLIENT_CA: %w", err)
	}
	c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CLICKHOUSE_TLS_CLIENT_CA: %s holds no certificate", clientCA)
	}
	return c, nil
}

// handler answers /ping to anybody, as ClickHouse does, and the rest to the user.
func (f *front) handler() http.Handler {
	proxy := &httputil.ReverseProxy{
		FlushInterval: -1, // a client that reads rows as they come
		Rewrite: func(r *httputil.ProxyRequest) {
			// The engine checks Host against web pages, and knows no users.
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", f.to, f.to
			for _, h := range []string{"Authorization", "X-Clickhouse-User", "X-Clickhouse-Key"} {
				r.Out.Header.Del(h)
			}
			q := r.Out.URL.Query()
			q.Del("user")
			q.Del("password")
			r.Out.URL.RawQuery = q.Encode()
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute, DisableCompression: true},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		isCheck := r.URL.Path == "/ping" || (r.URL.Path == "/" && r.Method == http.MethodGet && r.URL.RawQuery == "")
		if user, password := credentials(r); isCheck || f.admits(user, password) {
			proxy.ServeHTTP(w, r)
		} else {
			refuse(w, user)
		}
	})
}

// credentials are taken from where ClickHouse takes them: its headers, else basic authorization, else the query.
func credentials(r *http.Request) (user, password string) {
	if user = r.Header.Get("X-Clickhouse-User"); user != "" {
		return user, r.Header.Get("X-Clickhouse-Key")
	}
	if user, password, ok := r.BasicAuth(); ok {
		return user, password
	}
	q := r.URL.Query()
	return q.Get("user"), q.Get("password")
}

func (f *front) admits(user, password string) bool {
	same := func(a, b string) int { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) }
	return same(user, f.user)&same(password, f.password) == 1
}

// refuse answers as ClickHouse does to a wrong password and to an unknown user, which it does not tell apart.
func refuse(w http.ResponseWriter, user string) {
	if user == "" {
		user = "default"
	}
	w.Header().Set("X-ClickHouse-Exception-Code", "516")
	http.Error(w, "Code: 516. DB::Exception: "+user+": Authentication failed: password is incorrect, or there is no user with such name. (AUTHENTICATION_FAILED)",
		http.StatusForbidden)
}

// makeDatabase makes the database that CLICKHOUSE_DB names.
func (f *front) makeDatabase(ctx context.Context) error {
	name := os.Getenv("CLICKHOUSE_DB")
	if name == "" {
		return nil
	}
	if strings.ContainsAny(name, "`\\") {
		return errors.New("CLICKHOUSE_DB: it cannot hold ` and \\")
	}
	q := url.Values{"query": {"CREATE DATABASE IF NOT EXISTS `" + name + "`"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+f.to+"/?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("make database %s: %w", name, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("make database %s: %s", name, res.Status)
	}
	return nil
}
