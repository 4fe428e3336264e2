package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/coder/websocket"

	"github.com/spillway/spillway/schemas"
)

// DemoNode is a node for the examples: three events and a gap on each
// subscription, and an ack with the key as id for each pub.
func DemoNode() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{schemas.Subprotocol}})
		if err != nil {
			return
		}
		defer ws.CloseNow()
		send := func(s string) { ws.Write(context.Background(), websocket.MessageText, []byte(s)) }
		send(`{"t":"hello","v":1,"node":"f-1","ping":20000,"max_in":32768}`)
		for {
			_, b, err := ws.Read(context.Background())
			if err != nil {
				return
			}
			var f schemas.ClientFrame
			json.Unmarshal(b, &f)
			switch f.T {
			case "auth":
				send(`{"t":"welcome","sid":"s","tenant":"acme","region":"eu"}`)
			case "sub":
				send(fmt.Sprintf(`{"t":"subs","subs":[{"ch":"jobs.42","id":7,"cur":"%s"}]}`, at(10)))
				send(fmt.Sprintf(`{"t":"ev","id":7,"p":"%s","c":"%s","e":[%s,%s]}`, at(10), at(12), exampleEvent(1, "one"), exampleEvent(2, "two")))
				send(fmt.Sprintf(`{"t":"gap","id":7,"from":"%s","to":"%s","why":"lag"}`, at(12), at(15)))
				send(fmt.Sprintf(`{"t":"ev","id":7,"p":"%s","c":"%s","e":[%s]}`, at(15), at(16), exampleEvent(3, "three")))
			case "pub":
				send(fmt.Sprintf(`{"t":"ack","n":%d,"id":%q}`, f.N, f.Key))
			}
		}
	}))
}

func exampleEvent(n int, text string) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":"%d","source":"/kafka","type":"demo.Message","subject":"jobs.42","data":{"text":%q}}`, n, text)
}
