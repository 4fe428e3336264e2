package broker

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A line is a connection on which requests are sent byte for byte as they are:
// a client library would choose versions by itself.
type line struct{ net.Conn }

func dial(t *testing.T, b *Broker) line {
	t.Helper()
	conn, err := net.Dial("tcp", b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	return line{conn}
}

// ask sends a request and returns what follows the answer's correlation id.
func (l line) ask(req kmsg.Request) ([]byte, error) {
	if _, err := l.Write(kmsg.NewRequestFormatter().AppendRequest(nil, req, 7)); err != nil {
		return nil, err
	}
	var head [8]byte
	if _, err := io.ReadFull(l, head[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:])-4)
	_, err := io.ReadFull(l, body)
	return body, err
}

// claims asks what the broker takes, in one version of the question.
func (l line) claims(t *testing.T, version int16, software string) *kmsg.ApiVersionsResponse {
	t.Helper()
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = version, software, "2.0.2"
	body, err := l.ask(req)
	if err != nil {
		t.Fatalf("v%d: %v", version, err)
	}
	resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
	if version > 5 {
		resp.Version = 0 // Kafka's answer to a version that it does not know
	}
	if err := resp.ReadFrom(body); err != nil {
		t.Fatalf("v%d: %v", version, err)
	}
	return resp
}

// produceFrom is the first version of Produce that an answer claims.
func produceFrom(t *testing.T, resp *kmsg.ApiVersionsResponse) int16 {
	t.Helper()
	for _, k := range resp.ApiKeys {
		if k.ApiKey == int16(kmsg.Produce) {
			return k.MinVersion
		}
	}
	t.Fatalf("no Produce among %d keys", len(resp.ApiKeys))
	return -1
}

// TestProduceIsClaimedFromZero, as by Kafka 4, in every version of the
// question that kfake's answer is replaced for; the rest of it is the same.
func TestProduceIsClaimedFromZero(t *testing.T) {
	l := dial(t, start(t, Config{}))
	const whole = 5 // kfake itself answers it
	own := l.claims(t, whole, "librdkafka")
	for version := range int16(askedVersion + 1) {
		resp := l.claims(t, version, "librdkafka")
		if resp.ErrorCode != 0 || len(resp.ApiKeys) != len(own.ApiKeys) {
			t.Fatalf("v%d: code %d, %d keys, want %d", version, resp.ErrorCode, len(resp.ApiKeys), len(own.ApiKeys))
		}
		if from := produceFrom(t, resp); from != 0 {
			t.Errorf("v%d: Produce is claimed from v%d on", version, from)
		}
		for i, k := range resp.ApiKeys {
			if k.ApiKey != int16(kmsg.Produce) && (k.ApiKey != own.ApiKeys[i].ApiKey || k.MinVersion != own.ApiKeys[i].MinVersion || k.MaxVersion != own.ApiKeys[i].MaxVersion) {
				t.Errorf("v%d: %+v, want %+v", version, k, own.ApiKeys[i])
			}
		}
		if version >= 3 && len(resp.SupportedFeatures) != len(own.SupportedFeatures) {
			t.Errorf("v%d: %d features, want %d", version, len(resp.SupportedFeatures), len(own.SupportedFeatures))
		}
	}
	if code := l.claims(t, 99, "librdkafka").ErrorCode; code != kerr.UnsupportedVersion.Code {
		t.Errorf("an unknown version: code %d", code)
	}
	if code := l.claims(t, 3, "not a name").ErrorCode; code != kerr.InvalidRequest.Code {
		t.Errorf("a name that Kafka does not take: code %d", code)
	}
	for range renewAfter {
		l.claims(t, 3, "librdkafka")
	}
	if from := produceFrom(t, l.claims(t, 3, "librdkafka")); from != 0 {
		t.Errorf("after %d questions Produce is claimed from v%d on", renewAfter, from)
	}
}

// TestOldProduceIsRefused: what is claimed is not taken, as with Kafka 4.
func TestOldProduceIsRefused(t *testing.T) {
	b := start(t, Config{})
	createTopic(t, client(t, b), "t", 1)
	for version := range int16(3) {
		req := kmsg.NewPtrProduceRequest()
		req.Version, req.Acks, req.TimeoutMillis = version, 1, 1000
		topic := kmsg.NewProduceRequestTopic()
		topic.Topic = "t"
		topic.Partitions = []kmsg.ProduceRequestTopicPartition{kmsg.NewProduceRequestTopicPartition()}
		req.Topics = append(req.Topics, topic)
		if body, err := dial(t, b).ask(req); err == nil {
			t.Errorf("Produce v%d is answered with %d bytes, want a closed connection", version, len(body))
		}
	}
}

// TestKcatCompresses: what a stock librdkafka sends, the one that is
// installed, arrives compressed, also where the broker stamps its time.
func TestKcatCompresses(t *testing.T) {
	kcat, err := exec.LookPath("kcat")
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatal("kcat is not installed, and CI installs it")
	case err != nil:
		t.Skip("kcat is not installed: apt-get install kcat")
	}
	b := start(t, Config{})
	cl := client(t, b)
	text := bytes.Repeat([]byte("hello "), 1000)
	for _, kind := range []string{"CreateTime", "LogAppendTime"} {
		for codec, name := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
			topic := kind + "." + name
			createTopic(t, cl, topic, 1, "message.timestamp.type", kind)
			cmd := exec.CommandContext(ctx(t), kcat, "-P", "-b", b.Addr(), "-t", topic, "-z", name)
			cmd.Stdin = bytes.NewReader(text)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			r := read(t, b, topic, 1)[0]
			if int(r.Attrs.CompressionType()) != codec || !bytes.Equal(r.Value, text) {
				t.Errorf("%s: codec %d, want %d, %d bytes", topic, r.Attrs.CompressionType(), codec, len(r.Value))
			}
		}
	}
}
