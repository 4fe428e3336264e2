package schemas

import (
	"strings"
	"unicode/utf8"
)

// MaxChannel is the longest channel or pattern, in bytes.
const MaxChannel = 256

// ValidChannel reports whether s may be a channel: 1 to 256 bytes of UTF-8
// without control characters and without '*', which patterns use.
func ValidChannel(s string) bool {
	if len(s) == 0 || len(s) > MaxChannel || !utf8.ValidString(s) {
		return false
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f || s[i] == '*' {
			return false
		}
	}
	return true
}

// ValidPattern reports whether s is a channel, "prefix.*" or "*".
func ValidPattern(s string) bool {
	if s == "*" {
		return true
	}
	prefix, ok := strings.CutSuffix(s, ".*")
	if ok {
		s = prefix
	}
	return ValidChannel(s)
}

// Match reports whether channel is one of those the pattern names. "jobs.*"
// names jobs.1 and jobs.1.a, not jobs; "*" names every channel.
func Match(pattern, channel string) bool {
	prefix, ok := strings.CutSuffix(pattern, "*")
	if !ok {
		return pattern == channel
	}
	return strings.HasPrefix(channel, prefix) && (prefix == "" || len(channel) > len(prefix))
}

// Covers reports whether every channel that inner names is named by outer.
func Covers(outer, inner string) bool {
	prefix, ok := strings.CutSuffix(inner, "*")
	if !ok {
		return Match(outer, inner)
	}
	outerPrefix, ok := strings.CutSuffix(outer, "*")
	return ok && strings.HasPrefix(prefix, outerPrefix)
}
