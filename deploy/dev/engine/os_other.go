//go:build !unix

package engine

import (
	"os"
	"os/exec"
)

// There is no engine for these systems: Fetch refuses before any of this runs.

func ownGroup(*exec.Cmd) {}

func terminate(p *os.Process) { _ = p.Kill() }

func tryLock(*os.File) (bool, error) { return true, nil }
