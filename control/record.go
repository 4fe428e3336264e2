package control

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/twmb/avro"

	"github.com/spillway/spillway/schemas"
)

// A Kind is what a record on `control` is about: the first half of its key,
// "kind/name".
type Kind string

const (
	KindCluster  Kind = "cluster"  // one record, cluster/settings
	KindSecret   Kind = "secret"   // by id
	KindTenant   Kind = "tenant"   // a Policy, by tenant; Everyone is the default
	KindEndpoint Kind = "endpoint" // by name
	KindFlag     Kind = "flag"     // by name
)

const settingsName = "settings"

// Settings are what is fixed for a topic prefix.
type Settings struct {
	Partitions int32     // P
	CreatedAt  time.Time // when the deployment was set up
}

// Uses of a secret.
const (
	useReturn = "return" // signs returns (DESIGN section 3.2)
	useDedupe = "dedupe" // hashes dedupe keys; never rotated, for what was hashed must be found again
)

// A storedSecret is a key of the deployment.
type storedSecret struct {
	Use        string
	Key        []byte
	ActiveFrom int64 // Unix ms; it signs from then on, when every follower has it
	RetiredAt  int64 // Unix ms; it signs no more from then on; 0 while in use
}

// A Flag lays a patch over the policies of its tenants while it is on. A patch
// must bind what it lets in: a rate, a quota, and an endpoint for each type it
// makes slow.
type Flag struct {
	On      bool           `json:"on"`
	Tenants []string       `json:"tenants"` // names, or "*" for all
	Patch   schemas.Policy `json:"patch"`   // its fields win over the tenant's; see Policy.Under
}

// A key names one record.
type key struct {
	kind Kind
	name string
}

func (k key) String() string { return string(k.kind) + "/" + k.name }

// An entry is one record, read: value is a Settings, storedSecret,
// schemas.Policy, schemas.Endpoint or Flag.
type entry struct {
	version int64
	value   any
}

// Bounds of the topic.
const (
	maxRecord  = 256 << 10 // bytes of a value
	maxEntries = 50_000    // records alive; a follower counts and skips what is over it
)

var errTrailing = errors.New("bytes follow the record")

// parseKey reads "kind/name".
func parseKey(b []byte) (key, error) {
	kind, name, ok := strings.Cut(string(b), "/")
	k := key{Kind(kind), name}
	if !ok || len(b) > 128 {
		return k, fmt.Errorf("key %.128q: want kind/name", b)
	}
	switch k.kind {
	case KindCluster:
		ok = name == settingsName
	case KindSecret, KindTenant, KindEndpoint, KindFlag:
		ok = schemas.ValidTenant(name) || k.kind == KindTenant && name == schemas.Everyone
	default:
		return k, fmt.Errorf("key %q: unknown kind", b)
	}
	if !ok {
		return k, fmt.Errorf("key %q: illegal name", b)
	}
	return k, nil
}

// decodeRecord reads a record's key and value. A tombstone has a nil entry
// value.
func decodeRecord(rawKey, value []byte) (key, entry, error) {
	k, err := parseKey(rawKey)
	if err != nil || len(value) == 0 {
		return k, entry{}, err
	}
	if len(value) > maxRecord {
		return k, entry{}, fmt.Errorf("%s: %d bytes, more than %d", k, len(value), maxRecord)
	}
	_, body, ok := schemas.WireHeader(value)
	if !ok {
		return k, entry{}, fmt.Errorf("%s: not in the Confluent wire format", k)
	}
	e, err := decodeBody(k.kind, body)
	if err == nil {
		err = sound(k, e.value)
	}
	if err != nil {
		return k, entry{}, fmt.Errorf("%s: %w", k, err)
	}
	return k, e, nil
}

func decodeBody(kind Kind, body []byte) (entry, error) {
	switch kind {
	case KindCluster:
		var a avroSettings
		err := decodeAvro(schemas.SettingsName, body, &a)
		return entry{a.Version, Settings{a.Partitions, a.CreatedAt}}, err
	case KindSecret:
		var a avroSecret
		err := decodeAvro(schemas.SecretName, body, &a)
		return entry{a.Version, storedSecret{a.Use, a.Key, a.ActiveFrom, a.RetiredAt}}, err
	case KindTenant:
		var a avroPolicy
		err := decodeAvro(schemas.PolicyName, body, &a)
		return entry{a.Version, a.Body.policy()}, err
	case KindEndpoint:
		var a avroEndpoint
		err := decodeAvro(schemas.EndpointName, body, &a)
		return entry{a.Version, a.endpoint()}, err
	default:
		var a avroFlag
		err := decodeAvro(schemas.FlagName, body, &a)
		return entry{a.Version, Flag{a.On, a.Tenants, a.Patch.policy()}}, err
	}
}

// encodeRecord writes e's value in the Confluent wire format. ids are schema
// ids by full name; an absent one is 0.
func encodeRecord(e entry, ids map[string]int32) ([]byte, error) {
	var name string
	var in any
	switch v := e.value.(type) {
	case Settings:
		name, in = schemas.SettingsName, &avroSettings{e.version, v.Partitions, v.CreatedAt}
	case storedSecret:
		name, in = schemas.SecretName, &avroSecret{e.version, v.Use, v.Key, v.ActiveFrom, v.RetiredAt}
	case schemas.Policy:
		name, in = schemas.PolicyName, &avroPolicy{e.version, newAvroBody(v)}
	case schemas.Endpoint:
		name, in = schemas.EndpointName, &avroEndpoint{e.version, v.URL, ms(v.Timeout), int64(v.MaxConcurrency), v.Capacity, v.Format}
	case Flag:
		name, in = schemas.FlagName, &avroFlag{e.version, v.On, v.Tenants, newAvroBody(v.Patch)}
	default:
		return nil, fmt.Errorf("no record holds a %T", e.value)
	}
	out, err := records[name].AppendEncode(schemas.AppendWireHeader(nil, ids[name]), in)
	if err == nil && len(out) > maxRecord {
		err = fmt.Errorf("%d bytes, more than %d", len(out), maxRecord)
	}
	return out, err
}

// records are the compiled schemas of `control`, by full name.
var records = func() map[string]*avro.Schema {
	out := map[string]*avro.Schema{}
	for name, text := range schemas.ControlSchemas() {
		out[name] = avro.MustParse(text)
	}
	return out
}()

func decodeAvro(name string, body []byte, into any) error {
	rest, err := records[name].Decode(body, into)
	if err == nil && len(rest) > 0 {
		err = errTrailing
	}
	return err
}

type avroSettings struct {
	Version    int64     `avro:"version"`
	Partitions int32     `avro:"partitions"`
	CreatedAt  time.Time `avro:"created_at"`
}

type avroSecret struct {
	Version    int64  `avro:"version"`
	Use        string `avro:"use"`
	Key        []byte `avro:"key"`
	ActiveFrom int64  `avro:"active_from"`
	RetiredAt  int64  `avro:"retired_at"`
}

type avroPolicy struct {
	Version int64    `avro:"version"`
	Body    avroBody `avro:"body"`
}

type avroFlag struct {
	Version int64    `avro:"version"`
	On      bool     `avro:"on"`
	Tenants []string `avro:"tenants"`
	Patch   avroBody `avro:"patch"`
}

type avroEndpoint struct {
	Version        int64   `avro:"version"`
	URL            string  `avro:"url"`
	TimeoutMS      int64   `avro:"timeout_ms"`
	MaxConcurrency int64   `avro:"max_concurrency"`
	Capacity       float64 `avro:"capacity"`
	Format         string  `avro:"format"`
}

func (a avroEndpoint) endpoint() schemas.Endpoint {
	return schemas.Endpoint{URL: a.URL, Timeout: fromMS(a.TimeoutMS), MaxConcurrency: int(a.MaxConcurrency), Capacity: a.Capacity, Format: a.Format}
}

type avroBody struct {
	State          string              `avro:"state"`
	Open           bool                `avro:"open"`
	Regions        []string            `avro:"regions"`
	Fast           avroRate            `avro:"fast"`
	Slow           avroRate            `avro:"slow"`
	Quota          int64               `avro:"quota"`
	MaxConnections int64               `avro:"max_connections"`
	Types          map[string]avroType `avro:"types"`
}

type avroRate struct {
	Rate         float64 `avro:"rate"`
	Burst        int64   `avro:"burst"`
	Overflow     string  `avro:"overflow"`
	MaxBacklogMS int64   `avro:"max_backlog_ms"`
}

type avroType struct {
	Class    string `avro:"class"`
	Endpoint string `avro:"endpoint"`
	Order    string `avro:"order"`
	Channel  string `avro:"channel"`
	ID       string `avro:"id"`
}

func newAvroBody(p schemas.Policy) avroBody {
	b := avroBody{
		State: p.State, Open: p.Open, Regions: p.Regions, Fast: newAvroRate(p.Fast), Slow: newAvroRate(p.Slow),
		Quota: p.Quota, MaxConnections: int64(p.MaxConnections), Types: make(map[string]avroType, len(p.Types)),
	}
	for name, t := range p.Types {
		b.Types[name] = avroType(t)
	}
	return b
}

func newAvroRate(r schemas.Rate) avroRate {
	return avroRate{r.Rate, r.Burst, r.Overflow, ms(r.MaxBacklog)}
}

func (b avroBody) policy() schemas.Policy {
	p := schemas.Policy{
		State: b.State, Open: b.Open, Fast: b.Fast.rate(), Slow: b.Slow.rate(),
		Quota: b.Quota, MaxConnections: int(b.MaxConnections),
	}
	if len(b.Regions) > 0 {
		p.Regions = b.Regions
	}
	if len(b.Types) > 0 {
		p.Types = make(map[string]schemas.Type, len(b.Types))
		for name, t := range b.Types {
			p.Types[name] = schemas.Type(t)
		}
	}
	return p
}

func (a avroRate) rate() schemas.Rate {
	return schemas.Rate{Rate: a.Rate, Burst: a.Burst, Overflow: a.Overflow, MaxBacklog: fromMS(a.MaxBacklogMS)}
}

func ms(d schemas.Duration) int64 { return time.Duration(d).Milliseconds() }

// fromMS saturates: a value that no writer of ours made must not wrap round.
func fromMS(n int64) schemas.Duration {
	const most = math.MaxInt64 / int64(time.Millisecond)
	return schemas.Duration(time.Duration(max(-most, min(n, most))) * time.Millisecond)
}
