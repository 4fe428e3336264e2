package binding

// ValidTraceparent checks the form of a traceparent (W3C Trace Context, 3.2.2): version,
// trace id, parent id and flags in lower-case hex; later versions may say more.
func ValidTraceparent(s string) bool {
	if len(s) < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	version, trace, parent := s[:2], s[3:35], s[36:52]
	switch {
	case !lowerHex(version) || !lowerHex(trace) || !lowerHex(parent) || !lowerHex(s[53:55]):
		return false
	case version == "ff", version == "00" && len(s) != 55, len(s) > 55 && s[55] != '-':
		return false
	}
	return trace != "00000000000000000000000000000000" && parent != "0000000000000000"
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
