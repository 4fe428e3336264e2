package server

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// guard keeps web pages out: a browser on this machine reaches loopback, and a
// query can write files (INTO OUTFILE), by GET too. It refuses what a foreign
// page makes a browser send, and names that a page may have pointed here (DNS
// rebinding). Programs send neither.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isForeign(r) {
			http.Error(w, "requests of other sites' pages are refused, and names other than localhost", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isForeign(r *http.Request) bool {
	if !isLocalName(r.Host) {
		return true
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default:
		return true
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || u.Host != r.Host
}

// isLocalName: the Host header says this machine, as it may look from a
// container as well.
func isLocalName(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true // an address cannot be rebound
	}
	host = strings.ToLower(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || host == "host.docker.internal"
}
