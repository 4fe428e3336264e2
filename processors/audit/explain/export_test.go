package explain

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/spillway/spillway/schemas"
)

// patient is a response whose deadline is noted.
type patient struct {
	*httptest.ResponseRecorder
	until []time.Time
}

func (p *patient) SetWriteDeadline(t time.Time) error {
	p.until = append(p.until, t)
	return nil
}

// TestSlowReader: each line gets a minute of its own, so an export may take
// long, but a reader that takes nothing does not keep its slot.
func TestSlowReader(t *testing.T) {
	now := time.UnixMilli(1_790_000_000_000)
	p := &patient{ResponseRecorder: httptest.NewRecorder()}
	l := &lines{w: p, api: &api{cfg: Config{Now: func() time.Time { now = now.Add(40 * time.Second); return now }}}, span: span{tenant: "acme"}}
	r := row{key: key{Tenant: "acme", Accepted: now, Topic: schemas.TopicID{1}.String()}, ID: "e", Type: "t", Channel: "c", Payload: "x"}
	for i := range 3 {
		if err := l.write(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
		if len(p.until) != i+1 || !p.until[i].Equal(now.Add(WriteTimeout)) {
			t.Fatalf("line %d at %v may take until %v", i, now, p.until)
		}
	}
}
