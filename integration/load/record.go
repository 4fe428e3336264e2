package load

import (
	"encoding/binary"
	"hash/crc32"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

const (
	tokenType     = "ai.inference.TokenDelta"
	completedType = "ai.inference.Completed"
	source        = "/spillway/load"
)

// text is what every token says: about as long as a token is.
const text = " water"

// appendEvent appends event seq of r as CloudEvents JSON.
func (p *Plan) appendEvent(dst []byte, run string, r *Request, seq int) []byte {
	dst = append(dst, `{"specversion":"1.0","id":"`...)
	dst = append(dst, EventID(run, r.Index, seq)...)
	dst = append(dst, `","source":"`+source+`","type":"`...)
	if seq < r.Tokens {
		dst = append(dst, tokenType...)
	} else {
		dst = append(dst, completedType...)
	}
	dst = append(append(dst, `","subject":"`...), r.Channel...)
	dst = append(append(dst, `","data":{"request_id":"`...), r.Channel...)
	if seq < r.Tokens {
		dst = strconv.AppendInt(append(dst, `","seq":`...), int64(seq), 10)
		return append(dst, `,"text":"`+text+`"}}`...)
	}
	dst = strconv.AppendInt(append(dst, `","finish_reason":"stop","prompt_tokens":`...), int64(r.Context), 10)
	dst = strconv.AppendInt(append(dst, `,"completion_tokens":`...), int64(r.Tokens), 10)
	return append(dst, `}}`...)
}

// schemaIDs are the registry's ids of the types that are sent as Avro.
type schemaIDs struct{ token, completed int32 }

// record is event seq of r as a stock Avro producer would write it.
func (p *Plan) record(topic, run string, ids schemaIDs, r *Request, seq int) *kgo.Record {
	rec := &kgo.Record{Topic: topic, Key: []byte(r.Tenant)}
	kind, id := tokenType, ids.token
	if seq >= r.Tokens {
		kind, id = completedType, ids.completed
	}
	b := schemas.AppendWireHeader(make([]byte, 0, 64), id)
	b = avroText(b, r.Channel)
	if seq < r.Tokens {
		b = avroText(binary.AppendVarint(b, int64(seq)), text)
	} else {
		b = avroText(b, "stop")
		b = binary.AppendVarint(binary.AppendVarint(b, int64(r.Context)), int64(r.Tokens))
	}
	rec.Value = b
	for _, h := range [...][2]string{
		{schemas.HeaderID, EventID(run, r.Index, seq)}, {schemas.HeaderSource, source}, {schemas.HeaderType, kind}, {schemas.HeaderSubject, r.Channel},
	} {
		rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
	}
	return rec
}

func avroText(dst []byte, s string) []byte {
	return append(binary.AppendVarint(dst, int64(len(s))), s...)
}

// foreign partitions like librdkafka's "consistent": CRC-32 of the key, which
// is hardly ever the partition that Java and franz-go choose.
func foreign() kgo.Partitioner {
	return kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
		return func(r *kgo.Record, n int) int { return int(crc32.ChecksumIEEE(r.Key) % uint32(n)) }
	})
}

// A clock tells the time since the run's start; it is moved by the test.
type clock func() time.Duration
