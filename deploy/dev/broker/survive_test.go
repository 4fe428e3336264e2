package broker

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// say sends one request of any body and waits for an answer, the end of the
// connection, or a short while: some requests are answered late or never.
func say(t *testing.T, addr string, key, version int16, flexible bool, body []byte) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatalf("key %d version %d: the broker is gone: %v", key, version, err)
	}
	defer func() { _ = c.Close() }()
	msg := binary.BigEndian.AppendUint16(make([]byte, 4, 64), uint16(key))
	msg = binary.BigEndian.AppendUint16(msg, uint16(version))
	msg = append(msg, 0, 0, 0, 1, 0xff, 0xff) // correlation id, no client id
	if flexible {
		msg = append(msg, 0)
	}
	msg = append(msg, body...)
	binary.BigEndian.PutUint32(msg, uint32(len(msg)-4))
	if _, err := c.Write(msg); err != nil {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(3 * time.Millisecond))
	_, _ = c.Read(make([]byte, 64)) // whatever it says
}

// TestAnyRequestIsSurvived: the broker lives in the process of all roles, so
// no request may end it: each key in each version, as it is by default, with
// noise for a body, and in versions that do not exist.
func TestAnyRequestIsSurvived(t *testing.T) {
	b := start(t, Config{})
	cl := client(t, b)
	createTopic(t, cl, "events", 1, "message.timestamp.type", "LogAppendTime")
	noise := rand.New(rand.NewPCG(1, 2))
	for key := int16(-1); key <= kmsg.MaxKey+1; key++ {
		req := kmsg.RequestForKey(key)
		if req == nil {
			say(t, b.Addr(), key, 0, false, nil)
			continue
		}
		for version := int16(-1); version <= req.MaxVersion()+1; version++ {
			req := kmsg.RequestForKey(key)
			req.SetVersion(version)
			whole := req.AppendTo(nil)
			say(t, b.Addr(), key, version, req.IsFlexible(), whole)
			garbage := make([]byte, noise.IntN(64))
			for i := range garbage {
				a, b := noise.Uint32(), noise.Uint32()
				garbage[i] = byte(a & b)
			}
			say(t, b.Addr(), key, version, req.IsFlexible(), garbage)
		}
		say(t, b.Addr(), key, 999, true, nil)
	}
	again := client(t, b)
	createTopic(t, again, "after", 1)
}
