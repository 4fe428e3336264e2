package fanout

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"unicode/utf8"

	"github.com/spillway/spillway/schemas"
)

// What the protocol says of a client's frames, without any I/O.

// errUnknownType says that a frame can be read but is of no type known here.
// It costs an err frame, not the connection: the client may be newer.
var errUnknownType = errors.New("unknown t")

// parseFrame reads a client's frame: one JSON object with known members of the
// right types and what its type needs. An error other than errUnknownType
// means that the client does not speak the protocol.
func parseFrame(b []byte) (schemas.ClientFrame, error) {
	var f schemas.ClientFrame
	if len(b) > MaxFrameIn {
		return f, fmt.Errorf("a frame of more than %d bytes", MaxFrameIn)
	}
	if !utf8.Valid(b) {
		return f, errors.New("the frame is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return f, fmt.Errorf("the frame cannot be read: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return f, errors.New("bytes follow the frame")
	}
	return f, checkFrame(&f)
}

func checkFrame(f *schemas.ClientFrame) error {
	switch f.T {
	case "auth", "pong":
	case "sub":
		if len(f.Subs) == 0 {
			return errors.New(`sub without "subs"`)
		}
	case "unsub":
		if len(f.ID) == 0 {
			return errors.New(`unsub without "id"`)
		}
	case "pub":
		if f.N <= 0 {
			return errors.New(`pub without "n", a number above 0`)
		}
	default:
		return fmt.Errorf("%w: %q", errUnknownType, clip(f.T))
	}
	// More subs than a connection may have are refused one by one: the frame's
	// length bounds them.
	if len(f.ID) > MaxChannels || len(f.Ack) > MaxChannels {
		return fmt.Errorf("a list of more than %d", MaxChannels)
	}
	return nil
}

// clip shortens what a client said for quoting it back.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		return s[:most]
	}
	return s
}

// A start says where a subscription begins.
type start struct {
	kind   startKind
	cursor schemas.Cursor
	ms     int64
	last   int
}

type startKind int

const (
	fromLive   startKind = iota // what comes from now on
	fromCursor                  // what follows a place
	fromBegin                   // all that Kafka keeps
	fromTime                    // what was appended at ms or later
	fromLast                    // the newest events, then what comes
)

// parseStart reads the member "from" of a subscription. Absent is live.
func parseStart(raw json.RawMessage) (start, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || string(raw) == "null" {
		return start{}, nil
	}
	if raw[0] == '"' {
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return start{}, err
		}
		return parseStartText(s)
	}
	var o struct {
		TS   *int64 `json:"ts"`
		Last *int   `json:"last"`
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&o); err != nil {
		return start{}, errStart
	}
	switch {
	case o.TS != nil && o.Last == nil && *o.TS >= 0 && *o.TS < math.MaxInt64/1000:
		return start{kind: fromTime, ms: *o.TS}, nil
	case o.Last != nil && o.TS == nil && *o.Last >= 1 && *o.Last <= MaxLast:
		return start{kind: fromLast, last: *o.Last}, nil
	}
	return start{}, errStart
}

var errStart = fmt.Errorf(`from: want "live", "begin", a cursor, {"ts":ms} or {"last":1 to %d}`, MaxLast)

// parseStartText reads "", "live", "begin" or a cursor.
func parseStartText(s string) (start, error) {
	switch s {
	case "", "live":
		return start{}, nil
	case "begin":
		return start{kind: fromBegin}, nil
	}
	at, err := schemas.ParseCursor(s)
	if err != nil {
		return start{}, errStart
	}
	return start{kind: fromCursor, cursor: at}, nil
}

// A refusal is an err frame to be.
type refusal struct {
	code schemas.Reason
	msg  string
}

func (r *refusal) Error() string { return r.msg }

func refuse(code schemas.Reason, format string, args ...any) *refusal {
	return &refusal{code: code, msg: fmt.Sprintf(format, args...)}
}

// checkSub says why a token may not have a subscription, nil if it may.
func checkSub(claims *schemas.Claims, req *schemas.SubRequest) (start, *refusal) {
	if !schemas.ValidPattern(req.Ch) {
		return start{}, refuse(schemas.ChannelIllegal, "channel %q: %s", clip(req.Ch), schemas.ChannelIllegal.Text())
	}
	if !claims.MaySubscribe(req.Ch) {
		return start{}, refuse(schemas.Forbidden, "the token's claim channels does not cover %q", req.Ch)
	}
	if !validLag(req.OnLag) {
		return start{}, refuse(schemas.BadFrame, `channel %q: on_lag is "gap", "latest" or "close"`, req.Ch)
	}
	from, err := parseStart(req.From)
	if err != nil {
		return start{}, refuse(schemas.CursorIllegal, "channel %q: %s", req.Ch, err)
	}
	return from, nil
}

// checkPub says why a token may not publish a frame, nil if it may.
func checkPub(claims *schemas.Claims, f *schemas.ClientFrame) *refusal {
	switch {
	case !schemas.ValidChannel(f.Ch):
		return refuse(schemas.ChannelIllegal, "channel %q: %s", clip(f.Ch), schemas.ChannelIllegal.Text())
	case !claims.MayPublish(f.Ch):
		return refuse(schemas.Forbidden, "the token's claim publish does not cover %q", f.Ch)
	case f.Type == "":
		return refuse(schemas.Malformed, `pub without "type", the event type`)
	case f.Key == "":
		return refuse(schemas.Malformed, `pub without "key", the idempotency key`)
	case len(f.Data) == 0:
		return refuse(schemas.Malformed, `pub without "data"`)
	}
	return nil
}

// retryOf is the hint that goes with an error: whether the same again can
// help, and after how many ms.
func retryOf(code schemas.Reason) (hint string, ms int) {
	switch code {
	case schemas.Overloaded, schemas.RateLimited:
		return "after", 250
	case schemas.KafkaUnavailable, schemas.RegistryDown, schemas.Internal:
		return "after", 1000
	case schemas.ConnectionLimit:
		return "after", 5000
	case schemas.Draining, schemas.Moved, schemas.Slow, schemas.Idle, schemas.TokenExpired:
		return "now", 0
	}
	return "no", 0
}

// errFrame is the err frame of a refusal; n is the pub it answers, or 0.
func errFrame(r *refusal, n int64) schemas.ServerFrame {
	hint, ms := retryOf(r.code)
	return schemas.ServerFrame{T: "err", Code: r.code, Msg: r.msg, N: n, Retry: hint, MS: ms}
}

// closeCodeOf is the code that ends a connection after an error in auth.
func closeCodeOf(code schemas.Reason) schemas.CloseCode {
	switch code {
	case schemas.AuthRequired:
		return schemas.CloseAuthRequired
	case schemas.TokenExpired:
		return schemas.CloseTokenExpired
	case schemas.Forbidden:
		return schemas.CloseForbidden
	case schemas.TenantSuspended:
		return schemas.CloseSuspended
	case schemas.ConnectionLimit:
		return schemas.CloseConnectionLimit
	}
	return schemas.CloseAuthFailed
}
