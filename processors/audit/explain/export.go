package explain

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/spillway/spillway/schemas"
)

// A span is which events an export gives. With cursors (a gap frame's replay
// address) it is those let through to sockets after From and up to To, in that
// order; with times, all that were accepted from From on and before To.
type span struct {
	tenant   string
	channel  string // channel or pattern; "" all
	byCursor bool
	epoch    uint64
	from, to int64 // offsets, or Unix ms
}

// export streams events as CloudEvents, one JSON object a line. A failure in
// the middle is a last line {"error":…}: without one the answer is complete.
func (a *api) export(w http.ResponseWriter, r *http.Request) {
	claims, no := a.who(r)
	var sp span
	if no == nil {
		sp, no = a.span(claims, r.URL.Query())
	}
	if no != nil {
		no.write(w)
		return
	}
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	default:
		no := refuse(schemas.Overloaded, fmt.Sprintf("%d exports run already", maxExports))
		no.retryAfter = 5
		no.write(w)
		return
	}
	out := &lines{w: w, api: a, span: sp}
	if err := out.stream(r.Context()); err != nil {
		no := a.unavailable(r, err)
		out.extend()
		if !out.began {
			no.write(w)
			return
		}
		_, _ = w.Write(no.appendJSON(nil)) // the client left: nobody to tell
		return
	}
	out.extend()
	out.begin()
}

// span reads the query.
func (a *api) span(claims schemas.Claims, q url.Values) (sp span, no *refusal) {
	if sp.tenant, no = tenantOf(claims, q.Get("tenant")); no != nil {
		return sp, no
	}
	if sp.tenant == "" {
		return sp, refuse(schemas.Malformed, "name the tenant: ?tenant=")
	}
	if sp.channel = q.Get("channel"); sp.channel != "" && !schemas.ValidPattern(sp.channel) {
		return sp, refuse(schemas.ChannelIllegal, schemas.ChannelIllegal.Text())
	}
	if asked := sp.channel; claims.Role == schemas.RoleClient {
		if asked == "" {
			asked = schemas.Everyone
		}
		if !claims.MaySubscribe(asked) {
			no := refuse(schemas.Forbidden, "the token does not allow all these channels; name one with ?channel=")
			no.claim = "channels"
			return sp, no
		}
	}
	return sp, sp.bounds(q.Get("from"), q.Get("to"), a.cfg.Now())
}

func (sp *span) bounds(from, to string, now time.Time) *refusal {
	c, err := schemas.ParseCursor(from)
	if err != nil {
		return sp.times(from, to, now)
	}
	sp.byCursor, sp.epoch, sp.from = true, c.Epoch, c.Offset
	end, err := schemas.ParseCursor(to)
	if err != nil {
		return refuse(schemas.CursorIllegal, "from is a cursor, and to is none")
	}
	if sp.to = end.Offset; end.Epoch != c.Epoch {
		return refuse(schemas.CursorIllegal, "from and to are cursors of different epochs: name times instead")
	}
	return nil
}

func (sp *span) times(from, to string, now time.Time) *refusal {
	f, ok := parseTime(from)
	if !ok {
		return refuse(schemas.Malformed, "from is neither a cursor, nor RFC 3339, nor Unix milliseconds")
	}
	sp.from, sp.to = f, now.UnixMilli()
	if to != "" {
		if sp.to, ok = parseTime(to); !ok {
			return refuse(schemas.Malformed, "to is neither RFC 3339 nor Unix milliseconds, as from is")
		}
	}
	return nil
}

func parseTime(s string) (ms int64, ok bool) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.UnixMilli(), true
	}
	ms, err := strconv.ParseInt(s, 10, 64)
	return ms, err == nil && ms >= 0 && ms < 1<<42
}

// pageRows is how many events one query gives: it is the memory that sorting
// takes in ClickHouse, and how often a slow reader's query is begun anew.
const pageRows = 500

// row is an event as the export's queries give it. Mark is where the next page
// begins: its cursor, or its time.
type row struct {
	key
	Mark    int64
	Headers map[string]string
	ID      string
	Type    string
	Channel string
	Payload string
}

// lines writes one export.
type lines struct {
	w     http.ResponseWriter
	api   *api
	span  span
	began bool
	ev    schemas.Event
	data  []byte
	line  []byte
}

// begin sends the header, once.
func (l *lines) begin() {
	if !l.began {
		l.began = true
		l.w.Header().Set("Content-Type", "application/x-ndjson")
	}
}

// WriteTimeout is how long a reader may take nothing of an answer: there are few
// slots, and a query in ClickHouse waits as long. Each line begins it anew. The
// server that serves the handler sets it for each request.
const WriteTimeout = time.Minute

func (l *lines) extend() {
	_ = http.NewResponseController(l.w).SetWriteDeadline(l.api.cfg.Now().Add(WriteTimeout)) // a test's writer may have none
}

func (l *lines) stream(ctx context.Context) error {
	last := key{}
	mark := l.span.from
	for {
		rows, err := l.page(ctx, mark, last)
		if err != nil {
			return err
		}
		n := 0
		for rows.Next() {
			var r row
			if err = rows.Scan(&r.Tenant, &r.Accepted, &r.Topic, &r.Partition, &r.Offset, &r.Mark, &r.Headers, &r.ID, &r.Type, &r.Channel, &r.Payload); err != nil {
				break
			}
			n, mark, last = n+1, r.Mark, r.key
			if err = l.write(ctx, &r); err != nil {
				break
			}
		}
		if err = errors.Join(err, rows.Err(), rows.Close()); err != nil || n < pageRows {
			return err
		}
		if f, ok := l.w.(http.Flusher); ok {
			f.Flush()
		}
	}
}

const exportColumns = "tenant, accepted_at, origin_topic, origin_partition, origin_offset, %s AS mark, headers, event_id, type, channel, payload"

func (l *lines) page(ctx context.Context, mark int64, last key) (driver.Rows, error) {
	args := []any{
		clickhouse.Named("tenant", l.span.tenant), clickhouse.Named("from", strconv.FormatInt(mark, 10)), clickhouse.Named("to", strconv.FormatInt(l.span.to, 10)),
	}
	where, more := channelFilter(l.span.channel)
	args = append(args, more...)
	var query string
	if l.span.byCursor {
		args = append(args, clickhouse.Named("epoch", strconv.FormatUint(l.span.epoch, 10)))
		query = fmt.Sprintf(cursorPage, where, pageRows)
	} else {
		args = append(args, clickhouse.Named("topic", last.Topic), clickhouse.Named("partition", strconv.Itoa(int(last.Partition))), clickhouse.Named("offset", strconv.FormatInt(last.Offset, 10)))
		query = fmt.Sprintf(timePage, where, pageRows)
	}
	rows, err := l.api.cfg.Conn.Query(clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"max_block_size": 256})), query, args...)
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	return rows, nil
}

// timePage: the bound on the time alone, beside that on the whole key, lets
// ClickHouse skip days and granules.
var timePage = "SELECT " + fmt.Sprintf(exportColumns, "toUnixTimestamp64Milli(accepted_at)") + `
FROM events FINAL
WHERE tenant = {tenant:String} AND accepted_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC') AND accepted_at < fromUnixTimestamp64Milli({to:Int64}, 'UTC')
	AND (toUnixTimestamp64Milli(accepted_at) > {from:Int64} OR {topic:String} = ''
		OR (origin_topic, origin_partition, origin_offset) > ({topic:String}, {partition:Int32}, {offset:Int64}))%s
ORDER BY tenant, accepted_at, origin_topic, origin_partition, origin_offset
LIMIT %d`

// cursorPage: the events of the transitions that were let through in the gap.
// Their times bound what is read of events.
var cursorPage = `WITH t AS (
	SELECT DISTINCT accepted_at, origin_topic, origin_partition, origin_offset, cursor AS mark
	FROM transitions
	WHERE tenant = {tenant:String} AND epoch = {epoch:UInt64} AND cursor > {from:Int64} AND cursor <= {to:Int64} AND status = 'processing' AND path = 'fast'
)
SELECT ` + fmt.Sprintf(exportColumns, "t.mark") + `
FROM events AS e FINAL INNER JOIN t USING (accepted_at, origin_topic, origin_partition, origin_offset)
WHERE tenant = {tenant:String} AND accepted_at >= (SELECT min(accepted_at) FROM t) AND accepted_at <= (SELECT max(accepted_at) FROM t)%s
ORDER BY mark
LIMIT %d`

// channelFilter is the condition of a channel or pattern.
func channelFilter(pattern string) (where string, args []any) {
	switch {
	case pattern == "" || pattern == schemas.Everyone:
		return "", nil
	case len(pattern) > 2 && pattern[len(pattern)-2:] == ".*":
		return " AND startsWith(channel, {channel:String})", []any{clickhouse.Named("channel", pattern[:len(pattern)-1])}
	}
	return " AND channel = {channel:String}", []any{clickhouse.Named("channel", pattern)}
}

// write writes one event as a CloudEvent, with the cursor at which a client
// would have it as an extension attribute.
func (l *lines) write(ctx context.Context, r *row) error {
	l.begin()
	o, err := r.origin()
	if err != nil {
		return err
	}
	l.ev.Reset(o, "", []byte(r.Tenant), []byte(r.Payload))
	for name, value := range r.Headers {
		l.ev.SetHeader(name, []byte(value))
	}
	l.ev.ID, l.ev.Type, l.ev.Channel = r.ID, r.Type, r.Channel
	if _, err := time.Parse(time.RFC3339Nano, l.ev.Time); err != nil {
		l.ev.Time = "" // a dead event's may be anything
	}
	if l.span.byCursor {
		l.ev.Extensions = append(l.ev.Extensions, schemas.Attribute{Name: "cursor", Value: schemas.Cursor{Epoch: l.span.epoch, Offset: r.Mark}.String()})
	}
	data, ok := l.json(ctx, l.ev.Value)
	l.line = schemas.AppendCloudEvent(l.line[:0], &l.ev, data)
	if !ok { // the members at the end give way to the value as it is
		const end = `"datacontenttype":"application/json","data":}`
		l.line = append(l.line[:len(l.line)-len(end)], `"datacontenttype":"application/avro","data_base64":"`...)
		l.line = append(base64.StdEncoding.AppendEncode(l.line, l.ev.Value), `"}`...)
	}
	l.extend()
	if _, err := l.w.Write(append(l.line, '\n')); err != nil {
		return fmt.Errorf("the reader left: %w", err)
	}
	return nil
}

// json is the payload as JSON; false if nobody can read it.
func (l *lines) json(ctx context.Context, value []byte) ([]byte, bool) {
	id, body, ok := schemas.WireHeader(value)
	if !ok || l.api.cfg.Schemas == nil {
		return nil, false
	}
	s, no := l.api.cfg.Schemas.Schema(id)
	if s == nil && no < 0 && l.api.cfg.Resolve != nil {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if l.api.cfg.Resolve(ctx, id) == nil {
			s, _ = l.api.cfg.Schemas.Schema(id)
		}
	}
	if s == nil {
		return nil, false
	}
	out, bad, _ := s.AppendJSON(l.data[:0], body, schemas.MaxEvent)
	l.data = out
	return out, bad == ""
}
