package client

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spillway/spillway/schemas"
)

// ParseFrom reads where a person wants to begin: live, begin, last:N, a time as
// in RFC 3339, or a cursor.
func ParseFrom(s string) (From, error) {
	switch s {
	case "live":
		return Live, nil
	case "begin":
		return Begin, nil
	}
	if n, ok := strings.CutPrefix(s, "last:"); ok {
		count, err := strconv.Atoi(n)
		if err != nil || count < 1 {
			return "", fmt.Errorf("%s: want last:N with N at least 1", s)
		}
		return Last(count), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return Since(t), nil
	}
	if _, err := schemas.ParseCursor(s); err != nil {
		return "", fmt.Errorf("%s: want live, begin, last:N, a time as in RFC 3339 or a cursor", s)
	}
	return From(s), nil
}
