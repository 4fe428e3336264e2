package table

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"
)

// oldest is the oldest server whose SQL our tables, views and inserts can rely on.
var oldest = proto.Version{Major: 24, Minor: 8}

// requireVersion refuses a server that is too old, by name and number. One
// that is so old that the client cannot greet it is asked plainly.
func (s Server) requireVersion(ctx context.Context, conn driver.Conn) error {
	var found proto.Version
	v, err := conn.ServerVersion()
	if err == nil {
		found = v.Version
	} else {
		if why := reasonOf(err); why != Other && why != NotClickHouse {
			return fmt.Errorf("greet the server: %w", err)
		}
		text, askErr := s.askVersion(ctx)
		if found = proto.ParseVersion(text); askErr != nil || found.Major == 0 {
			return fmt.Errorf("greet the server: %w", err)
		}
	}
	if !proto.CheckMinVersion(oldest, found) {
		return &Fault{TooOld, fmt.Errorf("it is ClickHouse %d.%d, and %d.%d or newer is needed", found.Major, found.Minor, oldest.Major, oldest.Minor)}
	}
	return nil
}

// askVersion asks as any version of the server understands it.
func (s Server) askVersion(ctx context.Context) (string, error) {
	u, err := url.Parse(s.URL)
	if err != nil {
		return "", err
	}
	who := s.auth(u)
	u.User, u.RawQuery = nil, url.Values{"query": {"SELECT version()"}}.Encode()
	if u.Path == "" {
		u.Path = "/"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	req.SetBasicAuth(who.Username, who.Password)
	t := &http.Transport{TLSClientConfig: s.tls(u), DisableKeepAlives: true}
	res, err := s.signed(t).RoundTrip(req)
	if err != nil {
		return "", fmt.Errorf("ask for the version: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64))
	if err != nil || res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("ask for the version: HTTP status %d", res.StatusCode)
	}
	return strings.TrimSpace(string(body)), nil
}
