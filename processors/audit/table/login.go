package table

import (
	"fmt"
	"net/http"
)

// signed shows at each request the user and password of this moment: the
// client itself keeps those that it was opened with.
func (s Server) signed(next http.RoundTripper) http.RoundTripper {
	if s.Login == nil {
		return next
	}
	return signed{s.Login, next}
}

type signed struct {
	login func() (user, password string, err error)
	next  http.RoundTripper
}

func (t signed) RoundTrip(req *http.Request) (*http.Response, error) {
	user, password, err := t.login()
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, &Fault{AuthFailed, fmt.Errorf("read the password: %w", err)}
	}
	if user == "" {
		user = defaultUser
	}
	req = req.Clone(req.Context())
	req.URL.User = nil
	req.Header.Del("Authorization") // ClickHouse takes only one of the two ways
	req.Header.Set("X-ClickHouse-User", user)
	req.Header.Del("X-ClickHouse-Key")
	req.Header.Del("X-ClickHouse-SSL-Certificate-Auth")
	switch {
	case password != "":
		req.Header.Set("X-ClickHouse-Key", password)
	case req.URL.Scheme == "https": // our certificate stands for us
		req.Header.Set("X-ClickHouse-SSL-Certificate-Auth", "on")
	}
	return t.next.RoundTrip(req)
}
