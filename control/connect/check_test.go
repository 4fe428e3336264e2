package connect

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestEachPartHasItsTime: a part that is slow to start takes nothing from the
// next one's time.
func TestEachPartHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		after := func(d time.Duration) func(context.Context) error {
			return func(context.Context) error {
				if time.Since(began) < d {
					return errors.New("is starting")
				}
				return nil
			}
		}
		c := &Connections{cfg: config(Kafka{})}
		parts := []probe{
			{part: "first", address: "--first", try: after(12 * time.Second)},
			{part: "second", address: "--second", try: after(24 * time.Second)},
		}
		if err := c.checkAll(t.Context(), parts); err != nil {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		began = time.Now()
		err := c.checkAll(t.Context(), []probe{{part: "third", address: "--third", try: after(time.Hour)}})
		if took := time.Since(began); err == nil || took < 14*time.Second || took > 16*time.Second {
			t.Errorf("gives up after %s with %v, want 15 s", took, err)
		}
	})
}

// TestNameWhileReloaded asks for our name while certificates are read again;
// the race detector is its judge.
func TestNameWhileReloaded(t *testing.T) {
	ours, key := newAuthority(t, "test CA").sign(t, "ours", time.Now().Add(time.Hour))
	c, err := New(config(Kafka{TLS: true, Files: Files{Cert: ours, Key: key}}))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 100 {
			if err := c.Reload(); err != nil {
				t.Error(err)
			}
		}
	})
	for range 100 {
		if got := c.principal(); got != `the user of our certificate "ours"` {
			t.Fatal(got)
		}
	}
	wg.Wait()
}

// TestRegistryRefusesLater: a registry that refuses us is no reason to be out
// of work for who can do without it; Kafka is.
func TestRegistryRefusesLater(t *testing.T) {
	reg := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	defer reg.Close()
	text := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	for _, spare := range []bool{true, false} {
		cfg := config(Kafka{})
		cfg.Registry.URLs = []string{reg.URL}
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		w := c.Watch(Use{Registry: true, Spare: spare})
		for _, p := range w.probes {
			w.look(t.Context(), p)
		}
		says, silent := w.Ready(), w.Lacking()
		if spare {
			says, silent = silent, says
		}
		expect(t, text(says), "the schema registry: --registry-user/--registry-password", "401")
		expect(t, text(silent))
		w.look(t.Context(), probe{part: kafkaPart, try: func(context.Context) error { return setting("--kafka-user", "is unknown") }})
		if got := text(w.Ready()); !strings.Contains(got, "Kafka: --kafka-user: is unknown") {
			t.Errorf("spare %t: Kafka refuses, ready says %q", spare, got)
		}
	}
}
