// Package fanout delivers a region's events to WebSocket and SSE clients.
//
//	fanout.<region> ──▶ source ──▶ tail.Set ──▶ sub ──▶ conn   ──▶ WebSocket
//	       │            one reader  newest part  a      stream ──▶ SSE
//	       │            for all     of each      place
//	       └──────────▶ reader ─────────────────▶ │   places older than the tail
//	                                              │
//	          audit ◀── receipts, ranges ◀────────┘    nodes ◀── heartbeat
//
// There is no queue for a connection. A connection has places (cursors) in the
// log and takes what is there when it can write: a slow one costs nothing but
// its own lag. Where the tail has passed it, it is told exactly what it missed.
//
// A conn's life:
//
//	 hello ─▶ await auth ─▶ open ─▶ closing ─▶ gone
//	              │ 10 s               ▲
//	              └─── 4003 ───────────┤
//	open: token expires 4205, tenant suspended 4006, bad frame 4000,
//	      no pong 4203, no byte taken 4202, node drains 4200
//
// Two goroutines belong to a connection: one reads frames and hands them on,
// one owns everything else and writes. What a client may see is decided in
// sub.go and session.go; tokens and policies come from interfaces.
package fanout
