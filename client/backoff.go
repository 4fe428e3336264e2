package client

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/coder/websocket"

	"github.com/spillway/spillway/schemas"
)

// ErrClosed is the error of a Conn that Close ended.
var ErrClosed = errors.New("client: closed")

// A Refused error ends a Conn: trying again would not help.
type Refused struct {
	Code    schemas.Reason
	Message string
}

func (r *Refused) Error() string { return fmt.Sprintf("client: refused: %s: %s", r.Code, r.Message) }

// busy is a node's wish to be left alone for a while.
type busy struct {
	after time.Duration
	err   error
}

func (b *busy) Error() string { return b.err.Error() }
func (b *busy) Unwrap() error { return b.err }

const (
	firstWait = 100 * time.Millisecond
	maxWait   = 5 * time.Second
)

// next decides what follows on the break of a connection: how long to wait
// before the n-th try in a row (0 is the first), or final if there is none.
func next(err error, n int) (wait time.Duration, final error) {
	var r *Refused
	if errors.As(err, &r) {
		return 0, r
	}
	var b *busy
	if errors.As(err, &b) {
		return jitter(max(b.after, firstWait)), nil
	}
	code := websocket.CloseStatus(err)
	switch {
	case code >= 4000 && code < 4100:
		return 0, &Refused{Code: closeReason(code), Message: err.Error()}
	case code >= 4100 && code < 4200:
		return jitter(max(time.Second, backoff(n))), nil
	case code >= 4200 && code < 4300 && n == 0:
		return jitter(firstWait), nil
	}
	return jitter(backoff(n)), nil
}

func closeReason(code websocket.StatusCode) schemas.Reason {
	if r := schemas.CloseCode(code).Reason(); r != "" {
		return r
	}
	return schemas.Internal
}

func backoff(n int) time.Duration { return min(firstWait<<min(n, 16), maxWait) }

// jitter is between half and all of d, so that clients that broke together do
// not come back together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
