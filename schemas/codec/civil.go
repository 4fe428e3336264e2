package codec

import "math"

// Dates and times of day, without package time: one value costs some ten
// nanoseconds, and every input that is not exactly of the form is refused.

const (
	secondsPerDay = 86400
	firstDay      = -719528 // 0000-01-01, the first RFC 3339 can write
	lastDay       = 2932896 // 9999-12-31
)

func appendDate(dst []byte, days int64) ([]byte, *Error) {
	if days < firstDay || days > lastDay {
		return dst, mismatch("date is outside of the years 0000 to 9999")
	}
	// Days of a calendar that begins on 1 March 0000, whose leap days are last
	// in their year (H. Hinnant, "chrono-compatible low-level date algorithms").
	days += 719468
	era := days / 146097
	if days < 0 {
		era = -1
	}
	dayOfEra := days - era*146097
	yearOfEra := (dayOfEra - dayOfEra/1460 + dayOfEra/36524 - dayOfEra/146096) / 365
	dayOfYear := dayOfEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100)
	shifted := (5*dayOfYear + 2) / 153
	day := dayOfYear - (153*shifted+2)/5 + 1
	month := shifted + 3
	year := yearOfEra + era*400
	if month > 12 {
		month -= 12
		year++
	}
	dst = append(appendDigits(dst, year, 4), '-')
	dst = append(appendDigits(dst, month, 2), '-')
	return appendDigits(dst, day, 2), nil
}

func appendTimeOfDay(dst []byte, v int64, n *node) ([]byte, *Error) {
	if v < 0 || v >= secondsPerDay*n.unit {
		return dst, mismatch("time of day is outside of 00:00 to 24:00")
	}
	return appendClock(dst, v/n.unit, v%n.unit, n.digits), nil
}

func appendTimestamp(dst []byte, v int64, n *node) ([]byte, *Error) {
	seconds := floorDiv(v, n.unit)
	days := floorDiv(seconds, secondsPerDay)
	dst, err := appendDate(dst, days)
	if err != nil {
		return dst, mismatch("timestamp is outside of the years 0000 to 9999")
	}
	dst = appendClock(append(dst, 'T'), seconds-days*secondsPerDay, v-seconds*n.unit, n.digits)
	if n.op == opTimestamp {
		dst = append(dst, 'Z')
	}
	return dst, nil
}

func appendClock(dst []byte, seconds, fraction int64, digits int) []byte {
	dst = append(appendDigits(dst, seconds/3600, 2), ':')
	dst = append(appendDigits(dst, seconds/60%60, 2), ':')
	dst = append(appendDigits(dst, seconds%60, 2), '.')
	return appendDigits(dst, fraction, digits)
}

func appendDigits(dst []byte, v int64, digits int) []byte {
	dst = append(dst, "000000000"[:digits]...)
	for i := len(dst) - 1; v > 0; i-- {
		dst[i] = byte('0' + v%10)
		v /= 10
	}
	return dst
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// A reader takes a text apart from the left; bad stays set once something did
// not fit.
type reader struct {
	s   []byte
	bad bool
}

func (r *reader) number(digits int) int64 {
	if len(r.s) < digits {
		r.bad = true
		return 0
	}
	v := int64(0)
	for _, c := range r.s[:digits] {
		if c < '0' || c > '9' {
			r.bad = true
			return 0
		}
		v = v*10 + int64(c-'0')
	}
	r.s = r.s[digits:]
	return v
}

func (r *reader) literal(any string) byte {
	if len(r.s) > 0 {
		for i := range len(any) {
			if r.s[0] == any[i] {
				r.s = r.s[1:]
				return any[i]
			}
		}
	}
	r.bad = true
	return 0
}

// date reads YYYY-MM-DD as days since 1970-01-01.
func (r *reader) date() int64 {
	year := r.number(4)
	r.literal("-")
	month := r.number(2)
	r.literal("-")
	day := r.number(2)
	if r.bad || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		r.bad = true
		return 0
	}
	if month <= 2 {
		year--
		month += 12
	}
	era := floorDiv(year, 400)
	yearOfEra := year - era*400
	dayOfYear := (153*(month-3)+2)/5 + day - 1
	return era*146097 + yearOfEra*365 + yearOfEra/4 - yearOfEra/100 + dayOfYear - 719468
}

func daysIn(year, month int64) int64 {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// clock reads HH:MM:SS with an optional fraction of at most digits digits;
// more are read only if they are zeros, for nothing is rounded silently.
func (r *reader) clock(digits int) (seconds, fraction int64) {
	hour := r.number(2)
	r.literal(":")
	minute := r.number(2)
	r.literal(":")
	second := r.number(2)
	if hour > 23 || minute > 59 || second > 59 {
		r.bad = true
	}
	if len(r.s) > 0 && r.s[0] == '.' {
		r.s = r.s[1:]
		fraction = r.fraction(digits)
	}
	return hour*3600 + minute*60 + second, fraction
}

func (r *reader) fraction(digits int) int64 {
	v, seen := int64(0), 0
	for ; len(r.s) > 0 && r.s[0] >= '0' && r.s[0] <= '9'; seen++ {
		c := int64(r.s[0] - '0')
		r.s = r.s[1:]
		if seen < digits {
			v = v*10 + c
		} else if c != 0 {
			r.bad = true
		}
	}
	if seen == 0 {
		r.bad = true
	}
	for ; seen < digits; seen++ {
		v *= 10
	}
	return v
}

// zone reads Z or ±HH:MM as seconds east of UTC.
func (r *reader) zone() int64 {
	sign := r.literal("Zz+-")
	if r.bad || sign == 'Z' || sign == 'z' {
		return 0
	}
	hours := r.number(2)
	r.literal(":")
	minutes := r.number(2)
	if hours > 23 || minutes > 59 {
		r.bad = true
	}
	if sign == '-' {
		return -(hours*3600 + minutes*60)
	}
	return hours*3600 + minutes*60
}

func parseDate(s []byte) (int64, bool) {
	r := reader{s: s}
	days := r.date()
	return days, !r.bad && len(r.s) == 0
}

func parseTimeOfDay(s []byte, n *node) (int64, bool) {
	r := reader{s: s}
	seconds, fraction := r.clock(n.digits)
	return seconds*n.unit + fraction, !r.bad && len(r.s) == 0
}

// parseTimestamp reads RFC 3339, without the zone for a local timestamp. A
// date that the offset moves out of the years 0000 to 9999 is refused, for it
// could not be written again.
func parseTimestamp(s []byte, n *node) (int64, bool) {
	r := reader{s: s}
	days := r.date()
	r.literal("Tt")
	seconds, fraction := r.clock(n.digits)
	if n.op == opTimestamp {
		seconds -= r.zone()
	}
	seconds += days * secondsPerDay
	if r.bad || len(r.s) > 0 || seconds < firstDay*secondsPerDay || seconds >= (lastDay+1)*secondsPerDay {
		return 0, false
	}
	if seconds < 0 && fraction > 0 { // so that the product is the nearer one to 0
		seconds++
		fraction -= n.unit
	}
	if seconds > math.MaxInt64/n.unit || seconds < math.MinInt64/n.unit {
		return 0, false
	}
	v := seconds * n.unit
	if fraction > 0 && v > math.MaxInt64-fraction || fraction < 0 && v < math.MinInt64-fraction {
		return 0, false
	}
	return v + fraction, true
}
