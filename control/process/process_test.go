package process

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/spillway/spillway/control/admin"
)

func newProcess(t *testing.T) (*Process, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	return New(ctx, admin.Version{Version: "test"}, Logger(io.Discard, "info", "text")), cancel
}

// TestStopsInOrder stops the last part first, and only when it has ended the
// one before.
func TestStopsInOrder(t *testing.T) {
	p, cancel := newProcess(t)
	var order []string
	for _, name := range []string{"control", "route", "ingest"} {
		p.Run(name, func(ctx context.Context) error {
			<-ctx.Done()
			order = append(order, name) // one after the other, or the race detector says so
			return ctx.Err()
		})
	}
	cancel()
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
	if got := strings.Join(order, " "); got != "ingest route control" {
		t.Errorf("stopped in the order %s", got)
	}
}

func TestPartThatEndsEndsTheProcess(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{"error": {errors.New("out of luck"), "route: out of luck"}, "no error": {nil, "route: ended by itself"}} {
		t.Run(name, func(t *testing.T) {
			p, cancel := newProcess(t)
			defer cancel()
			p.Run("control", func(ctx context.Context) error { <-ctx.Done(); return nil })
			p.Run("route", func(context.Context) error { return c.err })
			if err := p.Wait(); err == nil || err.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestHangup(t *testing.T) {
	p, cancel := newProcess(t)
	read := make(chan string, 2)
	p.OnHangup("keys", func() error { read <- "keys"; return errors.New("no such file") })
	p.OnHangup("certificates", func() error { read <- "certificates"; return nil })
	p.Run("wait", func(ctx context.Context) error { <-ctx.Done(); return nil })
	p.hangup <- syscall.SIGHUP
	for _, want := range []string{"keys", "certificates"} {
		if got := <-read; got != want {
			t.Errorf("read %s, want %s", got, want)
		}
	}
	cancel()
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

func TestAdminAddress(t *testing.T) {
	p, cancel := newProcess(t)
	if err := p.ServeAdmin("0.0.0.0:0", "--admin-listen", nil); err == nil || !strings.Contains(err.Error(), "--auth-keys") {
		t.Errorf("without keys on all addresses: %v", err)
	}
	if err := p.ServeAdmin("127.0.0.1:0", "--admin-listen", nil); err != nil {
		t.Errorf("without keys on loopback: %v", err)
	}
	l, err := Listen("0.0.0.0:0", "--x")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Listen(l.Addr().String(), "--x"); err == nil || !strings.Contains(err.Error(), "--x") {
		t.Errorf("a taken port: %v", err)
	}
	if Loopback(l) {
		t.Error("0.0.0.0 is not loopback")
	}
	cancel()
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
	http.DefaultClient.CloseIdleConnections()
}
