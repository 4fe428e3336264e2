package codec

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/big"
	"slices"
	"strconv"
)

// appendDecimal writes a big-endian two's complement number with n.scale
// digits after the point.
func appendDecimal(dst, raw []byte, n *node) ([]byte, *Error) {
	raw = trimSign(raw)
	start := len(dst)
	switch {
	case len(raw) <= 8:
		dst = strconv.AppendInt(dst, smallInt(raw), 10)
	case len(raw) > maxPrecision/2: // 2.4 digits a byte
		return dst, mismatch("decimal has more than %d digits", n.precision)
	default:
		v := new(big.Int).SetBytes(raw)
		if raw[0] >= 0x80 {
			v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(len(raw))*8))
		}
		dst = v.Append(dst, 10)
	}
	digits := start
	if dst[start] == '-' {
		digits++
	}
	if len(dst)-digits > n.precision {
		return dst, mismatch("decimal has more than %d digits", n.precision)
	}
	if n.scale == 0 {
		return dst, nil
	}
	if missing := n.scale + 1 - (len(dst) - digits); missing > 0 { // one digit before the point
		dst = slices.Insert(dst, digits, zeros[:missing]...)
	}
	return slices.Insert(dst, len(dst)-n.scale, '.'), nil
}

var zeros = bytes.Repeat([]byte("0"), maxPrecision+1)

// trimSign drops leading bytes that only repeat the sign.
func trimSign(b []byte) []byte {
	for len(b) > 1 && (b[0] == 0 && b[1] < 0x80 || b[0] == 0xff && b[1] >= 0x80) {
		b = b[1:]
	}
	return b
}

func smallInt(b []byte) int64 {
	v := int64(0)
	if len(b) > 0 && b[0] >= 0x80 {
		v = -1
	}
	for _, c := range b {
		v = v<<8 | int64(c)
	}
	return v
}

// parseDecimal reads a JSON number or the same as a string and returns its
// unscaled value in the fewest bytes of two's complement, appended to dst.
func parseDecimal(dst, s []byte, n *node) ([]byte, bool) {
	if len(s) > 2*maxPrecision || !isNumber(s) {
		return dst, false
	}
	negative := s[0] == '-'
	s = bytes.TrimPrefix(s, []byte("-"))
	exponent := 0
	if i := bytes.IndexAny(s, "eE"); i >= 0 {
		e, err := strconv.Atoi(string(s[i+1:]))
		if err != nil || e > maxPrecision || e < -maxPrecision {
			return dst, false
		}
		s, exponent = s[:i], e
	}
	whole, fraction, _ := bytes.Cut(s, []byte("."))
	digits := append(append(make([]byte, 0, 64), whole...), fraction...)
	for shift := n.scale - len(fraction) + exponent; shift != 0; {
		if shift > 0 {
			digits = append(digits, '0')
			shift--
			continue
		}
		if last := len(digits) - 1; last >= 0 {
			if digits[last] != '0' {
				return dst, false // more digits after the point than scale
			}
			digits = digits[:last]
		}
		shift++
	}
	digits = bytes.TrimLeft(digits, "0")
	if len(digits) > n.precision {
		return dst, false
	}
	return appendUnscaled(dst, digits, negative), true
}

func appendUnscaled(dst, digits []byte, negative bool) []byte {
	if len(digits) <= 18 {
		v := int64(0)
		for _, c := range digits {
			v = v*10 + int64(c-'0')
		}
		if negative {
			v = -v
		}
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], uint64(v))
		return append(dst, trimSign(b[:])...)
	}
	v, _ := new(big.Int).SetString(string(digits), 10)
	size := v.BitLen()/8 + 1
	if negative {
		v.Sub(new(big.Int).Lsh(big.NewInt(1), uint(size)*8), v)
	}
	b := v.FillBytes(make([]byte, size))
	return append(dst, trimSign(b)...)
}

// appendUUID writes a uuid: text is checked and kept as it is, 16 bytes are
// written in lower case.
func appendUUID(dst, raw []byte, n *node) ([]byte, *Error) {
	if n.wire == opString {
		if _, ok := parseUUID(raw); !ok {
			return dst, mismatch("string is no uuid")
		}
		return append(dst, raw...), nil
	}
	for i, from := range [...]int{0, 4, 6, 8, 10, 16} {
		if i == 5 {
			break
		}
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, raw[from:[...]int{4, 6, 8, 10, 16}[i]])
	}
	return dst, nil
}

func parseUUID(s []byte) (id [16]byte, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, false
	}
	at := 0
	for _, from := range [...]int{0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34} {
		high, low := unhex(s[from]), unhex(s[from+1])
		if high < 0 || low < 0 {
			return id, false
		}
		id[at] = byte(high<<4 | low)
		at++
	}
	return id, true
}

// appendDuration writes the non-zero parts of months, days and milliseconds
// as ISO 8601.
func appendDuration(dst, raw []byte) []byte {
	months := binary.LittleEndian.Uint32(raw)
	days := binary.LittleEndian.Uint32(raw[4:])
	millis := binary.LittleEndian.Uint32(raw[8:])
	dst = append(dst, 'P')
	if months > 0 {
		dst = append(strconv.AppendUint(dst, uint64(months), 10), 'M')
	}
	if days > 0 {
		dst = append(strconv.AppendUint(dst, uint64(days), 10), 'D')
	}
	if millis > 0 || months == 0 && days == 0 {
		dst = strconv.AppendUint(append(dst, 'T'), uint64(millis/1000), 10)
		if millis%1000 > 0 {
			dst = appendDigits(append(dst, '.'), int64(millis%1000), 3)
		}
		dst = append(dst, 'S')
	}
	return dst
}

// parseDuration reads P[nY][nM][nW][nD][T[nH][nM][n[.nnn]S]]: each part at
// most once and in this order, at least one, none negative. Years are 12
// months, weeks 7 days, and hours and minutes are milliseconds.
func parseDuration(s []byte) (raw [12]byte, ok bool) {
	if len(s) < 3 || s[0] != 'P' {
		return raw, false
	}
	var sum [3]int64 // months, days, milliseconds
	r := reader{s: s[1:]}
	for _, part := range durationParts {
		if len(r.s) == 0 {
			break
		}
		if part.letter == 'T' {
			r.literal("T")
			r.bad = r.bad || len(r.s) == 0
			continue
		}
		v, fraction := r.amount(part.letter)
		sum[part.into] += v*part.factor + fraction
	}
	if r.bad || len(r.s) > 0 {
		return raw, false
	}
	for i, v := range sum {
		if v > math.MaxUint32 {
			return raw, false
		}
		binary.LittleEndian.PutUint32(raw[i*4:], uint32(v))
	}
	return raw, true
}

// durationParts says what each letter counts, in the order of ISO 8601.
var durationParts = [...]struct {
	letter byte
	into   int // 0 months, 1 days, 2 milliseconds
	factor int64
}{
	{'Y', 0, 12}, {'M', 0, 1}, {'W', 1, 7}, {'D', 1, 1},
	{'T', 0, 0}, {'H', 2, 3600e3}, {'M', 2, 60e3}, {'S', 2, 1000},
}

// amount takes up to 10 digits and their letter from the left; seconds may
// have a fraction, which is returned in thousandths. Another letter is left
// where it is and counts as 0.
func (r *reader) amount(letter byte) (v, fraction int64) {
	ahead := *r
	digits := 0
	for digits < len(r.s) && r.s[digits] >= '0' && r.s[digits] <= '9' {
		digits++
	}
	if digits == 0 || digits > 10 {
		return 0, 0
	}
	v = ahead.number(digits)
	if letter == 'S' && len(ahead.s) > 0 && ahead.s[0] == '.' {
		ahead.s = ahead.s[1:]
		fraction = ahead.fraction(3)
	}
	ahead.literal(string(letter))
	if ahead.bad {
		return 0, 0
	}
	*r = ahead
	return v, fraction
}
