package schemas

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A ReturnKind says why an event comes back to `events`.
type ReturnKind string

const (
	Forward ReturnKind = "forward" // arrived on a partition that is not its home
	Release ReturnKind = "release" // its token is due
	Wait    ReturnKind = "wait"    // waited for a fresh answer about schema or tenant
	Replay  ReturnKind = "replay"  // an operator replays history
	Redrive ReturnKind = "redrive" // a dead letter is given another chance
)

// A Return is what the header spillway-return says: an event that Spillway
// itself gives back to `events`, where it first arrived, and which record it
// brings back. Only a valid keyed hash makes it count.
//
// Text form, fields joined by ';':
//
//	kind;topic id;partition;offset;accepted ms;topic;partition;offset;generation;job;secret id;hash
//	     └─────────── origin ──────────────┘  └── record brought back ┘
type Return struct {
	Kind       ReturnKind
	Origin     Origin
	Of         Place  // the record it brings back; Topic without the deployment's prefix
	Generation int    // number of redrives
	Job        string // replay or redrive job, else ""
}

// A Secret signs returns. Several are valid while one is being rotated.
type Secret struct {
	ID  string
	Key []byte // 16 bytes at least
}

var errReturn = errors.New("spillway-return")

// macLen is how many bytes of HMAC-SHA-256 a return carries.
const macLen = 16

// Sign returns the header value for a record with this key and value.
func (r Return) Sign(s Secret, key, value []byte) []byte {
	b := make([]byte, 0, 192)
	b = append(b, r.Kind...)
	b = append(b, ';')
	b = base64.RawURLEncoding.AppendEncode(b, r.Origin.Topic[:])
	for _, n := range [...]int64{int64(r.Origin.Partition), r.Origin.Offset, r.Origin.AcceptedAt} {
		b = strconv.AppendInt(append(b, ';'), n, 10)
	}
	b = append(append(b, ';'), r.Of.Topic...)
	for _, n := range [...]int64{int64(r.Of.Partition), r.Of.Offset, int64(r.Generation)} {
		b = strconv.AppendInt(append(b, ';'), n, 10)
	}
	b = append(append(b, ';'), r.Job...)
	b = append(append(b, ';'), s.ID...)
	mac := returnHash(s.Key, b, key, value)
	return base64.RawURLEncoding.AppendEncode(append(b, ';'), mac[:macLen])
}

// ParseReturn reads a spillway-return header and checks its hash over header,
// key and value. secret finds the key of a secret by its id.
func ParseReturn(header, key, value []byte, secret func(id string) ([]byte, bool)) (Return, error) {
	if len(header) > 1024 {
		return Return{}, fmt.Errorf("%w: %d bytes", errReturn, len(header))
	}
	f := strings.Split(string(header), ";")
	if len(f) != 12 {
		return Return{}, fmt.Errorf("%w: %d fields, want 12", errReturn, len(f))
	}
	k, ok := secret(f[10])
	if !ok {
		return Return{}, fmt.Errorf("%w: unknown secret %q", errReturn, f[10])
	}
	signed := header[:len(header)-len(f[11])-1]
	mac, err := base64.RawURLEncoding.DecodeString(f[11])
	if want := returnHash(k, signed, key, value); err != nil || !hmac.Equal(mac, want[:macLen]) {
		return Return{}, fmt.Errorf("%w: hash does not match", errReturn)
	}
	return parseReturnFields(f)
}

func parseReturnFields(f []string) (Return, error) {
	topic, err := ParseTopicID(f[1])
	if err != nil {
		return Return{}, err
	}
	var n [6]int64
	for i, s := range [...]string{f[2], f[3], f[4], f[6], f[7], f[8]} {
		bits := 64
		if i == 0 || i == 3 || i == 5 {
			bits = 32
		}
		if n[i], err = strconv.ParseInt(s, 10, bits); err != nil {
			return Return{}, fmt.Errorf("%w: %w", errReturn, err)
		}
	}
	switch kind := ReturnKind(f[0]); kind {
	case Forward, Release, Wait, Replay, Redrive:
		return Return{
			Kind:   kind,
			Origin: Origin{Topic: topic, Partition: int32(n[0]), Offset: n[1], AcceptedAt: n[2]},
			Of:     Place{Topic: f[5], Partition: int32(n[3]), Offset: n[4]}, Generation: int(n[5]), Job: f[9],
		}, nil
	}
	return Return{}, fmt.Errorf("%w: kind %q", errReturn, f[0])
}

func returnHash(secret, signed, key, value []byte) []byte {
	h := hmac.New(sha256.New, secret)
	var n [8]byte
	for _, part := range [...][]byte{signed, key, value} { // lengths in front: no two records hash alike
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write(part)
	}
	return h.Sum(nil)
}

// OriginHeader is the value of spillway-origin: the event's origin, its
// generation and replay job, for records of topics that only Spillway writes.
//
//	topic id;partition;offset;accepted ms;generation;job
func OriginHeader(o Origin, generation int, job string) []byte {
	b := base64.RawURLEncoding.AppendEncode(make([]byte, 0, 80), o.Topic[:])
	for _, n := range [...]int64{int64(o.Partition), o.Offset, o.AcceptedAt, int64(generation)} {
		b = strconv.AppendInt(append(b, ';'), n, 10)
	}
	return append(append(b, ';'), job...)
}

// ParseOriginHeader reads a spillway-origin header.
func ParseOriginHeader(b []byte) (o Origin, generation int, job string, err error) {
	f := strings.SplitN(string(b), ";", 6)
	if len(f) != 6 {
		return o, 0, "", fmt.Errorf("spillway-origin: %d fields, want 6", len(f))
	}
	if o.Topic, err = ParseTopicID(f[0]); err != nil {
		return o, 0, "", fmt.Errorf("spillway-origin: %w", err)
	}
	var n [4]int64
	for i := range n {
		bits := 64
		if i == 0 || i == 3 {
			bits = 32
		}
		if n[i], err = strconv.ParseInt(f[i+1], 10, bits); err != nil {
			return o, 0, "", fmt.Errorf("spillway-origin: %w", err)
		}
	}
	o.Partition, o.Offset, o.AcceptedAt = int32(n[0]), n[1], n[2]
	return o, int(n[3]), f[5], nil
}
