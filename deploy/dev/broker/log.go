package broker

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/twmb/franz-go/pkg/kfake"
)

// logAdapter carries kfake's lines to slog and remembers the last error, which
// is the only way to learn that kfake could not persist.
type logAdapter struct {
	log *slog.Logger

	mu   sync.Mutex
	last error
}

// Logf implements kfake.Logger. kfake's Info is a line a request: debug here.
func (a *logAdapter) Logf(level kfake.LogLevel, format string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case kfake.LogLevelError:
		to = slog.LevelError
		a.mu.Lock()
		a.last = fmt.Errorf("broker: "+format, args...)
		a.mu.Unlock()
	case kfake.LogLevelWarn:
		to = slog.LevelWarn
	}
	if a.log.Enabled(context.Background(), to) {
		a.log.Log(context.Background(), to, fmt.Sprintf("broker: "+format, args...)) //nolint:sloglint // the message is kfake's own
	}
}

// failure is the last error that kfake logged, or nil.
func (a *logAdapter) failure() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}
