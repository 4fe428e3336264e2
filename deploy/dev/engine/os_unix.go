//go:build unix

package engine

import (
	"net"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// share is a second descriptor of l, to pass to a child. It is not l.File(),
// which turns the socket, and with it l itself, to blocking mode as soon as
// somebody looks at the descriptor: Accept would no longer wake for a pause.
func share(l *net.TCPListener) (*os.File, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var dupErr error
	if err := raw.Control(func(s uintptr) { fd, dupErr = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, os.NewSyscallError("dup", dupErr)
	}
	return os.NewFile(uintptr(fd), "listener"), nil
}

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
