package connect

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A trace keeps why a client's last connection failed: the client tries again
// by itself until the context ends, and then says only that.
type trace struct {
	mu   sync.Mutex
	last error
}

var (
	_ kgo.HookBrokerConnect = (*trace)(nil)
	_ kgo.HookBrokerE2E     = (*trace)(nil)
)

func (t *trace) note(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var away *turnedAway
	if !errors.As(t.last, &away) { // it says more than what follows from it
		t.last = err
	}
}

func (t *trace) cause() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// OnBrokerConnect is the client's word on a connection, its TLS included.
func (t *trace) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err != nil {
		t.note(err)
	}
}

// OnBrokerE2E is the client's word on a request.
func (t *trace) OnBrokerE2E(meta kgo.BrokerMetadata, key int16, e kgo.BrokerE2E) {
	switch err := e.Err(); {
	case err == nil:
	case key == int16(kmsg.SASLAuthenticate):
		t.note(&turnedAway{err})
	default:
		t.note(fmt.Errorf("%s:%d: %s: %w", meta.Host, meta.Port, kmsg.NameForKey(key), err))
	}
}

// turnedAway is a connection that ended in place of an answer to our
// credentials. Apache Kafka answers; others only close.
type turnedAway struct{ err error }

func (t *turnedAway) Error() string { return "authenticate: " + t.err.Error() }
func (t *turnedAway) Unwrap() error { return t.err }
