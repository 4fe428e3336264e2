// Package client subscribes to channels of Spillway over WebSocket, and
// publishes to them.
//
//	c, err := client.Dial(ctx, client.Config{URL: "ws://127.0.0.1:8090/v1/ws", Token: token})
//	s, err := c.Subscribe(ctx, "jobs.42", client.Live)
//	for ev, err := range s.Events(ctx) { … }
//
// A Client keeps one connection and makes it anew when it breaks, going on at
// the place in the log where each subscription was: nothing is missed and
// nothing comes twice, or a Gap says exactly what was missed. A node that
// drains is left for another before it closes.
//
//	Dial ─▶ open ─▶ broken ─▶ backing off ─▶ open …
//	          │        │ code 40xx, 401, 403
//	          ▼        ▼
//	        Close    ended: Err says why
//
// One goroutine reads, and hands events to handlers (SubscribeFunc) or to bounded
// queues (Events). A reader that is too slow slows the whole connection down,
// and then the node announces gaps: that is the only queue there is.
package client
