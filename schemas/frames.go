package schemas

import "encoding/json"

// Subprotocol is the WebSocket subprotocol of DESIGN section 6.3: one JSON
// object per text frame, key "t" first.
//
//	S hello ─▶ C auth ─▶ S welcome ─▶ S ev | adv | gap …   C sub, unsub, pub, pong
//	                                   S subs, ack, ping, drain, err
const Subprotocol = "spillway.v1.json"

// ProtocolVersion is hello's "v".
const ProtocolVersion = 1

// What a client sends. T tells which fields count.
type ClientFrame struct {
	T    string            `json:"t"`              // auth, sub, unsub, pub, pong
	Tok  string            `json:"tok,omitempty"`  // auth
	Subs []SubRequest      `json:"subs,omitempty"` // auth, sub
	ID   []int             `json:"id,omitempty"`   // unsub
	N    int64             `json:"n,omitempty"`    // pub, pong
	Ch   string            `json:"ch,omitempty"`   // pub
	Type string            `json:"type,omitempty"` // pub
	Key  string            `json:"key,omitempty"`  // pub: idempotency key, required
	Data json.RawMessage   `json:"data,omitempty"` // pub
	Ack  map[string]string `json:"ack,omitempty"`  // pong: subscription id → cursor
}

// A SubRequest asks for one channel or pattern.
type SubRequest struct {
	Ch    string          `json:"ch"`
	From  json.RawMessage `json:"from,omitempty"`   // "<cursor>", "live", "begin", {"ts":ms}, {"last":n}; absent = live
	OnLag string          `json:"on_lag,omitempty"` // "gap" (default), "latest", "close"
}

// A Sub is a subscription as the node confirms it.
type Sub struct {
	Ch  string `json:"ch"`
	ID  int    `json:"id"`
	Cur string `json:"cur"`
}

// ServerFrame is what a node sends, as a client reads it; ev frames are
// assembled by hand from shared bytes and read the same.
type ServerFrame struct {
	T string `json:"t"` // hello, welcome, subs, ev, adv, gap, ack, ping, drain, err

	V     int    `json:"v,omitempty"`      // hello
	Node  string `json:"node,omitempty"`   // hello
	Ping  int    `json:"ping,omitempty"`   // hello: ms between pings of an idle connection
	MaxIn int    `json:"max_in,omitempty"` // hello: bytes of the largest frame it takes

	SID     string `json:"sid,omitempty"` // welcome
	Tenant  string `json:"tenant,omitempty"`
	Region  string `json:"region,omitempty"`
	Resumed bool   `json:"resumed,omitempty"`
	Subs    []Sub  `json:"subs,omitempty"` // welcome, subs

	P string            `json:"p,omitempty"` // ev, adv: cursor before
	C string            `json:"c,omitempty"` // cursor after
	E []json.RawMessage `json:"e,omitempty"` // ev: CloudEvents

	From   string `json:"from,omitempty"` // gap
	To     string `json:"to,omitempty"`   // gap: cursor; drain: address
	Why    string `json:"why,omitempty"`  // gap: lag, retention, epoch
	Replay string `json:"replay,omitempty"`

	N        int64           `json:"n,omitempty"`        // ack, ping, err
	Ident    json.RawMessage `json:"id,omitempty"`       // number (ev, adv, gap) or string (ack)
	After    int             `json:"after,omitempty"`    // drain: ms
	Deadline int             `json:"deadline,omitempty"` // drain: ms

	Code  Reason `json:"code,omitempty"` // err
	Msg   string `json:"msg,omitempty"`
	Retry string `json:"retry,omitempty"` // no, now, after
	MS    int    `json:"ms,omitempty"`
}

// A CloseCode ends a WebSocket: 40xx stop, 41xx back off, 42xx resume now.
type CloseCode int

const (
	CloseBadFrame        CloseCode = 4000
	CloseVersion         CloseCode = 4001
	CloseAuthRequired    CloseCode = 4003
	CloseAuthFailed      CloseCode = 4004
	CloseForbidden       CloseCode = 4005
	CloseSuspended       CloseCode = 4006
	CloseOverloaded      CloseCode = 4100
	CloseConnectionLimit CloseCode = 4101
	CloseDrain           CloseCode = 4200
	CloseMoved           CloseCode = 4201
	CloseSlow            CloseCode = 4202
	CloseIdle            CloseCode = 4203
	CloseTokenExpired    CloseCode = 4205
)

var closeReasons = map[CloseCode]Reason{
	CloseBadFrame: BadFrame, CloseVersion: VersionUnknown, CloseAuthRequired: AuthRequired,
	CloseAuthFailed: AuthFailed, CloseForbidden: Forbidden, CloseSuspended: TenantSuspended,
	CloseOverloaded: Overloaded, CloseConnectionLimit: ConnectionLimit, CloseDrain: Draining,
	CloseMoved: Moved, CloseSlow: Slow, CloseIdle: Idle, CloseTokenExpired: TokenExpired,
}

// Reason is the close code's word, "" for a code that is not ours.
func (c CloseCode) Reason() Reason { return closeReasons[c] }
