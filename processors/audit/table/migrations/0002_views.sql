-- Views for analysts: the only promise of this database. Each has tenant and
-- event_id as plain columns; name both in WHERE and they answer in
-- milliseconds. Rows that were written twice count once.

CREATE OR REPLACE VIEW v_events AS
SELECT
    tenant, event_id,
    concat(origin_topic, '/', toString(origin_partition), '/', toString(origin_offset)) AS origin,
    accepted_at, type, channel, source, occurred_at, region, class, idempotency_key, trace_id, schema_id,
    payload_bytes, headers, payload
FROM events FINAL;

-- One row per event: where it stands now. A duplicate has a row of its own and
-- says nothing about the first one. On the fast path route's word is the last;
-- delivered is a receipt, and a minute without one reads unclaimed.
-- seq orders the statuses: generation, attempt, rank, and then time, all in one
-- number, so that one max holds four columns (a million events: a second).
CREATE OR REPLACE VIEW v_status_now AS
SELECT
    s.tenant AS tenant, s.event_id AS event_id,
    concat(s.origin_topic, '/', toString(s.origin_partition), '/', toString(s.origin_offset)) AS origin,
    s.accepted_at AS accepted_at,
    multiIf(s.rank != 2 OR s.path != 'fast',
                arrayElement(['pending', 'pending', 'processing', 'failed', 'delivered', 'dead', 'duplicate', 'dropped', 'cancelled'], s.rank + 1),
            r.sessions > 0, 'delivered',
            s.at < now64(3, 'UTC') - toIntervalSecond(60), 'unclaimed',
            'processing') AS status,
    s.path AS path, s.reason AS reason, s.generation AS generation, s.attempt AS attempt, s.at AS at,
    r.sessions AS sessions,
    if(r.sessions > 0, r.latency_us, s.latency_us) AS latency_us,
    s.home AS home, s.epoch AS epoch, s.cursor AS cursor
FROM (
    SELECT
        tenant, event_id, accepted_at, origin_topic, origin_partition, origin_offset,
        max(seq) AS last,
        toInt32(bitShiftRight(last, 54)) AS generation,
        toInt32(bitAnd(bitShiftRight(last, 46), 255)) AS attempt,
        toInt8(bitAnd(bitShiftRight(last, 42), 15)) AS rank,
        fromUnixTimestamp64Milli(toInt64(bitAnd(last, bitShiftLeft(toUInt64(1), 42) - 1)), 'UTC') AS at,
        argMax(way, seq) AS path, argMax(why, seq) AS reason, argMax(took, seq) AS latency_us,
        max(house) AS home, max(era) AS epoch, max(place) AS cursor
    FROM (
        SELECT
            tenant, event_id, accepted_at, origin_topic, origin_partition, origin_offset,
            bitShiftLeft(toUInt64(least(generation, 1023)), 54) + bitShiftLeft(toUInt64(least(attempt, 255)), 46) + bitShiftLeft(toUInt64(status), 42)
                + toUInt64(toUnixTimestamp64Milli(at)) AS seq,
            path AS way, reason AS why, latency_us AS took, home AS house, epoch AS era, cursor AS place
        FROM transitions
        WHERE reason != 'stale_return' AND (replay = '' OR generation > 0)
        UNION ALL
        SELECT
            tenant, event_id, accepted_at, origin_topic, origin_partition, origin_offset,
            toUInt64(toUnixTimestamp64Milli(accepted_at)), '', '', toInt64(-1), toInt32(-1), toUInt64(0), toInt64(-1)
        FROM events
    )
    GROUP BY tenant, event_id, accepted_at, origin_topic, origin_partition, origin_offset
) AS s
LEFT JOIN (
    SELECT tenant, home, epoch, cursor, sum(sessions) AS sessions, max(latency_us) AS latency_us
    FROM receipts FINAL
    GROUP BY tenant, home, epoch, cursor
) AS r ON s.tenant = r.tenant AND s.home = r.home AND s.epoch = r.epoch AND s.cursor = r.cursor;

-- One row per thing that happened to an event; order by at, step.
CREATE OR REPLACE VIEW v_event_timeline AS
SELECT
    tenant, event_id,
    concat(origin_topic, '/', toString(origin_partition), '/', toString(origin_offset)) AS origin,
    accepted_at, at, step, what, path, reason, detail, generation, attempt, sessions, latency_us, node, trace_id
FROM (
    SELECT
        tenant, event_id, accepted_at, origin_topic, origin_partition, origin_offset,
        accepted_at AS at, toUInt8(0) AS step, 'accepted' AS what, '' AS path, '' AS reason,
        concat(max(type), ' on ', max(channel), ' from ', max(source)) AS detail,
        toInt32(0) AS generation, toInt32(0) AS attempt, toInt64(0) AS sessions, toInt64(0) AS latency_us, '' AS node, any(trace_id) AS trace_id
    FROM events
    GROUP BY tenant, event_id, accepted_at, origin_topic, origin_partition, origin_offset
    UNION ALL
    SELECT DISTINCT
        tenant, event_id, accepted_at, origin_topic, origin_partition, origin_offset,
        at, toUInt8(toInt8(status)), toString(status), path, reason, '', generation, attempt, toInt64(0), latency_us, node, trace_id
    FROM transitions
    UNION ALL
    SELECT
        t.tenant, t.event_id, t.accepted_at, t.origin_topic, t.origin_partition, t.origin_offset,
        r.at, toUInt8(9), 'written to sockets', t.path, '', r.region, t.generation, t.attempt, toInt64(r.sessions), r.latency_us, r.node, t.trace_id
    FROM (
        SELECT DISTINCT tenant, home, epoch, cursor, region, node, at, sessions, latency_us, audit_partition, audit_offset, item
        FROM receipts
    ) AS r
    INNER JOIN (
        SELECT DISTINCT
            tenant, event_id, accepted_at, origin_topic, origin_partition, origin_offset, path, generation, attempt, trace_id, home, epoch, cursor
        FROM transitions
        WHERE cursor >= 0 AND status = 'processing'
    ) AS t ON r.tenant = t.tenant AND r.home = t.home AND r.epoch = t.epoch AND r.cursor = t.cursor
    UNION ALL
    SELECT
        tenant, event_id, accepted_at, origin_topic, origin_partition, origin_offset,
        dead_at, toUInt8(10), 'dead letter', '', reason, any(concat(step, ': ', error)), generation, attempt, toInt64(0), toInt64(-1), '', ''
    FROM dead_letters
    GROUP BY tenant, event_id, accepted_at, origin_topic, origin_partition, origin_offset, dead_at, reason, generation, attempt
);

-- Append to socket per minute (path fast), accepted to done (path slow).
CREATE OR REPLACE VIEW v_latency_minute AS
SELECT
    tenant, minute, path, region, events, sessions,
    round(q[1] / 1000, 3) AS p50_ms, round(q[2] / 1000, 3) AS p90_ms, round(q[3] / 1000, 3) AS p99_ms, round(q[4] / 1000, 3) AS p999_ms,
    max_us / 1000 AS max_ms
FROM (
    SELECT
        tenant, toStartOfMinute(appended_at) AS minute, 'fast' AS path, region,
        uniqExact(home, epoch, cursor) AS events, sum(sessions) AS sessions,
        quantilesTDigest(0.5, 0.9, 0.99, 0.999)(latency_us) AS q, max(latency_us) AS max_us
    FROM receipts FINAL
    GROUP BY tenant, minute, region
    UNION ALL
    SELECT
        tenant, toStartOfMinute(at), 'slow', '',
        count(), toInt64(0),
        quantilesTDigest(0.5, 0.9, 0.99, 0.999)(latency_us), max(latency_us)
    FROM transitions FINAL
    WHERE status = 'delivered' AND latency_us >= 0
    GROUP BY tenant, toStartOfMinute(at)
);

CREATE OR REPLACE VIEW v_dead_letters AS
SELECT
    tenant, event_id,
    concat(origin_topic, '/', toString(origin_partition), '/', toString(origin_offset)) AS origin,
    accepted_at, dead_at, reason, error, step, attempt, generation, type, channel, source, key, headers, payload
FROM dead_letters FINAL;
