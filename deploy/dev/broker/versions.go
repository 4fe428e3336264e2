package broker

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// versions answers ApiVersions as kfake does, but that Produce begins at v0,
// which Kafka 4 claims too although it takes none below v3: an older librdkafka
// compresses with gzip, snappy and lz4 only for a broker that claims v0
// (KAFKA-18659).
type versions struct {
	cluster *kfake.Cluster
	answer  *kmsg.ApiVersionsResponse // kfake's own, with Produce mended; not changed any more
	seen    int
}

const (
	askedVersion = 4 // of ApiVersions; v5 differs in what kfake checks of the request, so it answers that
	askWait      = 5 * time.Second
)

// newVersions asks the broker once what it takes.
func newVersions(c *kfake.Cluster, address string) (*versions, error) {
	answer, err := askVersions(address)
	if err != nil {
		return nil, fmt.Errorf("ask the broker for its versions: %w", err)
	}
	i := slices.IndexFunc(answer.ApiKeys, func(k kmsg.ApiVersionsResponseApiKey) bool { return k.ApiKey == int16(kmsg.Produce) })
	if i < 0 {
		return nil, fmt.Errorf("the broker claims no Produce among its %d requests", len(answer.ApiKeys))
	}
	answer.ApiKeys[i].MinVersion = 0
	return &versions{cluster: c, answer: answer}, nil
}

// askVersions sends one ApiVersions request.
func askVersions(address string) (*kmsg.ApiVersionsResponse, error) {
	conn, err := net.DialTimeout("tcp", address, askWait)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(askWait)); err != nil {
		return nil, err
	}
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = askedVersion, "spillway", "dev"
	if _, err := conn.Write(kmsg.NewRequestFormatter().AppendRequest(nil, req, 1)); err != nil {
		return nil, err
	}
	var head [8]byte // length, correlation id; this response alone never has tags in its header
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint32(head[:])) - 4
	if size < 0 || size > 64<<10 {
		return nil, fmt.Errorf("an answer of %d bytes", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, err
	}
	answer := req.ResponseKind().(*kmsg.ApiVersionsResponse)
	if err := answer.ReadFrom(body); err != nil {
		return nil, err
	}
	// Wait until the broker has let go of this connection: it counts.
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		return nil, err
	}
	return answer, kerr.ErrorForCode(answer.ErrorCode)
}

func (v *versions) install() { v.cluster.ControlKey(int16(kmsg.ApiVersions), v.tell) }

// software is what Kafka takes as a client's name and version, from v3 on.
var software = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$`)

// tell answers what it can, and leaves to kfake what is refused or newer.
func (v *versions) tell(kreq kmsg.Request) (kmsg.Response, error, bool) {
	v.cluster.KeepControl()
	v.renew()
	req, ok := kreq.(*kmsg.ApiVersionsRequest)
	if !ok || req.Version > askedVersion {
		return nil, nil, false
	}
	if req.Version >= 3 && !(software.MatchString(req.ClientSoftwareName) && software.MatchString(req.ClientSoftwareVersion)) {
		return nil, nil, false
	}
	out := *v.answer // its slices are only read
	out.Version = req.Version
	return &out, nil, true
}

// renew replaces the hook by a fresh one now and then; see renewAfter.
func (v *versions) renew() {
	if v.seen++; v.seen%renewAfter == 0 {
		v.cluster.ControlKey(int16(kmsg.ApiVersions), v.tell)
		v.cluster.DropControl()
	}
}
