package ingest

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/ingest/binding"
	"github.com/spillway/spillway/schemas"
)

// FuzzRequest sends anything as content type, query, headers and body up to
// the point where records would be written. It asserts: no panic; an answer
// from the table; and what is accepted, route will read as valid.
func FuzzRequest(f *testing.F) {
	for _, seed := range [][4]string{
		{binding.TypeForm, "type=demo.Message&subject=chat.1", "", hi},
		{"application/json", "", "Ce-Type: demo.Message\nCe-Id: %41\nCe-X: \"a\\\"b\"", hi},
		{binding.TypeStructured, "", "", `{"type":"demo.Message","id":"\u0041","n":1,"b":true,"z":null,"data":{"text":"x"}}`},
		{binding.TypeBatch, "", "", `[{"type":"demo.Message","data":{"text":"a"}},{"type":"demo.Message","data_base64":"eyJ0ZXh0IjoieCJ9"}]`},
		{schemas.ContentTypeAvro, "dataschema=1", "", "\x00\x00\x00\x00\x01\x04hi\x00"},
		{"application/json; charset=utf-8", "type=%64emo.Message", "Content-Encoding: gzip", "\x1f\x8b"},
		{binding.TypeStructured, "", "", `{"datacontenttype":"application/avro","data_base64":"AAAAAAEEaGkA"}`},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	s := start(f, nil)
	f.Cleanup(s.stop)
	token := s.producer("acme")
	f.Fuzz(func(t *testing.T, contentType, query, head, body string) {
		r := httptest.NewRequest(http.MethodPost, Path, strings.NewReader(body))
		r.URL = &url.URL{Path: Path, RawQuery: query}
		for line := range strings.SplitSeq(head, "\n") {
			if key, value, ok := strings.Cut(line, ": "); ok {
				r.Header.Add(key, value)
			}
		}
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("Authorization", "Bearer "+token)
		b, refused := prepare(s.in, r)
		if used := s.in.events.used.Load() + s.in.bytes.used.Load(); used != 0 {
			t.Fatalf("%d still held", used)
		}
		if refused != nil {
			if _, known := statuses[refused.Code]; !known || refused.Code == schemas.Internal || refused.Message == "" {
				t.Fatalf("not an answer of the table: %+v", refused)
			}
			if size := len(refused.AppendJSON(nil)); size > 8<<10 {
				t.Fatalf("an answer of %d bytes", size)
			}
			return
		}
		for i := range b.records {
			checkRecord(t, s, &b.records[i])
		}
	})
}

// prepare does all that comes before Kafka.
func prepare(in *Ingest, r *http.Request) (*builder, *binding.Refusal) {
	x := exchange{in: in, r: r, body: buffers.get()}
	x.hold.events, x.hold.bytes = &in.events, &in.bytes
	x.hold.owners.Store(1)
	defer func() {
		x.hold.release()
		buffers.put(x.body)
	}()
	return x.prepare()
}

// checkRecord reads a record as route does.
func checkRecord(t *testing.T, s *stack, r *kgo.Record) {
	t.Helper()
	var ev schemas.Event
	ev.Reset(schemas.Origin{}, r.Topic, r.Key, r.Value)
	for _, h := range r.Headers {
		ev.SetHeader(h.Key, h.Value)
	}
	id, body, ok := schemas.WireHeader(r.Value)
	if reason := ev.Check(); reason != "" || !ok || string(r.Key) != "acme" {
		t.Fatalf("%s: %+v", reason, r)
	}
	schema, err := s.schemas.Resolve(t.Context(), int(id))
	if err != nil {
		t.Fatal(err)
	}
	text, err := schema.Codec.AppendJSON(nil, body, schemas.MaxEvent)
	if err != nil {
		t.Fatal(err)
	}
	again, err := schema.Codec.AppendAvro(nil, text, schemas.MaxEvent)
	if err != nil || string(again) != string(body) {
		t.Fatalf("%x as JSON is %s, and back %x, %v", body, text, again, err)
	}
}
