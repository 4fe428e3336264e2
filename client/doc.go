// Package client is the Go client of Spillway's fan-out: it keeps a WebSocket
// open, resumes where it was after every break, and hands out events in order,
// each once, with every gap said aloud.
//
//	Dial ─▶ Conn ──Messages()──▶ Event | Gap | Resumed
//	          │ Subscribe, Unsubscribe, Publish
//	          ▼
//	   run: connect → auth with cursors → read frames → (broken) → wait → connect …
//
// The protocol is DESIGN section 6.3; close codes decide: 40xx end the Conn,
// 41xx are waited out, 42xx and broken networks are resumed.
package client
