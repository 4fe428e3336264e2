//go:build unix

package engine

import (
	"os"
	"os/exec"
	"syscall"
)

// ownGroup keeps the terminal's signals from the child.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// terminate asks a process to stop; one that is gone does not mind.
func terminate(p *os.Process) { _ = p.Signal(syscall.SIGTERM) }

// tryLock takes the exclusive lock of an open file unless another has it. The
// lock goes with the file, also when the process is killed.
func tryLock(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == syscall.EWOULDBLOCK {
		return false, nil
	}
	return err == nil, err
}
