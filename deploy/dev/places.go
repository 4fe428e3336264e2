package dev

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Places are the addresses of a running `spillway dev`, kept in its folder for
// a person's commands.
type Places struct {
	Kafka      string `json:"kafka"`
	Registry   string `json:"registry"`
	ClickHouse string `json:"clickhouse"`
	Ingest     string `json:"ingest"`
	Fanout     string `json:"fanout"`
	Audit      string `json:"audit"`
	Control    string `json:"control"`
	Admin      string `json:"admin"`
}

const placesFile = "dev.json"

// PlacesOf are the places at ports; clickhouse is the address of a server to
// use instead of the embedded engine, or "".
func PlacesOf(p Ports, clickhouse string) Places {
	web := func(port int) string { return "http://" + Address(port) }
	return Places{
		Kafka: Address(p.Kafka), Registry: web(p.Registry), ClickHouse: cmp.Or(clickhouse, web(p.ClickHouse)), Ingest: web(p.Ingest),
		Fanout: "ws://" + Address(p.Fanout), Audit: web(p.Audit), Control: web(p.Control), Admin: web(p.Admin),
	}
}

// ReadPlaces reads the places of the dev that has its data in dir; without one
// they are the usual ones.
func ReadPlaces(dir string) (Places, error) {
	p := PlacesOf(DefaultPorts(), "")
	text, err := os.ReadFile(filepath.Join(dir, placesFile))
	if errors.Is(err, os.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	return p, err
}

// Write keeps the places in dir.
func (p Places) Write(dir string) error {
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, placesFile), text, 0o600)
}

// Rows are the places as a Screen shows them.
func (p Places) Rows() [][2]string {
	return [][2]string{
		{"Kafka", p.Kafka}, {"registry", p.Registry}, {"ingest", p.Ingest + "/v1/events"}, {"fan-out", p.Fanout + "/v1/ws"},
		{"audit", p.Audit}, {"control", p.Control}, {"ClickHouse", p.ClickHouse}, {"admin", p.Admin + "/metrics"},
	}
}

// HostPort is an address without its scheme.
func HostPort(address string) string {
	_, rest, _ := strings.Cut(address, "://")
	return rest
}

// Tell says how far the embedded ClickHouse is, every other second at most,
// until ctx ends. Without one it says nothing.
func (s *Stack) Tell(ctx context.Context, w io.Writer) {
	if s.Engine == nil {
		return
	}
	ticker := time.NewTicker(2 * time.Second)
	defer ticker.Stop()
	for last := ""; ; {
		state, _ := s.Engine.State()
		if text := state.String(); text != last {
			fmt.Fprintln(w, "ClickHouse:", text)
			last = text
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
