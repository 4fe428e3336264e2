package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

const wait = 20 * time.Second

func start(t testing.TB, cfg Config) *Broker {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	b, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func client(t testing.TB, b *Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.Addr()), kgo.ProducerLinger(0)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func ctx(t testing.TB) context.Context {
	c, cancel := context.WithTimeout(context.Background(), wait)
	t.Cleanup(cancel)
	return c
}

func createTopic(t testing.TB, cl *kgo.Client, topic string, partitions int32, config ...string) {
	t.Helper()
	configs := map[string]*string{}
	for i := 0; i+1 < len(config); i += 2 {
		configs[config[i]] = kadm.StringPtr(config[i+1])
	}
	if _, err := kadm.NewClient(cl).CreateTopic(ctx(t), partitions, 1, configs, topic); err != nil {
		t.Fatal(err)
	}
}

// read returns the first n records of a topic.
func read(t testing.TB, b *Broker, topic string, n int) []*kgo.Record {
	t.Helper()
	cl := client(t, b, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	var rs []*kgo.Record
	for len(rs) < n {
		fs := cl.PollFetches(ctx(t))
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		rs = append(rs, fs.Records()...)
	}
	return rs
}

// oddTimes are batches no clock made: 1970 to 2100, and backwards.
func oddTimes(topic string) []*kgo.Record {
	var rs []*kgo.Record
	for i, at := range []int64{4_102_444_800_000, 0, 1_000, 999, 4_102_444_800_001} {
		rs = append(rs, &kgo.Record{Topic: topic, Key: []byte("acme"), Value: fmt.Appendf(nil, "%d", i), Timestamp: time.UnixMilli(at)})
	}
	return rs
}

func TestAppendTime(t *testing.T) {
	now := time.UnixMilli(appendMillis)
	b := start(t, Config{Now: func() time.Time { return now }})
	admin := client(t, b)
	versions := map[string]*kversion.Versions{"newest": kversion.Stable(), "3.0": kversion.V3_0_0(), "1.0": kversion.V1_0_0()}
	codecs := map[string]kgo.CompressionCodec{
		"plain": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	for vname, v := range versions {
		for cname, codec := range codecs {
			if vname == "1.0" && cname == "zstd" {
				continue // not known there
			}
			t.Run(vname+"/"+cname, func(t *testing.T) {
				topic := "log-" + vname + cname
				createTopic(t, admin, topic, 1, "message.timestamp.type", "LogAppendTime")
				cl := client(t, b, kgo.MaxVersions(v), kgo.ProducerBatchCompression(codec))
				rs := oddTimes(topic)
				if err := cl.ProduceSync(ctx(t), rs...).FirstErr(); err != nil {
					t.Fatal(err)
				}
				for i, r := range read(t, b, topic, len(rs)) {
					if !r.Timestamp.Equal(now) || string(r.Value) != fmt.Sprint(i) {
						t.Errorf("record %d: %q at %s, want %s", i, r.Value, r.Timestamp, now)
					}
				}
			})
		}
	}
}

func TestAppendTimeInTransaction(t *testing.T) {
	now := time.UnixMilli(appendMillis)
	b := start(t, Config{Now: func() time.Time { return now }})
	cl := client(t, b, kgo.TransactionalID("t"))
	createTopic(t, cl, "audit", 3, "message.timestamp.type", "LogAppendTime")
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(ctx(t), oddTimes("audit")...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := cl.EndTransaction(ctx(t), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	for _, r := range read(t, b, "audit", 5) {
		if !r.Timestamp.Equal(now) {
			t.Errorf("read at %s", r.Timestamp)
		}
	}
}

func TestCreateTimeStaysUntilConfigured(t *testing.T) {
	now := time.UnixMilli(appendMillis)
	b := start(t, Config{Now: func() time.Time { return now }})
	cl := client(t, b)
	createTopic(t, cl, "work", 1)
	made := time.UnixMilli(1_000)
	produce := func() {
		t.Helper()
		if err := cl.ProduceSync(ctx(t), &kgo.Record{Topic: "work", Value: []byte("x"), Timestamp: made}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	alter := func(v string) {
		t.Helper()
		rs, err := kadm.NewClient(cl).AlterTopicConfigs(ctx(t), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "message.timestamp.type", Value: &v}}, "work")
		if err != nil || rs[0].Err != nil {
			t.Fatal(err, rs)
		}
	}
	produce()
	alter("LogAppendTime")
	produce()
	alter("CreateTime")
	produce()
	for i, want := range []time.Time{made, now, made} {
		if got := read(t, b, "work", 3)[i].Timestamp; !got.Equal(want) {
			t.Errorf("record %d is at %s, want %s", i, got, want)
		}
	}
}

// The hook is renewed every renewAfter requests, and must stamp each request
// before, at and after that.
func TestAppendTimeSurvivesRenewal(t *testing.T) {
	now := time.UnixMilli(appendMillis)
	b := start(t, Config{Now: func() time.Time { return now }})
	cl := client(t, b, kgo.MaxBufferedRecords(1))
	createTopic(t, cl, "events", 1, "message.timestamp.type", "LogAppendTime")
	n := 2*renewAfter + 10
	for range n {
		r := &kgo.Record{Topic: "events", Value: []byte("x"), Timestamp: time.UnixMilli(1)}
		if err := cl.ProduceSync(ctx(t), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	for i, r := range read(t, b, "events", n) {
		if !r.Timestamp.Equal(now) {
			t.Fatalf("record %d is at %s", i, r.Timestamp)
		}
	}
}

func TestRestartContinues(t *testing.T) {
	dir := t.TempDir()
	b := start(t, Config{Dir: dir})
	cl := client(t, b, kgo.TransactionalID("router/0"))
	createTopic(t, cl, "events", 2, "message.timestamp.type", "LogAppendTime", "retention.ms", "604800000")
	commit(t, cl, "one")
	offsets := kadm.Offsets{}
	offsets.AddOffset("events", 0, 7, -1)
	if err := kadm.NewClient(cl).CommitAllOffsets(ctx(t), "group", offsets); err != nil {
		t.Fatal(err)
	}
	idem := client(t, b, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	plain := func(v string) *kgo.Record {
		return &kgo.Record{Topic: "events", Partition: 1, Value: []byte(v), Timestamp: time.UnixMilli(1)}
	}
	if err := idem.ProduceSync(ctx(t), plain("p0"), plain("p1")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	// Left open: the next start must abort it.
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(ctx(t), &kgo.Record{Topic: "events", Value: []byte("never")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	addr := b.Addr()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	now := time.UnixMilli(appendMillis)
	b = start(t, Config{Dir: dir, Listen: addr, Now: func() time.Time { return now }})
	// The same idempotent producer goes on with its sequence numbers.
	if err := idem.ProduceSync(ctx(t), plain("p2")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	next := client(t, b, kgo.TransactionalID("router/0"))
	commit(t, next, "two")
	got := map[string]int{}
	rs := read(t, b, "events", 5)
	for _, r := range rs {
		got[string(r.Value)]++
	}
	if len(rs) != 5 || got["one"] != 1 || got["two"] != 1 || got["p0"] != 1 || got["p1"] != 1 || got["p2"] != 1 {
		t.Errorf("read %v", got)
	}
	for _, r := range rs {
		if v := string(r.Value); (v == "two" || v == "p2") && !r.Timestamp.Equal(now) {
			t.Errorf("%s is at %s: the topic's timestamp type was forgotten", v, r.Timestamp)
		}
	}
	committed, err := kadm.NewClient(next).FetchOffsets(ctx(t), "group")
	if err != nil {
		t.Fatal(err)
	}
	if o, ok := committed.Lookup("events", 0); !ok || o.At != 7 {
		t.Errorf("committed offset is %v, %v", o, ok)
	}
}

func commit(t *testing.T, cl *kgo.Client, value string) {
	t.Helper()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(ctx(t), &kgo.Record{Topic: "events", Value: []byte(value)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := cl.EndTransaction(ctx(t), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
}

func TestNoAutoCreate(t *testing.T) {
	b := start(t, Config{})
	cl := client(t, b, kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(0))
	err := cl.ProduceSync(ctx(t), &kgo.Record{Topic: "nobody.made.me", Value: []byte("x")}).FirstErr()
	if !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("err = %v", err)
	}
}

func TestRecordsUpTo16MiB(t *testing.T) {
	b := start(t, Config{})
	opts := []kgo.Opt{kgo.ProducerBatchMaxBytes(20 << 20), kgo.BrokerMaxWriteBytes(64 << 20), kgo.ProducerBatchCompression(kgo.NoCompression())}
	cl := client(t, b, opts...)
	createTopic(t, cl, "big", 1, "message.timestamp.type", "LogAppendTime")
	createTopic(t, cl, "bigger", 1, "max.message.bytes", "20971520")
	for topic, n := range map[string]int{"big": 15 << 20, "bigger": 19 << 20} {
		if err := cl.ProduceSync(ctx(t), &kgo.Record{Topic: topic, Value: make([]byte, n)}).FirstErr(); err != nil {
			t.Errorf("%s: %v", topic, err)
		}
	}
	err := cl.ProduceSync(ctx(t), &kgo.Record{Topic: "big", Value: make([]byte, 17<<20)}).FirstErr()
	if !errors.Is(err, kerr.MessageTooLarge) {
		t.Errorf("17 MiB: %v", err)
	}
}

func TestRetentionBoundsPartition(t *testing.T) {
	b := start(t, Config{RetentionBytes: 8 << 20, RetentionEvery: 10 * time.Millisecond})
	cl := client(t, b, kgo.ProducerBatchCompression(kgo.NoCompression()))
	createTopic(t, cl, "events", 1)
	for range 24 {
		if err := cl.ProduceSync(ctx(t), &kgo.Record{Topic: "events", Value: make([]byte, 900<<10)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := ctx(t); ; {
		starts, err := kadm.NewClient(cl).ListStartOffsets(deadline, "events")
		if err != nil {
			t.Fatal(err)
		}
		if o, _ := starts.Lookup("events", 0); o.Offset >= 15 {
			return
		}
	}
}

func TestStartRefuses(t *testing.T) {
	b := start(t, Config{})
	dir := t.TempDir()
	start(t, Config{Dir: dir})
	for name, c := range map[string]struct {
		cfg  Config
		want string
		is   error
	}{
		"no directory": {Config{}, "Dir is empty", nil},
		"port taken":   {Config{Dir: t.TempDir(), Listen: b.Addr()}, b.Addr(), syscall.EADDRINUSE},
		"dir taken":    {Config{Dir: dir}, dir + ": another broker uses it", nil},
		"open to all":  {Config{Dir: t.TempDir(), Listen: "0.0.0.0:0"}, "loopback", nil},
		"no port":      {Config{Dir: t.TempDir(), Listen: "127.0.0.1"}, "missing port", nil},
	} {
		got, err := Start(c.cfg)
		if err == nil {
			t.Errorf("%s: started", name)
			_ = got.Close()
			continue
		}
		if !strings.Contains(err.Error(), c.want) || (c.is != nil && !errors.Is(err, c.is)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is not Kafka is shown the door, and the broker lives on.
func TestForeignProtocols(t *testing.T) {
	b := start(t, Config{MaxConns: 3})
	frame := func(size uint32, key uint16) string {
		return string(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(nil, size), key)) + "\x00\x00\x00\x00\x00\x01"
	}
	for name, said := range map[string]string{
		"HTTP": "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"unknown key": frame(8, 30000), "unserved key": frame(8, 4), "negative size": frame(1<<31, 0), "short": frame(3, 0),
	} {
		c, err := net.Dial("tcp", b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, said); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		var timeout net.Error
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || (errors.As(err, &timeout) && timeout.Timeout()) {
			t.Errorf("%s: answered %d bytes, %v", name, n, err)
		}
		_ = c.Close()
	}
	createTopic(t, client(t, b), "events", 1)
}

func TestCloseTwice(t *testing.T) {
	b := start(t, Config{})
	client(t, b)
	if err := errors.Join(b.Close(), b.Close()); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", b.Addr()); err == nil {
		t.Error("still listening")
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	b := start(t, Config{MaxConns: 2})
	var open []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		open = append(open, c)
	}
	// The third one, accepted last, is closed.
	if err := open[2].SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	if _, err := open[2].Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("err = %v", err)
	}
	_ = open[0].Close()
	for deadline := ctx(t); deadline.Err() == nil; {
		if b.ln.len() < 2 {
			return
		}
	}
	t.Error("a closed connection still counts")
}
