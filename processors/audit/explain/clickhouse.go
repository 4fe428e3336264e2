package explain

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/spillway/spillway/schemas"
)

// ClickHouse is the source that reads the audit's tables. The connection is
// the caller's and must be in their database. Safe for concurrent use.
func ClickHouse(conn driver.Conn) Source { return tables{conn} }

type tables struct{ conn driver.Conn }

func (tables) Name() string { return "ClickHouse" }

// Facts finds the origins that have the id first, in each table, since the
// payload may be gone, or the id known to route alone; then all rows of these
// origins by the tables' keys.
func (c tables) Facts(ctx context.Context, id, tenant string) (f Facts, err error) {
	keys, err := c.find(ctx, id, tenant)
	if err != nil || len(keys) == 0 {
		return f, err
	}
	if len(keys) > maxEvents {
		keys, f.More = keys[:maxEvents], true
	}
	if err := c.conn.QueryRow(ctx, "SELECT toUnixTimestamp64Milli(now64(3))").Scan(&f.Now); err != nil {
		return f, fmt.Errorf("read the clock: %w", err)
	}
	where, args := within(keys)
	if f.Accepted, err = c.accepted(ctx, where, args); err != nil {
		return f, err
	}
	if f.Transitions, err = c.transitions(ctx, where, args); err != nil {
		return f, err
	}
	if f.Letters, err = c.letters(ctx, where, args); err != nil {
		return f, err
	}
	f.Receipts, err = c.receipts(ctx, f.Transitions)
	return f, err
}

// key is an event's place in the sorting keys of the tables.
type key struct {
	Tenant    string    `ch:"tenant"`
	Accepted  time.Time `ch:"accepted_at"`
	Topic     string    `ch:"origin_topic"`
	Partition int32     `ch:"origin_partition"`
	Offset    int64     `ch:"origin_offset"`
}

func (k key) origin() (o schemas.Origin, err error) {
	if o.Topic, err = schemas.ParseTopicID(k.Topic); err != nil {
		return o, fmt.Errorf("a row has a strange origin: %w", err)
	}
	o.Partition, o.Offset, o.AcceptedAt = k.Partition, k.Offset, k.Accepted.UnixMilli()
	return o, nil
}

const keyColumns = "tenant, accepted_at, origin_topic, origin_partition, origin_offset"

func (c tables) find(ctx context.Context, id, tenant string) (keys []key, err error) {
	where, args := "event_id = {id:String}", []any{clickhouse.Named("id", id)}
	if o, ok := parseOrigin(id); ok {
		where = "(" + where + " OR origin_topic = {topic:String} AND origin_partition = {partition:Int32} AND origin_offset = {offset:Int64})"
		args = append(args, clickhouse.Named("topic", o.Topic.String()), clickhouse.Named("partition", fmt.Sprint(o.Partition)), clickhouse.Named("offset", fmt.Sprint(o.Offset)))
	}
	if tenant != "" {
		where += " AND tenant = {tenant:String}"
		args = append(args, clickhouse.Named("tenant", tenant))
	}
	var selects []string
	for _, table := range []string{"events", "transitions", "dead_letters"} {
		selects = append(selects, "SELECT "+keyColumns+" FROM "+table+" WHERE "+where)
	}
	query := fmt.Sprintf("SELECT DISTINCT %s FROM (%s) ORDER BY %s LIMIT %d", keyColumns, strings.Join(selects, " UNION ALL "), keyColumns, maxEvents+1)
	if err := c.conn.Select(ctx, &keys, query, args...); err != nil {
		return nil, fmt.Errorf("find: %w", err)
	}
	return keys, nil
}

// within is the condition that a row is of one of these events, in terms of the
// sorting key; it holds at most maxEvents of them.
func within(keys []key) (where string, args []any) {
	var tuples []string
	for i, k := range keys {
		tuples = append(tuples, fmt.Sprintf("({t%d:String}, fromUnixTimestamp64Milli(%d, 'UTC'), {o%d:String}, %d, %d)", i, k.Accepted.UnixMilli(), i, k.Partition, k.Offset))
		args = append(args, clickhouse.Named(fmt.Sprintf("t%d", i), k.Tenant), clickhouse.Named(fmt.Sprintf("o%d", i), k.Topic))
	}
	return "(" + keyColumns + ") IN (" + strings.Join(tuples, ", ") + ")", args
}

func (c tables) accepted(ctx context.Context, where string, args []any) (out []Accepted, err error) {
	var rows []struct {
		key
		ID      string `ch:"event_id"`
		Type    string `ch:"type"`
		Channel string `ch:"channel"`
		Source  string `ch:"source"`
		Trace   string `ch:"trace_id"`
		Time    string `ch:"said_time"`
		Schema  int32  `ch:"schema_id"`
		Bytes   uint32 `ch:"payload_bytes"`
	}
	query := "SELECT " + keyColumns + ", event_id, type, channel, source, trace_id, headers['" + schemas.HeaderTime + "'] AS said_time, schema_id, payload_bytes" +
		" FROM events FINAL WHERE " + where
	if err := c.conn.Select(ctx, &rows, query, args...); err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	for _, r := range rows {
		o, err := r.origin()
		if err != nil {
			return nil, err
		}
		out = append(out, Accepted{
			Origin: o, Tenant: r.Tenant, ID: r.ID, Type: r.Type, Channel: r.Channel, Source: r.Source, TraceID: r.Trace, Time: r.Time, SchemaID: r.Schema, Bytes: int(r.Bytes),
		})
	}
	return out, nil
}

func (c tables) transitions(ctx context.Context, where string, args []any) (out []schemas.Transition, err error) {
	var rows []struct {
		key
		ID         string    `ch:"event_id"`
		Status     int8      `ch:"rank"`
		Path       string    `ch:"path"`
		Reason     string    `ch:"reason"`
		Replay     string    `ch:"replay"`
		Generation int32     `ch:"generation"`
		Attempt    int32     `ch:"attempt"`
		At         time.Time `ch:"at"`
		Latency    int64     `ch:"latency_us"`
		Node       string    `ch:"node"`
		Session    string    `ch:"session"`
		Trace      string    `ch:"trace_id"`
		Home       int32     `ch:"home"`
		Cursor     int64     `ch:"cursor"`
	}
	query := "SELECT " + keyColumns + ", event_id, toInt8(status) AS rank, path, reason, replay, generation, attempt, at, latency_us, node, session, trace_id, home, cursor" +
		" FROM transitions FINAL WHERE " + where + " LIMIT 10000"
	if err := c.conn.Select(ctx, &rows, query, args...); err != nil {
		return nil, fmt.Errorf("read transitions: %w", err)
	}
	for _, r := range rows {
		o, err := r.origin()
		if err != nil {
			return nil, err
		}
		out = append(out, schemas.Transition{
			Tenant: r.Tenant, Origin: o, EventID: r.ID, Status: schemas.Status(r.Status), Path: r.Path, Reason: schemas.Reason(r.Reason), Replay: r.Replay,
			Generation: r.Generation, Attempt: r.Attempt, At: r.At.UnixMilli(), LatencyUS: r.Latency, Node: r.Node, Session: r.Session, TraceID: r.Trace, Home: r.Home, Cursor: r.Cursor,
		})
	}
	return out, nil
}

func (c tables) letters(ctx context.Context, where string, args []any) (out []Letter, err error) {
	var rows []struct {
		key
		ID         string    `ch:"event_id"`
		Generation int32     `ch:"generation"`
		Attempt    int32     `ch:"attempt"`
		Reason     string    `ch:"reason"`
		Error      string    `ch:"error"`
		Step       string    `ch:"step"`
		At         time.Time `ch:"dead_at"`
	}
	query := "SELECT " + keyColumns + ", event_id, generation, attempt, reason, error, step, dead_at FROM dead_letters FINAL WHERE " + where + " LIMIT 1000"
	if err := c.conn.Select(ctx, &rows, query, args...); err != nil {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	for _, r := range rows {
		o, err := r.origin()
		if err != nil {
			return nil, err
		}
		out = append(out, Letter{
			Origin: o, Tenant: r.Tenant, ID: r.ID, Generation: r.Generation, Attempt: r.Attempt, Reason: schemas.Reason(r.Reason), Error: r.Error, Step: r.Step, At: r.At.UnixMilli(),
		})
	}
	return out, nil
}

// receipts are those of the records that were let through.
func (c tables) receipts(ctx context.Context, transitions []schemas.Transition) (out []Receipt, err error) {
	var tuples []string
	var args []any
	for _, t := range transitions {
		if t.Cursor < 0 {
			continue
		}
		n := len(tuples)
		tuples = append(tuples, fmt.Sprintf("({t%d:String}, %d, %d, %d)", n, t.Home, schemas.Epoch(t.Origin.Topic, t.Home), t.Cursor))
		args = append(args, clickhouse.Named(fmt.Sprintf("t%d", n), t.Tenant))
		if len(tuples) == 100 {
			break // redrives and replays of one event: the first hundred tell enough
		}
	}
	if len(tuples) == 0 {
		return nil, nil
	}
	var rows []struct {
		Tenant   string    `ch:"tenant"`
		Home     int32     `ch:"home"`
		Epoch    uint64    `ch:"epoch"`
		Cursor   int64     `ch:"cursor"`
		Region   string    `ch:"region"`
		Node     string    `ch:"node"`
		Appended time.Time `ch:"appended_at"`
		At       time.Time `ch:"at"`
		Sessions int32     `ch:"sessions"`
		Latency  int64     `ch:"latency_us"`
	}
	query := "SELECT tenant, home, epoch, cursor, region, node, appended_at, at, sessions, latency_us FROM receipts FINAL" +
		" WHERE (tenant, home, epoch, cursor) IN (" + strings.Join(slices.Compact(tuples), ", ") + ") LIMIT 10000"
	if err := c.conn.Select(ctx, &rows, query, args...); err != nil {
		return nil, fmt.Errorf("read receipts: %w", err)
	}
	for _, r := range rows {
		out = append(out, Receipt{
			Tenant: r.Tenant, Home: r.Home, Epoch: r.Epoch, Cursor: r.Cursor, Region: r.Region, Node: r.Node,
			Appended: r.Appended.UnixMilli(), At: r.At.UnixMilli(), Sessions: r.Sessions, LatencyUS: r.Latency,
		})
	}
	return out, nil
}
