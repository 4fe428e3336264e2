package fanout

import (
	"errors"
	"os"

	"github.com/spillway/spillway/fanout/tail"
	"github.com/spillway/spillway/schemas"
)

// What happens to a client that reads too slowly. Nothing is queued for it: it
// blocks in its own write, with sendBuffer in the kernel and nothing more, and
// its place stays where it is while the tail goes on.
//
//	takes a byte now and then ─▶ writes go on; if the tail has passed its place
//	                             meanwhile: gap and on, or 4202, as it chose
//	takes none for stallTimeout ─▶ 4202

// What a slow client wants when the tail has passed it.
const (
	lagGap    = "gap"    // go on with what the tail still has; the default
	lagLatest = "latest" // go on with what is newest
	lagClose  = "close"  // be closed, 4202
)

func validLag(s string) bool { return s == "" || s == lagGap || s == lagLatest || s == lagClose }

// errSlow ends a connection that asked to be closed rather than told a gap.
var errSlow = errors.New("the tail has passed a subscription with on_lag close")

// lagged is what comes next where the tail has passed a subscription.
func (s *sub) lagged() (*tail.Frame, *note, error) {
	switch s.onLag {
	case lagClose:
		return nil, nil, errSlow
	case lagLatest:
		return nil, s.jump(s.feed.Head(), whyLag), nil
	}
	return nil, s.jump(s.feed.Middle(), whyLag), nil
}

// write writes b whole. A client may be as slow as it likes as long as it
// takes something now and then: one that takes no byte for stallTimeout ends.
func (c *conn) write(b []byte) error {
	for len(b) > 0 {
		if err := c.sock.SetWriteDeadline(c.f.cfg.Now().Add(stallTimeout)); err != nil {
			return err
		}
		if c.cut.Load() { // after the deadline, which cutting off shortens
			return &ending{code: int(schemas.CloseDrain), reason: schemas.Draining, noShake: true}
		}
		c.f.m.writes.Inc()
		n, err := c.sock.Write(b)
		b = b[n:]
		late := errors.Is(err, os.ErrDeadlineExceeded)
		switch {
		case late && c.cut.Load():
			return &ending{code: int(schemas.CloseDrain), reason: schemas.Draining, noShake: true}
		case late && n == 0:
			return &ending{code: int(schemas.CloseSlow), reason: schemas.Slow, noShake: true}
		case err != nil && !late:
			return err
		}
	}
	return nil
}
