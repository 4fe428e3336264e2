//go:build !((linux || darwin) && (amd64 || arm64) && !noengine)

package server

import (
	"context"
	"errors"
	"net"
)

// Serve cannot work in this build: it lacks the engine's bindings (another
// platform, or build tag noengine for a static binary).
func Serve(context.Context, Config) error { return errNotBuilt }

// Inherited cannot work in this build, see Serve.
func Inherited() (net.Listener, error) { return nil, errNotBuilt }

var errNotBuilt = errors.New("this build has no ClickHouse engine")

// Built tells whether this binary has the engine's bindings.
const Built = false
