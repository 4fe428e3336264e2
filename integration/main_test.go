//go:build integration

package integration

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestDev is what only `spillway dev` promises: its screen, and the README's
// commands on the usual ports.
func TestDev(t *testing.T) {
	on(t, "dev")
	s := shared(t, "dev")
	took := s.stack.(*devStack).ready
	t.Logf("ready after %s", took)
	if took > 5*time.Second {
		t.Errorf("ready after %s, want 5 s at most", took)
	}
	t.Run("screen", func(t *testing.T) { testScreen(t, s) })
	s.clickhouseReady(t)
	t.Run("readme", func(t *testing.T) { testReadme(t, s) })
}

// commands are the lines a person is told to type: those that begin with "$ ".
var command = regexp.MustCompile(`(?m)^\s*\$ (.+)$`)

func testScreen(t *testing.T, s *site) {
	screen := s.stack.(*devStack).out.String()
	found := command.FindAllStringSubmatch(screen, -1)
	if len(found) < 3 {
		t.Fatalf("%d commands on the screen, want 3:\n%s", len(found), screen)
	}
	for _, c := range found {
		s.shell(t, c[1])
	}
}

var shBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// testReadme runs every shell block of the README but the make targets, which
// are what runs this.
func testReadme(t *testing.T, s *site) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, block := range shBlock.FindAllStringSubmatch(string(text), -1) {
		if strings.HasPrefix(block[1], "make ") {
			continue
		}
		ran++
		s.shell(t, block[1])
	}
	if ran < 4 {
		t.Errorf("%d blocks of the README were run, want 4 at least", ran)
	}
}
