package fanout

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/spillway/spillway/fanout/tail"
)

func (n *testNode) delivered() int64 {
	var m dto.Metric
	if err := n.m.deliveries.Write(&m); err != nil {
		n.tb.Fatal(err)
	}
	return int64(m.GetCounter().GetValue())
}

// BenchmarkDeliver is the cost of a delivery from the tail to the socket and
// out of it again, for 1, 100 and 1000 connections to one channel. "alone"
// waits for each event to be written to all before the next one comes, so that
// no two share a write; "burst" gives 64 at once.
func BenchmarkDeliver(b *testing.B) {
	for _, conns := range []int{1, 100, 1000} {
		for name, batch := range map[string]int{"alone": 1, "burst": 64} {
			b.Run(fmt.Sprintf("%d/%s", conns, name), func(b *testing.B) { benchmarkDeliver(b, conns, batch) })
		}
	}
}

func benchmarkDeliver(b *testing.B, conns, batch int) {
	l := newTestLog(b)
	n := startNode(b, l)
	var readers sync.WaitGroup
	var open []net.Conn
	for range conns {
		conn := n.rawSubscriber("acme", "*")
		open = append(open, conn)
		readers.Go(func() { io.Copy(io.Discard, conn) })
	}
	part, err := n.source.acquire(b.Context(), home("acme"))
	if err != nil {
		b.Fatal(err)
	}
	defer n.source.release(part)
	json := cloudEvent(&entry{tenant: "acme", channel: "c.1", id: "0123456789", data: `{"text":"` + strings.Repeat("x", 200) + `"}`}, 1)
	head, base := part.tail.Head(), n.delivered()
	records := make([]tail.Record, batch)
	b.ReportAllocs()
	b.ResetTimer()
	for done := int64(0); done < int64(b.N); {
		for i := range records {
			head.Offset++
			now := time.Now()
			records[i] = tail.Record{Tenant: "acme", Epoch: head.Epoch, Event: tail.Event{
				Cursor: head.Offset, Appended: now.UnixMilli(), Seen: now.UnixMicro(), Channel: "c.1", JSON: json,
			}}
		}
		part.tail.Append(records)
		done += int64(conns * batch)
		for n.delivered()-base < done {
			for range 50 { // asking costs more than yielding
				runtime.Gosched()
			}
		}
	}
	b.StopTimer()
	for _, conn := range open {
		conn.Close()
	}
	readers.Wait()
}

// rawSubscriber opens a connection by hand and returns it when the subscription
// is confirmed: what comes then is frames, which cost the reader nothing.
func (n *testNode) rawSubscriber(tenant, channel string) net.Conn {
	conn, err := net.Dial("tcp", n.address)
	if err != nil {
		n.tb.Fatal(err)
	}
	payload := authFrame(token(tenant, "*"))
	payload = strings.Replace(payload, `{"t":"auth"`, fmt.Sprintf(`{"t":"auth","subs":[{"ch":%q}]`, channel), 1)
	fmt.Fprintf(conn, "GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n")
	conn.Write(append([]byte{0x81, 0x80 | 126, byte(len(payload) >> 8), byte(len(payload)), 0, 0, 0, 0}, payload...)) // mask 0
	var got []byte
	buf := make([]byte, 1024)
	for !strings.Contains(string(got), `"t":"welcome"`) {
		k, err := conn.Read(buf)
		if err != nil {
			n.tb.Fatalf("%v after %s", err, got)
		}
		got = append(got, buf[:k]...)
	}
	return conn
}
