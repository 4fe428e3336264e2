package fanout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/spillway/spillway/schemas"
)

// TestForeignTenantsAreNeverSeen asks, with a token of acme, for 50 foreign
// channels, patterns and cursors, while globex and noisy publish on channels
// of the same names and, for some, the same partition. Not one byte of theirs
// may come.
func TestForeignTenantsAreNeverSeen(t *testing.T) {
	l := newTestLog(t)
	n := startNode(t, l)
	secret := func(i int) *entry {
		return &entry{tenant: []string{"globex", "noisy"}[i%2], channel: fmt.Sprintf("shared.%d", i%5), id: fmt.Sprint("SECRET", i), data: `"SECRET"`}
	}
	var foreign []*entry
	for i := range 20 {
		e := secret(i)
		l.write(e)
		foreign = append(foreign, e)
	}
	tok := token("acme", "shared.*", "mine")
	refused, silent := 0, 0
	for i := range 50 {
		channel := []string{"shared.*", "*", "globex.shared.1", "shared.1", "../globex", "globex:shared.*", "mine", "sha*", "shared.*.*", "globex"}[i%10]
		from := []string{"", "begin", `{"last":100}`, `{"ts":0}`, foreign[i%len(foreign)].cursor.String()}[i%5]
		c := n.dial()
		c.send(schemas.ClientFrame{T: "auth", Tok: tok, Subs: []schemas.SubRequest{ask(channel, from)}})
		more := secret(100 + i)
		l.write(more)
		own := &entry{tenant: "acme", channel: "shared.1", id: fmt.Sprint("own", i)}
		l.write(own)
		var seen bytes.Buffer
		subscribed := false
		for {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			_, b, err := c.ws.Read(ctx)
			cancel()
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) && websocket.CloseStatus(err) < 0 {
					t.Fatal(err)
				}
				break
			}
			seen.Write(b)
			subscribed = subscribed || bytes.Contains(b, []byte(`"subs":[`))
			if bytes.Contains(b, []byte(own.id)) {
				break // what came before it in any log has been read
			}
		}
		if subscribed {
			silent++
		} else {
			refused++
		}
		for _, word := range []string{"SECRET", `"globex"`, `"noisy"`, `tenantid":"globex`} {
			if bytes.Contains(seen.Bytes(), []byte(word)) && channel != "globex" {
				t.Fatalf("%q from %s: saw %q in %s", channel, from, word, seen.Bytes())
			}
		}
	}
	if refused != 35 || silent != 15 {
		t.Errorf("%d refused, %d subscribed without a foreign byte; want 35 and 15", refused, silent)
	}
}
