package dev

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// A Screen is what `spillway dev` shows a person once it is ready.
type Screen struct {
	Version    string
	Data       string
	Places     [][2]string // name and address of each part, in the order of the pipeline
	ClickHouse string      // state of the engine in a few words
	Token      string
	Commands   []string // lines to type, as they are
	Took       time.Duration
}

// Write prints the screen.
func (s Screen) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\nSpillway %s, data in %s\n\n", s.Version, s.Data)
	for _, p := range s.Places {
		fmt.Fprintf(&b, "  %-12s %s\n", p[0], p[1])
	}
	fmt.Fprintf(&b, "  %-12s %s\n\n", "", s.ClickHouse)
	fmt.Fprintf(&b, "A token of acme, good for a day:\n\n  %s\n\nTry, in a second terminal:\n\n", s.Token)
	for _, c := range s.Commands {
		fmt.Fprintf(&b, "  $ %s\n", c)
	}
	fmt.Fprintf(&b, "\nready in %.1f s; Ctrl-C stops everything in order\n", s.Took.Seconds())
	_, err := io.WriteString(w, b.String())
	return err
}
