package registry

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spillway/spillway/schemas/compat"
)

// TestReal: what the client promises holds on the registry whose address
// SPILLWAY_TEST_REGISTRY_URL gives. make integration runs it on each of its
// registries.
func TestReal(t *testing.T) {
	address := os.Getenv("SPILLWAY_TEST_REGISTRY_URL")
	if address == "" {
		t.Skip("no SPILLWAY_TEST_REGISTRY_URL")
	}
	run := fmt.Sprintf("real%d", time.Now().UnixNano())
	text := func(name, fields string) string {
		return fmt.Sprintf(`{"type":"record","name":%q,"namespace":%q,"fields":[{"name":"text","type":"string"}%s]}`, name, run, fields)
	}
	c, err := New(Config{URLs: []string{address}, Topic: run, LatestTTL: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// Subjects after the record, after topic and record, after the topic.
	var ids []int
	for i, subject := range []string{run + ".A", run + "-" + run + ".B", run + "-value"} {
		name := []string{"A", "B", "C"}[i]
		s, err := c.Register(t.Context(), subject, text(name, ""), "")
		if err != nil || s.Subject != subject || s.Version != 1 || s.Codec == nil {
			t.Fatalf("%s: %+v, %v", subject, s, err)
		}
		ids = append(ids, s.ID)
		if l, err := c.Latest(t.Context(), run+"."+name); err != nil || l.ID != s.ID {
			t.Errorf("latest of %s: %+v, %v", name, l, err)
		}
		if level, own, err := c.Level(t.Context(), subject); err != nil || level != compat.FullTransitive || !own {
			t.Errorf("level of %s: %s %v %v", subject, level, own, err)
		}
	}
	freshClient(t, address, run, ids)
	levels(t, c, run, text)
	_, err = c.Resolve(t.Context(), maxID)
	wantIs(t, err, ErrAbsent)
	_, err = c.Latest(t.Context(), run+".Nobody")
	wantIs(t, err, ErrAbsent)
	if found, err := c.Check(t.Context(), run+".Nobody", text("Nobody", ""), ""); err != nil || len(found) > 0 {
		t.Errorf("check of a new subject: %v, %v", found, err)
	}
	if err := c.Ready(); err != nil {
		t.Errorf("it was up all the time: %v", err)
	}
	wrong, err := New(Config{URLs: []string{address + "/wrong"}, HTTP: &http.Client{Timeout: 10 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	defer wrong.Close()
	if _, err := wrong.Resolve(t.Context(), ids[0]); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrAbsent) || wrong.Ready() == nil {
		t.Errorf("a wrong path: %v", err)
	}
}

// freshClient: a client that has just started learns everything at once, or id
// by id.
func freshClient(t *testing.T, address, topic string, ids []int) {
	for _, preload := range []bool{true, false} {
		c, err := New(Config{URLs: []string{address}, Topic: topic})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if preload {
			if err := c.Preload(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				if s, state := c.ByID(id); state.Answer != Known || s.Codec == nil || s.Subject == "" {
					t.Errorf("preloaded %d: %+v %v", id, s, state)
				}
			}
			continue
		}
		for _, id := range ids {
			if s, err := c.Resolve(t.Context(), id); err != nil || s.Codec == nil {
				t.Errorf("id %d: %+v, %v", id, s, err)
			}
		}
	}
}

// levels: compatibility is held by the client and by the registry itself.
func levels(t *testing.T, c *Client, run string, text func(name, fields string) string) {
	required := text("A", `,{"name":"user","type":"string"}`)
	optional := text("A", `,{"name":"n","type":["null","int"],"default":null}`)
	subject := run + ".A"
	var bad *IncompatibleError
	if _, err := c.Register(t.Context(), subject, required, ""); !errors.As(err, &bad) || bad.Level != compat.FullTransitive {
		t.Errorf("a required field: %v", err)
	}
	if _, err := c.create(t.Context(), subject, required); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "409") {
		t.Errorf("a required field, unchecked: %v", err)
	}
	if err := c.Ready(); err != nil {
		t.Errorf("a refusal is not an outage: %v", err)
	}
	s, err := c.Register(t.Context(), subject, optional, "")
	if err != nil || s.Version != 2 {
		t.Fatalf("an optional field: %+v, %v", s, err)
	}
	for _, spelling := range []string{optional, strings.ReplaceAll(optional, ",", " ,\n")} {
		if again, err := c.Register(t.Context(), subject, spelling, ""); err != nil || again.ID != s.ID || again.Version != 2 {
			t.Errorf("the same again: %+v, %v", again, err)
		}
	}
	list, err := c.List(t.Context())
	newest := 0
	for _, l := range list {
		if l.Subject == subject {
			newest = l.Version
		}
	}
	if err != nil || newest != 2 {
		t.Errorf("the list says version %d, %v", newest, err)
	}
	free := run + ".Free"
	if _, err := c.Register(t.Context(), free, text("A", ""), compat.None); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Register(t.Context(), free, required, ""); err != nil {
		t.Errorf("a required field at level NONE: %v", err)
	}
}
