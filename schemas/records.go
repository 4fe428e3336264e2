package schemas

import "math"

// Full names of the records on `audit` and `nodes`, and their registry
// subjects.
const (
	TransitionName   = "spillway.Transition"
	ReceiptName      = "spillway.Receipt"
	SessionRangeName = "spillway.SessionRange"
	NodeName         = "spillway.Node"
)

// A Transition is one change of one event's status. Route, delay and worker
// write it to `audit`, keyed by tenant.
type Transition struct {
	Tenant     string
	Origin     Origin
	EventID    string
	Status     Status
	Path       string // "fast", "slow", "overflow", "wait"; "" where it ended before a path was chosen
	Reason     Reason
	Generation int32
	Attempt    int32
	At         int64 // when, Unix ms, on the log's clock
	LatencyUS  int64 // since AcceptedAt, on the writer's clock; -1 unknown
	Node       string
	Session    string
	TraceID    string // 32 hex digits, "" if there is no trace
	Replay     string // replay or redrive job
	Home       int32  // home partition; with Cursor it is where receipts join
	Cursor     int64  // offset of the `events` record that was let through; -1 if none was
}

// AppendAvro appends the Avro body of t.
func (t *Transition) AppendAvro(dst []byte) []byte {
	dst = appendText(dst, t.Tenant)
	dst = appendOrigin(dst, t.Origin)
	dst = appendText(dst, t.EventID)
	dst = appendLong(dst, int64(t.Status)-1)
	dst = appendText(dst, t.Path)
	dst = appendText(dst, string(t.Reason))
	dst = appendLong(dst, int64(t.Generation))
	dst = appendLong(dst, int64(t.Attempt))
	dst = appendLong(dst, t.At)
	dst = appendLong(dst, t.LatencyUS)
	dst = appendText(dst, t.Node)
	dst = appendText(dst, t.Session)
	dst = appendText(dst, t.TraceID)
	dst = appendText(dst, t.Replay)
	dst = appendLong(dst, int64(t.Home))
	return appendLong(dst, t.Cursor)
}

// DecodeTransition reads the Avro body of a Transition.
func DecodeTransition(body []byte) (Transition, error) {
	r := reader{b: body}
	t := Transition{Tenant: r.text(), Origin: r.origin(), EventID: r.text(), Status: r.status()}
	t.Path, t.Reason = r.text(), Reason(r.text())
	t.Generation, t.Attempt = r.int32(), r.int32()
	t.At, t.LatencyUS = r.long(), r.long()
	t.Node, t.Session, t.TraceID, t.Replay = r.text(), r.text(), r.text(), r.text()
	t.Home, t.Cursor = r.int32(), r.long()
	return t, r.done()
}

func appendOrigin(dst []byte, o Origin) []byte {
	dst = append(dst, o.Topic[:]...)
	dst = appendLong(dst, int64(o.Partition))
	dst = appendLong(dst, o.Offset)
	return appendLong(dst, o.AcceptedAt)
}

func (r *reader) origin() (o Origin) {
	copy(o.Topic[:], r.take(int64(len(o.Topic))))
	o.Partition, o.Offset, o.AcceptedAt = r.int32(), r.long(), r.long()
	return o
}

func (r *reader) status() Status {
	v := r.long()
	if v < 0 || v > int64(Cancelled)-1 {
		r.fail()
		return 0
	}
	return Status(v + 1)
}

// A Receipt is a node's word that it wrote events of one tenant to sockets:
// what it wrote to one partition's sessions since its last receipt, packed.
// Written to `audit`, keyed by tenant, best effort.
type Receipt struct {
	Tenant     string
	Node       string
	Region     string
	Home       int32 // home partition
	Epoch      int64 // of the cursors
	At         int64 // Unix ms
	Deliveries []Delivery
}

// A Delivery says of one event, named by its cursor, how many sessions got it.
type Delivery struct {
	Cursor    int64 // offset in `events` of the home partition
	Appended  int64 // append time of that record, Unix ms
	Sessions  int32
	LatencyUS int64 // slowest session: append to socket
}

// AppendAvro appends the Avro body of r.
func (r *Receipt) AppendAvro(dst []byte) []byte {
	dst = appendText(dst, r.Tenant)
	dst = appendText(dst, r.Node)
	dst = appendText(dst, r.Region)
	dst = appendLong(dst, int64(r.Home))
	dst = appendLong(dst, r.Epoch)
	dst = appendLong(dst, r.At)
	if len(r.Deliveries) > 0 {
		dst = appendLong(dst, int64(len(r.Deliveries)))
		for _, d := range r.Deliveries {
			dst = appendLong(dst, d.Cursor)
			dst = appendLong(dst, d.Appended)
			dst = appendLong(dst, int64(d.Sessions))
			dst = appendLong(dst, d.LatencyUS)
		}
	}
	return appendLong(dst, 0)
}

// DecodeReceipt reads the Avro body of a Receipt.
func DecodeReceipt(body []byte) (Receipt, error) {
	r := reader{b: body}
	out := Receipt{Tenant: r.text(), Node: r.text(), Region: r.text(), Home: r.int32(), Epoch: r.long(), At: r.long()}
	for n := r.block(); n > 0; n = r.block() {
		for range n {
			d := Delivery{Cursor: r.long(), Appended: r.long(), Sessions: r.int32(), LatencyUS: r.long()}
			if r.err != nil {
				return out, r.err
			}
			out.Deliveries = append(out.Deliveries, d)
		}
	}
	return out, r.done()
}

// block reads the head of an array's next block: its number of items, 0 at
// the end. An item has one byte at least, which bounds the count.
func (r *reader) block() int64 {
	n := r.long()
	if n < 0 {
		r.long() // size in bytes, for those who skip
		n = -n
	}
	if n < 0 || n > int64(len(r.b)) || n == math.MinInt64 {
		if n != 0 {
			r.fail()
		}
		return 0
	}
	return n
}

// A SessionRange says what one session was sent of one channel, so that "who
// received event E" needs no row per event and socket. Written to `audit`,
// keyed by tenant: at close, once a minute, and for the cursor with which a
// resuming client comes.
type SessionRange struct {
	Tenant    string
	Session   string
	Subject   string // the token's sub
	Node      string
	Region    string
	Channel   string // channel or pattern
	Home      int32
	Epoch     int64
	From      int64 // cursor at subscription
	To        int64 // cursor of the last event or skip sent
	Acked     int64 // cursor the client acknowledged; -1 none
	CloseCode int32 // 0 while it is open
	OpenedAt  int64 // Unix ms
	At        int64 // Unix ms
}

// AppendAvro appends the Avro body of s.
func (s *SessionRange) AppendAvro(dst []byte) []byte {
	for _, text := range [...]string{s.Tenant, s.Session, s.Subject, s.Node, s.Region, s.Channel} {
		dst = appendText(dst, text)
	}
	for _, n := range [...]int64{int64(s.Home), s.Epoch, s.From, s.To, s.Acked, int64(s.CloseCode), s.OpenedAt, s.At} {
		dst = appendLong(dst, n)
	}
	return dst
}

// DecodeSessionRange reads the Avro body of a SessionRange.
func DecodeSessionRange(body []byte) (SessionRange, error) {
	r := reader{b: body}
	s := SessionRange{Tenant: r.text(), Session: r.text(), Subject: r.text(), Node: r.text(), Region: r.text(), Channel: r.text()}
	s.Home, s.Epoch, s.From, s.To, s.Acked = r.int32(), r.long(), r.long(), r.long(), r.long()
	s.CloseCode, s.OpenedAt, s.At = r.int32(), r.long(), r.long()
	return s, r.done()
}

// A Node is a fan-out node's heartbeat on `nodes`.
type Node struct {
	Name           string
	Region         string
	Address        string // where clients reach it; "" behind one balancer
	State          string // "live", "draining"
	Connections    int32
	MaxConnections int32
}

// AppendAvro appends the Avro body of n.
func (n *Node) AppendAvro(dst []byte) []byte {
	for _, text := range [...]string{n.Name, n.Region, n.Address, n.State} {
		dst = appendText(dst, text)
	}
	return appendLong(appendLong(dst, int64(n.Connections)), int64(n.MaxConnections))
}

// DecodeNode reads the Avro body of a Node.
func DecodeNode(body []byte) (Node, error) {
	r := reader{b: body}
	n := Node{Name: r.text(), Region: r.text(), Address: r.text(), State: r.text(), Connections: r.int32(), MaxConnections: r.int32()}
	return n, r.done()
}
