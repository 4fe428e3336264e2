package ingest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/spillway/spillway/ingest/binding"
	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/registry"
)

// TestEveryRefusal is the table of errors: what is sent, what is answered.
// None of it may reach Kafka.
func TestEveryRefusal(t *testing.T) {
	const structured, batch = binding.TypeStructured, binding.TypeBatch
	big := strings.Repeat("x", schemas.MaxEvent)
	many := "[" + strings.Repeat(`{},`, MaxBatchEvents) + "{}]"
	bubble(t, nil, func(t *testing.T, s *stack) {
		token := s.producer("acme")
		s.schemas.byID[7] = &registry.Schema{ID: 7, Name: "demo.Odd", Unsupported: fmt.Errorf("odd")}
		s.schemas.latest["demo.Odd"] = s.schemas.byID[7]
		old := s.token(schemas.Claims{Tenant: "acme", Role: schemas.RoleProducer, ExpiresAt: time.Now().Add(time.Second)})
		time.Sleep(time.Minute) //nolint:forbidigo // moves the bubble's clock
		s.policies.fresh = time.Now()
		avro := map[string]string{"Content-Type": schemas.ContentTypeAvro}
		head := func(pairs ...string) map[string]string {
			m := map[string]string{}
			for i := 0; i < len(pairs); i += 2 {
				m[pairs[i]] = pairs[i+1]
			}
			return m
		}
		in := func(contentType, body string) call {
			return call{token: token, body: body, header: head("Content-Type", contentType)}
		}
		short := func(query, body string) call { return call{token: token, target: Path + query, body: body} }
		for _, c := range []struct {
			name   string
			call   call
			status int
			code   schemas.Reason
			path   string
			says   string // part of the whole answer
		}{
			{"other path", call{target: "/v2/events", token: token}, 404, schemas.NotFound, "", "POST /v1/events"},
			{"root", call{target: "/", method: http.MethodGet}, 404, schemas.NotFound, "", ""},
			{"GET", call{method: http.MethodGet, token: token}, 405, schemas.MethodNotAllowed, "", "POST /v1/events"},
			{"PUT", call{method: http.MethodPut, token: token, body: hi}, 405, schemas.MethodNotAllowed, "", ""},

			{"no token", call{body: hi}, 401, schemas.AuthRequired, "", "Authorization: Bearer"},
			{"basic", call{body: hi, header: head("Authorization", "Basic YTpi")}, 401, schemas.AuthFailed, "", "Bearer"},
			{"empty token", call{body: hi, header: head("Authorization", "Bearer ")}, 401, schemas.AuthRequired, "", ""},
			{"no JWT", call{body: hi, token: "x.y"}, 401, schemas.AuthFailed, "", ""},
			{"expired", call{body: hi, token: old}, 401, schemas.TokenExpired, "", `"claim":"exp"`},
			{"token in the query", call{target: Path + "?type=demo.Message&access_token=" + token, body: hi}, 401, schemas.AuthRequired, "", ""},

			{"no type", short("", hi), 400, schemas.AttributeInvalid, "type", "?type=demo.Message"},
			{"unknown parameter", short("?type=demo.Message&sbject=x", hi), 400, schemas.Malformed, "sbject", "subject"},
			{"broken query", short("?type=%zz", hi), 400, schemas.Malformed, "", "%25"},
			{"parameter twice", short("?type=demo.Message&type=x", hi), 400, schemas.Malformed, "type", "given twice"},
			{"parameter and its other name", short("?type=demo.Message&key=1&idempotencykey=2", hi), 400, schemas.Malformed, "idempotencykey", ""},
			{"empty parameter", short("?type=demo.Message&id=", hi), 400, schemas.AttributeInvalid, "id", "leave it out"},
			{"parameter and header", call{token: token, target: Path + "?type=demo.Message", body: hi, header: head("Ce-Type", "demo.Message")}, 400, schemas.Malformed, "type", ""},
			{"query with a structured event", call{token: token, target: Path + "?type=demo.Message", body: `{}`, header: head("Content-Type", structured)}, 400, schemas.Malformed, "", "into the event"},
			{"specversion", call{token: token, body: hi, header: head("Ce-Specversion", "0.3", "Ce-Type", "demo.Message")}, 400, schemas.AttributeInvalid, "specversion", "1.0"},
			{"header not UTF-8", call{token: token, body: hi, header: head("Ce-Subject", "%ff", "Ce-Type", "demo.Message")}, 400, schemas.AttributeInvalid, "subject", "percent-encode"},
			{"id too long", short("?type=demo.Message&id="+strings.Repeat("i", 257), hi), 400, schemas.AttributeInvalid, "id", "256"},
			{"channel illegal", short("?type=demo.Message&subject=a*", hi), 400, schemas.AttributeInvalid, "subject", "channel"},
			{"time", short("?type=demo.Message&time=today", hi), 400, schemas.AttributeInvalid, "time", "RFC 3339"},
			{"priority", short("?type=demo.Message&priority=high", hi), 400, schemas.AttributeInvalid, "priority", "fast or slow"},
			{"extension's name", call{token: token, body: hi, header: head("Ce-Type", "demo.Message", "Ce-a-b", "x")}, 400, schemas.AttributeInvalid, "a-b", "a-z 0-9"},
			{"reserved extension", call{token: token, body: hi, header: head("Ce-Type", "demo.Message", "Ce-Replayid", "x")}, 400, schemas.AttributeInvalid, "replayid", "reserved"},
			{"extension too long", call{token: token, body: hi, header: head("Ce-Type", "demo.Message", "Ce-X", strings.Repeat("x", 1025))}, 400, schemas.AttributeInvalid, "x", "1024"},
			{"headers too large", call{token: token, body: hi, header: head("Ce-Type", "demo.Message", "X", strings.Repeat("x", schemas.MaxHeaders))}, 431, schemas.HeadersTooLarge, "", "65536"},

			{"no JSON", in(structured, `{"type":`), 400, schemas.Malformed, "", "at byte 8"},
			{"empty structured", in(structured, ``), 400, schemas.Malformed, "", ""},
			{"two values", in(structured, `{} {}`), 400, schemas.Malformed, "", ""},
			{"structured array", in(structured, `[]`), 400, schemas.Malformed, "", "not an array"},
			{"batch object", in(batch, `{"type":"demo.Message"}`), 400, schemas.Malformed, "", "JSON array"},
			{"batch of numbers", in(batch, `[1]`), 400, schemas.Malformed, "", `"event":0`},
			{"object as attribute", in(structured, `{"type":{"a":1},"data":{}}`), 400, schemas.AttributeInvalid, "type", "belongs into data"},
			{"member twice", in(structured, `{"type":"a","type":"b","data":{}}`), 400, schemas.Malformed, "type", ""},
			{"data twice", in(structured, `{"type":"demo.Message","data":{},"data":{}}`), 400, schemas.Malformed, "data", ""},
			{"both datas", in(structured, `{"type":"demo.Message","data":{},"data_base64":"e30="}`), 400, schemas.Malformed, "data_base64", ""},
			{"base64", in(structured, `{"type":"demo.Message","data_base64":"e"}`), 400, schemas.Malformed, "data_base64", "base64"},
			{"base64 number", in(structured, `{"type":"demo.Message","data_base64":1}`), 400, schemas.Malformed, "data_base64", ""},
			{"Avro as JSON", in(structured, `{"type":"demo.Message","datacontenttype":"application/avro","data":{}}`), 400, schemas.Malformed, "data", "data_base64"},
			{"17 extensions", in(structured, `{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1,"l":1,"m":1,"n":1,"o":1,"p":1,"q":1}`), 400, schemas.AttributeInvalid, "q", "16"},
			{"no data", in(structured, `{"type":"demo.Message"}`), 400, schemas.ValueEmpty, "data", "{}"},
			{"empty body", short("?type=demo.Message", ""), 400, schemas.ValueEmpty, "data", ""},
			{"data no JSON", short("?type=demo.Message", `{"text":`), 400, schemas.Malformed, "data", ""},

			{"client of another tenant", in(structured, `{"type":"demo.Message","tenantid":"globex","data":{"text":"x"}}`), 403, schemas.Forbidden, "", `"claim":"tenant"`},

			{"text", call{token: token, target: Path + "?type=demo.Message", body: "hi", header: head("Content-Type", "text/plain")}, 415, schemas.ContentTypeUnsupport, "datacontenttype", "application/json"},
			{"XML event", in("application/cloudevents+xml", `<a/>`), 415, schemas.ContentTypeUnsupport, "", "cloudevents+json"},
			{"charset", in("application/json; charset=latin1", hi), 415, schemas.ContentTypeUnsupport, "", "UTF-8"},
			{"content type broken", in("a/b/c", hi), 415, schemas.ContentTypeUnsupport, "", ""},
			{"structured XML data", in(structured, `{"type":"demo.Message","datacontenttype":"text/xml","data":"<a/>"}`), 415, schemas.ContentTypeUnsupport, "datacontenttype", ""},
			{"zstd", call{token: token, target: Path + "?type=demo.Message", body: hi, header: head("Content-Encoding", "zstd")}, 415, schemas.ContentTypeUnsupport, "", "gzip"},
			{"gzip that is none", call{token: token, target: Path + "?type=demo.Message", body: hi, header: head("Content-Encoding", "gzip")}, 400, schemas.Malformed, "", ""},
			{"gzip bomb", call{token: token, target: Path + "?type=demo.Message", body: gzipped(t, strings.Repeat(" ", 64<<20)), header: head("Content-Encoding", "gzip")}, 413, schemas.TooLarge, "", ""},

			{"too large", short("?type=demo.Message", `{"text":"`+big+`"}`), 413, schemas.TooLarge, "", "1048576"},
			{"structured, body too large", in(structured, `{"type":"demo.Message","data":{"text":"`+big+big+`"}}`), 413, schemas.TooLarge, "", ""},
			{"structured, data too large", in(structured, `{"type":"demo.Message","data":{"text":"`+big+`"}}`), 413, schemas.TooLarge, "data", "1048576"},
			{"batch too long", in(batch, many), 413, schemas.TooLarge, "", "4096"},
			{"batch too large", in(batch, strings.Repeat(" ", MaxBatchBytes+1)), 413, schemas.TooLarge, "", ""},

			{"type unknown", short("?type=demo.Massage", hi), 422, schemas.SchemaUnknown, "type", "spillway schemas infer"},
			{"dataschema foreign", short("?type=demo.Message&dataschema=http://x/y.json", hi), 422, schemas.SchemaUnknown, "dataschema", "/schemas/ids/7"},
			{"dataschema unknown", short("?type=demo.Message&dataschema=99", hi), 422, schemas.SchemaUnknown, "dataschema", "id 99"},
			{"dataschema of another type", short("?type=demo.Message&dataschema=2", hi), 422, schemas.SchemaMismatch, "type", "ai.inference.TokenDelta"},
			{"schema unsupported", short("?type=demo.Odd", hi), 422, schemas.SchemaUnsupported, "type", "cannot be used"},
			{"field missing", short("?type=demo.Message", `{}`), 422, schemas.SchemaMismatch, "data.text", ""},
			{"field misspelt", short("?type=demo.Message", `{"texd":"hi"}`), 422, schemas.SchemaMismatch, "data.texd", `did you mean \"text\"?`},
			{"field's type", short("?type=demo.Message", `{"text":1}`), 422, schemas.SchemaMismatch, "data.text", "string"},
			{"in a batch", in(batch, `[{"type":"demo.Message","data":{"text":"a"}},{"type":"demo.Message","data":{"text":2}}]`), 422, schemas.SchemaMismatch, "data.text", `"event":1`},
			{"Avro, no wire format", call{token: token, body: "Obj\x01", header: avro}, 400, schemas.NotWireFormat, "data", ""},
			{"Avro, unknown id", call{token: token, body: "\x00\x00\x00\x00\x63x", header: avro}, 422, schemas.SchemaUnknown, "data", "id 99"},
			{"Avro, cut short", call{token: token, body: "\x00\x00\x00\x00\x01\x04h", header: avro}, 422, schemas.SchemaMismatch, "data.text", ""},
			{"Avro, more after it", call{token: token, body: "\x00\x00\x00\x00\x01\x04hi\x00\x00", header: avro}, 422, schemas.SchemaMismatch, "data", ""},
			{"Avro of another type", call{token: token, target: Path + "?type=demo.Other", body: "\x00\x00\x00\x00\x01\x04hi\x00", header: avro}, 422, schemas.SchemaMismatch, "type", "demo.Message"},
			{"Avro, other dataschema", call{token: token, target: Path + "?dataschema=2", body: "\x00\x00\x00\x00\x01\x04hi\x00", header: avro}, 422, schemas.SchemaMismatch, "dataschema", ""},
		} {
			r := s.do(c.call)
			if r.status != c.status || r.Error.Code != string(c.code) || r.Error.Path != c.path || !strings.Contains(r.body, c.says) || r.Error.Message == "" {
				t.Errorf("%s: %d %s", c.name, r.status, r.body)
			}
			if c.status == 401 && r.header.Get("WWW-Authenticate") != "Bearer" || c.status == 405 && r.header.Get("Allow") != "POST" {
				t.Errorf("%s: headers %v", c.name, r.header)
			}
			if r.header.Get("Content-Type") != "application/json" || !strings.HasSuffix(r.body, "}\n") {
				t.Errorf("%s: %q", c.name, r.body)
			}
		}
		if n := len(s.all()); n != 0 {
			t.Errorf("%d records were written", n)
		}
		if used := s.in.events.used.Load() + s.in.bytes.used.Load(); used != 0 {
			t.Errorf("%d still held", used)
		}
	})
}

func TestHeaderGivenTwiceAndHead(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *stack) {
		r := httptest.NewRequest(http.MethodPost, Path, strings.NewReader(hi))
		r.Header.Set("Authorization", "Bearer "+s.producer("acme"))
		r.Header["Ce-Type"] = []string{"demo.Message", "demo.Message"}
		if got := s.serve(r); got.status != 400 || got.Error.Path != "type" {
			t.Error(got.body)
		}
		if got := s.serve(httptest.NewRequest(http.MethodHead, Path, nil)); got.status != 405 || got.body != "" {
			t.Errorf("HEAD: %d %q", got.status, got.body)
		}
	})
}

func TestRegistryDown(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *stack) {
		s.schemas.down = true
		r := s.do(call{target: Path + "?type=demo.Message", token: s.producer("acme"), body: hi})
		if r.status != 503 || r.Error.Code != string(schemas.RegistryDown) || r.header.Get("Retry-After") == "" {
			t.Errorf("%d %s", r.status, r.body)
		}
	})
}

func TestLargestEventsPass(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *stack) {
		body := `{"text":"` + strings.Repeat("x", schemas.MaxEvent-64) + `"}`
		for name, c := range map[string]call{
			"binary":     {target: Path + "?type=demo.Message", body: body},
			"structured": {body: `{"type":"demo.Message","data":` + body + `}`, header: map[string]string{"Content-Type": binding.TypeStructured}},
			"gzip":       {target: Path + "?type=demo.Message", body: gzipped(t, body), header: map[string]string{"Content-Encoding": "gzip"}},
			"batch": {body: `[` + strings.Repeat(`{"type":"demo.Message","data":`+body+`},`, 14) + `{"type":"demo.Message","data":{"text":""}}]`,
				header: map[string]string{"Content-Type": binding.TypeBatch}},
		} {
			c.token = s.producer("acme")
			if r := s.do(c); r.status != 202 {
				t.Errorf("%s: %d %s", name, r.status, binding.Clip(r.body))
			}
		}
		if n := len(s.all()); n != 18 {
			t.Errorf("%d records", n)
		}
	})
}

func TestInFlightIsBounded(t *testing.T) {
	bubble(t, func(c *Config) { c.MaxEvents, c.MaxBytes = 4, 4096 }, func(t *testing.T, s *stack) {
		send := func(n int, text string) result {
			events := strings.Repeat(`,{"type":"demo.Message","data":{"text":"`+text+`"}}`, n)[1:]
			return s.do(call{token: s.producer("acme"), body: "[" + events + "]", header: map[string]string{"Content-Type": binding.TypeBatch}})
		}
		if r := send(4, "x"); r.status != 202 {
			t.Fatal(r.body)
		}
		for name, r := range map[string]result{"events": send(5, "x"), "bytes": send(1, strings.Repeat("x", 2048))} {
			if r.status != 503 || r.Error.Code != string(schemas.Overloaded) || r.header.Get("Retry-After") != "1" {
				t.Errorf("too many %s: %d %s", name, r.status, r.body)
			}
		}
		// what Kafka owes an answer for counts, though its request was answered
		s.line.mute.Store(true)
		if r := send(3, "y"); r.status != 503 || r.Error.Code != string(schemas.KafkaUnavailable) {
			t.Errorf("no answer: %d %s", r.status, r.body)
		}
		if used := s.in.events.used.Load(); used != 3 {
			t.Errorf("%d events held, want 3", used)
		}
		if r := send(2, "z"); r.status != 503 || r.Error.Code != string(schemas.Overloaded) {
			t.Errorf("over the bound: %d %s", r.status, r.body)
		}
		s.line.mute.Store(false)
		time.Sleep(time.Minute) //nolint:forbidigo // moves the bubble's clock
		if used := s.in.events.used.Load() + s.in.bytes.used.Load(); used != 0 {
			t.Errorf("%d held after Kafka answered", used)
		}
		if r := send(4, "x"); r.status != 202 {
			t.Error(r.body)
		}
	})
}
