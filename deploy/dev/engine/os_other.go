//go:build !unix

package engine

import (
	"net"
	"os"
	"os/exec"
)

// There is no engine for these systems: Fetch refuses before any of this runs.

func share(l *net.TCPListener) (*os.File, error) { return l.File() }

func ownGroup(*exec.Cmd) {}

func terminate(p *os.Process) { _ = p.Kill() }

func tryLock(*os.File) (bool, error) { return true, nil }
