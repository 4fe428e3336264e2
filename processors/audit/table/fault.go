package table

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// A Fault is why ClickHouse did not do what it was asked: one word for metrics,
// one line for people.
type Fault struct {
	Reason Reason
	cause  error
}

func (f *Fault) Error() string {
	return string(f.Reason) + ": " + reasons[f.Reason] + " (" + oneLine(f.cause) + ")"
}

func (f *Fault) Unwrap() error { return f.cause }

// A Reason is a word for what ails ClickHouse, a metric label.
type Reason string

// The reasons. Those of events are in schemas; these say nothing about one.
const (
	Unreachable     Reason = "unreachable"
	Cut             Reason = "cut"
	Timeout         Reason = "timeout"
	TLSRefused      Reason = "tls"
	AuthFailed      Reason = "auth_failed"
	NotAllowed      Reason = "not_allowed"
	ReadOnly        Reason = "read_only"
	DiskFull        Reason = "disk_full"
	MemoryLimit     Reason = "memory_limit"
	TooManyParts    Reason = "too_many_parts"
	UnknownDatabase Reason = "unknown_database"
	UnknownTable    Reason = "unknown_table"
	Replicas        Reason = "replicas"
	Busy            Reason = "busy"
	TooOld          Reason = "too_old"
	NotReady        Reason = "not_ready"
	NotClickHouse   Reason = "not_clickhouse"
	OtherBuild      Reason = "other_build"
	Other           Reason = "other"
)

// reasons say what each means and what to do.
var reasons = map[Reason]string{
	Unreachable:     "nothing answers at --clickhouse-url",
	Cut:             "the connection ended before the answer",
	Timeout:         "no answer in time",
	TLSRefused:      "no TLS connection; see --clickhouse-url, -ca, -cert and -key",
	AuthFailed:      "ClickHouse does not let us in; see --clickhouse-user and --clickhouse-password",
	NotAllowed:      "--clickhouse-user lacks a grant",
	ReadOnly:        "the user, the table or the server is read-only; see --clickhouse-user",
	DiskFull:        "ClickHouse has no disk space left",
	MemoryLimit:     "ClickHouse is over its memory limit",
	TooManyParts:    "ClickHouse cannot merge as fast as parts come",
	UnknownDatabase: "the database is missing; run spillway setup",
	UnknownTable:    "a table is missing; run spillway setup",
	Replicas:        "replicas or Keeper are not there",
	Busy:            "ClickHouse has too many queries at once",
	TooOld:          "the server is too old",
	NotReady:        "the server is starting or overloaded",
	NotClickHouse:   "something else than ClickHouse answers at --clickhouse-url",
	OtherBuild:      "the tables belong to another build of Spillway",
	Other:           "ClickHouse refused",
}

// Reasons are all of them, in order.
func Reasons() []Reason { return slices.Sorted(maps.Keys(reasons)) }

// byCode are the reasons of ClickHouse's error codes (ErrorCodes.cpp).
var byCode = map[int32]Reason{
	60: UnknownTable, 81: UnknownDatabase,
	164: ReadOnly, 242: ReadOnly, 711: ReadOnly,
	243: DiskFull, 75: DiskFull, 241: MemoryLimit, 173: MemoryLimit, 252: TooManyParts,
	192: AuthFailed, 193: AuthFailed, 194: AuthFailed, 195: AuthFailed, 516: AuthFailed, 497: NotAllowed,
	202: Busy, 159: Timeout, 209: Timeout, 210: Cut,
	285: Replicas, 319: Replicas, 999: Replicas,
}

// Diagnose says what an error of this package or its connections means; nil if
// err is.
func Diagnose(err error) *Fault {
	if err == nil {
		return nil
	}
	var known *Fault
	if errors.As(err, &known) {
		return known
	}
	return &Fault{reasonOf(err), err}
}

// oldCode finds the code in an exception as servers before 20 write it.
var oldCode = regexp.MustCompile(`Code: (\d+), e\.displayText`)

func reasonOf(err error) Reason {
	var said *clickhouse.Exception
	var status *clickhouse.HTTPError
	var page pageError
	switch {
	case errors.As(err, &said):
		if r, ok := byCode[said.Code]; ok {
			return r
		}
		return Other
	case errors.As(err, &page):
		return NotClickHouse
	case errors.As(err, &status):
		if code := oldCode.FindStringSubmatch(status.Error()); code != nil {
			n, _ := strconv.ParseInt(code[1], 10, 32)
			if r, ok := byCode[int32(n)]; ok {
				return r
			}
			return Other
		}
		if status.StatusCode == http.StatusServiceUnavailable || status.StatusCode == http.StatusTooManyRequests {
			return NotReady
		}
		return NotClickHouse
	}
	return ofNetwork(err)
}

func ofNetwork(err error) Reason {
	var (
		op  *net.OpError
		dns *net.DNSError
	)
	switch {
	case isTLS(err):
		return TLSRefused
	case errors.As(err, &dns), errors.As(err, &op) && op.Op == "dial":
		return Unreachable
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return Timeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.As(err, &op):
		return Cut
	}
	return Other
}

// isTLS reports whether one side did not take the other's certificate or
// handshake. Who checks certificates in a function of its own returns the bare
// errors of x509; what the other side says in an alert has no public type.
func isTLS(err error) bool {
	var (
		record  tls.RecordHeaderError
		cert    *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		system  x509.SystemRootsError
		op      *net.OpError
	)
	return errors.As(err, &record) || errors.As(err, &cert) ||
		errors.As(err, &unknown) || errors.As(err, &name) || errors.As(err, &invalid) || errors.As(err, &system) ||
		errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error") ||
		strings.Contains(err.Error(), "gave HTTP response to HTTPS client")
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// oneLine is an error's text on one line of bounded length. What net/http puts
// before a cause, an address with all settings, is left out.
func oneLine(err error) string {
	const most = 400
	text := err.Error()
	var asked *url.Error
	if errors.As(err, &asked) {
		text = strings.ReplaceAll(text, asked.Error(), asked.Err.Error())
	}
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
