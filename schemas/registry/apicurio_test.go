package registry

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/spillway/spillway/schemas/compat"
)

// asApicurio makes the registry differ as Apicurio's Confluent API does where
// the client meets it: no GET /schemas but an empty 404, and NONE, which is no
// rule, cannot be set on a subject that is not there. The list of all
// differences is in package integration/conformance, which asks a real one.
func (w *world) asApicurio() {
	w.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		subject, config := strings.CutPrefix(r.URL.Path, "/config/")
		there := w.SubjectExists(subject)
		switch {
		case r.URL.Path == "/schemas":
			rw.WriteHeader(404)
		case config && r.Method == http.MethodPut && !there && subject == "free":
			says(404, `{"message":"No artifact with ID 'free' in group 'null' was found.","error_code":40401}`)(rw, r)
		default:
			return false
		}
		return true
	})
}

// TestAsApicurio: all schemas are found subject by subject, and each level can
// be set.
func TestAsApicurio(t *testing.T) {
	w := newWorld(t)
	w.asApicurio()
	ids := map[string]int{}
	for i := range 3 * maxAskers {
		name := fmt.Sprintf("S%d", i)
		ids["demo."+name] = w.register(t, "demo."+name, strings.Replace(message, "Message", name, 1))
	}
	c := w.client(t)
	if err := c.Preload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, id := range ids {
		if s, _ := c.ByID(id); s == nil || s.Name != name || s.Subject != name || s.Version != 1 {
			t.Errorf("%s: got %+v", name, s)
		}
	}
	if err := c.Ready(); err != nil {
		t.Errorf("a path that is not there is no outage: %v", err)
	}
	for _, text := range []string{message, strings.Replace(message2, `,"default":0`, "", 1)} {
		if _, err := c.Register(t.Context(), "free", text, compat.None); err != nil {
			t.Error(err)
		}
	}
	if level, _, err := c.Level(t.Context(), "free"); err != nil || level != compat.None {
		t.Errorf("level is %s, %v", level, err)
	}
}

// TestSpelling: the same schema in other white space is the version there is,
// also where the registry would take it for another.
func TestSpelling(t *testing.T) {
	w := newWorld(t)
	c := w.client(t)
	first, err := c.Register(t.Context(), "", message, "")
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Register(t.Context(), "", strings.ReplaceAll(message, ",", " ,\n"), "")
	if err != nil || again.ID != first.ID || again.Version != 1 {
		t.Errorf("got %+v, %v", again, err)
	}
}

// TestDeletedMeanwhile: a subject that goes while the list is read is none.
func TestDeletedMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.asApicurio()
	id := w.register(t, "demo.Message", message)
	w.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/subjects" {
			says(200, `["gone","demo.Message"]`)(rw, r)
		}
		return r.URL.Path == "/subjects"
	})
	c := w.client(t)
	if err := c.Preload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, state := c.ByID(id); state.Answer != Known {
		t.Errorf("got %v", state)
	}
	list, err := c.List(t.Context())
	if err != nil || len(list) != 1 {
		t.Errorf("got %v, %v", list, err)
	}
}
