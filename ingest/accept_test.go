package ingest

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway/spillway/ingest/binding"
	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/codec"
)

// bubble runs f against a stack on a fake clock.
func bubble(t *testing.T, change func(*Config), f func(*testing.T, *stack)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := start(t, change)
		defer s.stop()
		synctest.Wait()
		if err := s.in.Ready(); err != nil {
			t.Fatal(err)
		}
		f(t, s)
	})
}

const hi = `{"text":"hi"}`

func TestRequestsBecomeRecords(t *testing.T) {
	avro, err := base64.StdEncoding.DecodeString("AAAAAAEEaGkA") // schema 1, "hi", ""
	if err != nil {
		t.Fatal(err)
	}
	const structured = "application/cloudevents+json; charset=UTF-8"
	for _, c := range []struct {
		name, target, contentType string
		header                    map[string]string
		body                      string
		want                      string // records, a line each
	}{
		{"short form as curl sends it", "?type=demo.Message&subject=chat.1", binding.TypeForm, nil, hi,
			`acme ce_type=demo.Message ce_subject=chat.1 #1 {"text":"hi","from":""}`},
		{"short form, all parameters", "?type=demo.Message&subject=a%20b&id=7&source=/s&time=2026-01-02T03:04:05Z&priority=slow&region=eu&key=k&tenant=acme&dataschema=1", "", nil, hi,
			`acme ce_id=7 ce_source=/s ce_type=demo.Message ce_subject=a b ce_time=2026-01-02T03:04:05Z ce_region=eu ce_priority=slow ce_idempotencykey=k ce_dataschema=1 #1 {"text":"hi","from":""}`},
		{"binary", "", "application/json", map[string]string{
			"Ce-Specversion": "1.0", "Ce-Id": "1", "Ce-Source": "/s", "Ce-Type": "demo.Message", "Ce-Subject": "%C3%A4%20100%", "Ce-Zeta": "z", "Ce-Alpha": `"a \"b\""`,
		}, hi, `acme ce_id=1 ce_source=/s ce_type=demo.Message ce_subject=ä 100% ce_alpha=a "b" ce_zeta=z #1 {"text":"hi","from":""}`},
		{"binary with parameters", "?subject=x", "application/vnd.x+json", map[string]string{"Ce-Type": "demo.Message"}, hi,
			`acme ce_type=demo.Message ce_subject=x #1 {"text":"hi","from":""}`},
		{"Avro as it is", "", schemas.ContentTypeAvro, nil, string(avro), `acme ce_type=demo.Message #1 {"text":"hi","from":""}`},
		{"Avro that insists", "?dataschema=http://r:8081/schemas/ids/1", schemas.ContentTypeAvro, nil, string(avro),
			`acme ce_type=demo.Message ce_dataschema=http://r:8081/schemas/ids/1 #1 {"text":"hi","from":""}`},
		{"structured", "", structured, nil, ` {"specversion":"1.0","id":"a\u00e4","type":"demo.Message","tenantid":"acme","source":null,"n":-12,"flag":true,"data":{"from":"me","text":"\u0041"}, "datacontenttype":"application/json" } `,
			`acme ce_id=aä ce_type=demo.Message ce_n=-12 ce_flag=true #1 {"text":"A","from":"me"}`},
		{"structured, base64 of JSON", "", structured, nil, `{"type":"demo.Message","data_base64":"` + base64.StdEncoding.EncodeToString([]byte(hi)) + `"}`,
			`acme ce_type=demo.Message #1 {"text":"hi","from":""}`},
		{"structured, Avro", "", structured, nil, `{"datacontenttype":"application/avro","data_base64":"AAAAAAEEaGkA"}`,
			`acme ce_type=demo.Message #1 {"text":"hi","from":""}`},
		{"batch", "", binding.TypeBatch, nil, `[{"type":"demo.Message","id":"1","data":{"text":"a"}},
			{"type":"ai.inference.TokenDelta","id":"2","data":{"request_id":"r","seq":3,"text":"b"}} ,{"type":"demo.Message","id":"3","data":{"text":"c"}}]`,
			`acme ce_id=1 ce_type=demo.Message #1 {"text":"a","from":""}
acme ce_id=2 ce_type=ai.inference.TokenDelta #2 {"request_id":"r","seq":3,"text":"b"}
acme ce_id=3 ce_type=demo.Message #1 {"text":"c","from":""}`},
		{"empty batch", "", binding.TypeBatch, nil, ` [ ] `, ``},
	} {
		bubble(t, nil, func(t *testing.T, s *stack) {
			head := map[string]string{"Content-Type": c.contentType}
			for k, v := range c.header {
				head[k] = v
			}
			r := s.do(call{target: Path + c.target, token: s.producer("acme"), body: c.body, header: head})
			if r.status != http.StatusAccepted {
				t.Fatalf("%s: %d %s", c.name, r.status, r.body)
			}
			home := schemas.HomePartition([]byte("acme"), partitions)
			records := s.log()[home]
			var lines []string
			for i, rec := range records {
				lines = append(lines, s.describe(rec))
				e := r.Events[i]
				id := header(rec, schemas.HeaderID)
				if id == "" {
					id = schemas.Origin{Topic: schemas.TopicID(s.cluster.TopicInfo("spillway.events").TopicID), Partition: home, Offset: rec.Offset}.String()
				}
				if e.ID != id || e.Partition != home || e.Offset != rec.Offset {
					t.Errorf("%s: answered %+v, written at %d as %q", c.name, e, rec.Offset, id)
				}
				if header(rec, schemas.HeaderContentType) != schemas.ContentTypeAvro || header(rec, schemas.HeaderSpecVersion) != "1.0" {
					t.Errorf("%s: headers %v", c.name, rec.Headers)
				}
			}
			if got := strings.Join(lines, "\n"); got != c.want || len(r.Events) != len(lines) {
				t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
			}
		})
	}
}

func TestTraceIsTakenOverOrBegun(t *testing.T) {
	const of, other = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-11111111111111111111111111111111-2222222222222222-00"
	begun := regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-01$`)
	bubble(t, nil, func(t *testing.T, s *stack) {
		seen := map[string]bool{}
		for _, c := range []struct{ request, event, want string }{
			{of, "", of}, {of, other, other}, {"", other, other}, {"", "", ""}, {"", "", ""}, {"00-zz", strings.ToUpper(of), ""},
			{strings.Replace(of, "b7ad6b7169203331", "0000000000000000", 1), "", ""},
		} {
			head := map[string]string{}
			if c.request != "" {
				head["Traceparent"] = c.request
			}
			if c.event != "" {
				head["Ce-Traceparent"] = c.event
			}
			r := s.do(call{target: Path + "?type=demo.Message", token: s.producer("acme"), body: hi, header: head})
			if r.status != http.StatusAccepted {
				t.Fatal(r.body)
			}
			records := s.all()
			got := header(records[len(records)-1], schemas.HeaderTraceparent)
			switch {
			case c.want != "" && got != c.want:
				t.Errorf("%v: %q", c, got)
			case c.want == "" && (!begun.MatchString(got) || seen[got]):
				t.Errorf("%v: %q is no new trace", c, got)
			}
			seen[got] = true
		}
	})
}

func TestWhoMayPublishWhat(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *stack) {
		client := s.token(schemas.Claims{Tenant: "acme", Publish: []string{"chat.*"}})
		operator := s.token(schemas.Claims{Tenant: "*", Role: schemas.RoleOperator})
		send := func(token, query string) result {
			return s.do(call{target: Path + "?type=demo.Message" + query, token: token, body: hi})
		}
		for _, c := range []struct {
			name, token, query string
			status             int
			claim              string
		}{
			{"client, covered", client, "&subject=chat.1", 202, ""},
			{"client, not covered", client, "&subject=jobs.1", 403, "publish"},
			{"client, default channel", client, "", 403, "publish"},
			{"client, other tenant", client, "&subject=chat.1&tenant=globex", 403, "tenant"},
			{"client without publish", s.token(schemas.Claims{Tenant: "acme", Channels: []string{"*"}}), "&subject=chat.1", 403, "publish"},
			{"producer, other tenant", s.producer("acme"), "&tenant=globex", 403, "tenant"},
			{"operator for a tenant", operator, "&tenant=globex", 202, ""},
			{"operator for nobody", operator, "", 400, ""},
			{"operator for an illegal name", operator, "&tenant=a/b", 400, ""},
		} {
			if r := send(c.token, c.query); r.status != c.status || r.Error.Claim != c.claim {
				t.Errorf("%s: %d %s", c.name, r.status, r.body)
			}
		}
		everywhere := s.token(schemas.Claims{Tenant: "acme", Publish: []string{"*"}})
		if r := send(everywhere, ""); r.status != 202 {
			t.Error(r.body)
		}
		keys := map[string]int{}
		for _, rec := range s.all() {
			keys[string(rec.Key)+" "+header(rec, schemas.HeaderSubject)]++
			if rec.Partition != schemas.HomePartition(rec.Key, partitions) {
				t.Errorf("%s lies on %d", rec.Key, rec.Partition)
			}
		}
		// a client's channel is always said: no policy may take another from the payload
		if want := map[string]int{"acme chat.1": 1, "globex ": 1, "acme default": 1}; fmt.Sprint(keys) != fmt.Sprint(want) {
			t.Errorf("written: %v, want %v", keys, want)
		}
	})
}

func TestPolicies(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *stack) {
		send := func(tenant string) result {
			return s.do(call{target: Path + "?type=demo.Message", token: s.producer(tenant), body: hi})
		}
		if r := send("closed"); r.status != 403 || r.Error.Code != "tenant_suspended" {
			t.Error(r.body)
		}
		if r := send("stranger"); r.status != 403 || r.Error.Code != "tenant_unknown" {
			t.Errorf("control is fresh: %s", r.body)
		}
		s.policies.fresh = time.Now().Add(-time.Minute)
		if r := send("stranger"); r.status != 202 {
			t.Errorf("control is old, the line must be asked: %s", r.body)
		}
		if r := send("filled"); r.status != 202 || r.Events[0].ID != "" {
			t.Errorf("the id is in the payload, where only the line looks: %s", r.body)
		}
	})
}

func TestQuotaOfTheDay(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *stack) {
		batch := func(n int) result {
			events := strings.Repeat(`,{"type":"demo.Message","data":{"text":"x"}}`, n)[1:]
			return s.do(call{token: s.producer("small"), body: "[" + events + "]", header: map[string]string{"Content-Type": binding.TypeBatch}})
		}
		if r := batch(4); r.status != 429 || r.Error.Code != "over_quota" {
			t.Errorf("4 of 3: %s", r.body)
		}
		if r := batch(3); r.status != 202 {
			t.Errorf("3 of 3: %s", r.body)
		}
		r := batch(1)
		if r.status != 429 || r.header.Get("Retry-After") != "86400" { // the bubble's clock begins at midnight UTC
			t.Errorf("one more: %s, Retry-After %s", r.body, r.header.Get("Retry-After"))
		}
		time.Sleep(24 * time.Hour) //nolint:forbidigo // moves the bubble's clock
		if r := batch(1); r.status != 202 {
			t.Errorf("next day: %s", r.body)
		}
		s.line.cut.Store(true)
		if r := batch(2); r.status != 503 {
			t.Errorf("no Kafka: %s", r.body)
		}
		s.line.cut.Store(false)
		time.Sleep(time.Minute) //nolint:forbidigo // moves the bubble's clock
		if r := batch(2); r.status != 202 {
			t.Errorf("what Kafka did not get must not count: %s", r.body)
		}
	})
}

func TestNewerVersionIsTriedWhenTheKnownOneDoesNotFit(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *stack) {
		newer := s.schemas.add(t, `{"type":"record","name":"demo.Message","fields":[{"name":"text","type":"string"},{"name":"from","type":"string","default":""},{"name":"to","type":"string","default":""}]}`)
		send := func(body string) (result, int) {
			r := s.do(call{target: Path + "?type=demo.Message", token: s.producer("acme"), body: body})
			if r.status != 202 {
				return r, 0
			}
			records := s.all()
			id, _, err := codec.ParseHeader(records[len(records)-1].Value)
			if err != nil {
				t.Fatal(err)
			}
			return r, id
		}
		if r, id := send(hi); id != 1 {
			t.Errorf("fits the known version: %d, %s", id, r.body)
		}
		if r, id := send(`{"text":"hi","to":"you"}`); id != newer.ID {
			t.Errorf("fits the new version: %d, %s", id, r.body)
		}
		if r, _ := send(`{"text":"hi","two":"you"}`); r.status != 422 || r.Error.Path != "data.two" {
			t.Errorf("fits none: %s", r.body)
		}
	})
}
