-- Tables of the audit. Every row holds the identity of what it records in its
-- sorting key, so a row that is inserted twice is one row: read over the key
-- (FINAL, GROUP BY or DISTINCT), a repeat changes no answer.
--
-- The identity of an event is its origin: topic id of events, partition, offset
-- of its first append. accepted_at is the broker's time of that append; tables
-- are partitioned and expire by it, so all rows of one event meet in one day.
-- Tenants come first in each key: one tenant's history is one contiguous read.

CREATE TABLE IF NOT EXISTS events (
    tenant           LowCardinality(String) COMMENT 'key of the record',
    accepted_at      DateTime64(3, 'UTC') COMMENT 'append time by the broker' CODEC(DoubleDelta, ZSTD(1)),
    origin_topic     LowCardinality(String) COMMENT 'topic id of events, base64url as Kafka prints it',
    origin_partition Int32,
    origin_offset    Int64 CODEC(Delta, ZSTD(1)),
    event_id         String COMMENT 'ce_id, else the origin as text' CODEC(ZSTD(1)),
    type             LowCardinality(String),
    channel          String CODEC(ZSTD(1)),
    source           String CODEC(ZSTD(1)),
    occurred_at      DateTime64(3, 'UTC') COMMENT 'ce_time, else accepted_at' CODEC(Delta, ZSTD(1)),
    region           LowCardinality(String) COMMENT 'empty: all regions of the tenant',
    class            LowCardinality(String) COMMENT 'what the producer asked for: fast, slow or empty',
    idempotency_key  String CODEC(ZSTD(1)),
    trace_id         String CODEC(ZSTD(1)),
    schema_id        Int32 COMMENT '-1: the value has no wire format header',
    headers          Map(LowCardinality(String), String) COMMENT 'all headers as they came, in order' CODEC(ZSTD(1)),
    payload          String COMMENT 'the exact value; what replay sends' CODEC(ZSTD(3)),
    payload_bytes    UInt32 MATERIALIZED length(payload) CODEC(T64, ZSTD(1)),
    INDEX ix_event event_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX ix_trace trace_id TYPE bloom_filter(0.01) GRANULARITY 4
) ENGINE = ReplacingMergeTree
PARTITION BY toDate(accepted_at)
ORDER BY (tenant, accepted_at, origin_topic, origin_partition, origin_offset)
TTL toDateTime(accepted_at) + toIntervalDay(7)
SETTINGS ttl_only_drop_parts = 1
COMMENT 'One row per accepted event';

CREATE TABLE IF NOT EXISTS transitions (
    tenant           LowCardinality(String),
    accepted_at      DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    origin_topic     LowCardinality(String),
    origin_partition Int32,
    origin_offset    Int64 CODEC(Delta, ZSTD(1)),
    generation       Int32 COMMENT 'number of redrives' CODEC(T64, ZSTD(1)),
    attempt          Int32 CODEC(T64, ZSTD(1)),
    status           Enum8('pending' = 1, 'processing' = 2, 'failed' = 3, 'delivered' = 4, 'dead' = 5, 'duplicate' = 6, 'dropped' = 7, 'cancelled' = 8)
                     COMMENT 'the number is its rank within an attempt',
    path             LowCardinality(String) COMMENT 'fast, slow, overflow, wait; empty if it ended before',
    reason           LowCardinality(String),
    replay           LowCardinality(String) COMMENT 'replay or redrive job',
    event_id         String CODEC(ZSTD(1)),
    at               DateTime64(3, 'UTC') COMMENT 'when, on the clock of the log' CODEC(Delta, ZSTD(1)),
    latency_us       Int64 COMMENT 'since accepted_at, on the writer''s clock; -1 unknown' CODEC(ZSTD(1)),
    node             LowCardinality(String),
    session          String CODEC(ZSTD(1)),
    trace_id         String CODEC(ZSTD(1)),
    home             Int32 COMMENT 'home partition; with epoch and cursor it is where receipts join',
    epoch            UInt64 CODEC(ZSTD(1)),
    cursor           Int64 COMMENT 'offset of the record let through; -1 if none was' CODEC(Delta, ZSTD(1)),
    INDEX ix_event event_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX ix_trace trace_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX ix_cursor cursor TYPE minmax GRANULARITY 1
) ENGINE = ReplacingMergeTree
PARTITION BY toDate(accepted_at)
ORDER BY (tenant, accepted_at, origin_topic, origin_partition, origin_offset, generation, attempt, status, path, reason, replay)
TTL toDateTime(accepted_at) + toIntervalDay(90)
SETTINGS ttl_only_drop_parts = 1
COMMENT 'One row per change of one event''s status';

CREATE TABLE IF NOT EXISTS receipts (
    tenant          LowCardinality(String),
    home            Int32,
    epoch           UInt64 CODEC(ZSTD(1)),
    cursor          Int64 CODEC(Delta, ZSTD(1)),
    region          LowCardinality(String),
    node            LowCardinality(String),
    appended_at     DateTime64(3, 'UTC') COMMENT 'append time of the record let through' CODEC(Delta, ZSTD(1)),
    at              DateTime64(3, 'UTC') COMMENT 'when the node said so, within a second' CODEC(Delta, ZSTD(1)),
    sessions        Int32 COMMENT 'sessions that got it from this node' CODEC(T64, ZSTD(1)),
    latency_us      Int64 COMMENT 'append to socket, slowest of these sessions' CODEC(ZSTD(1)),
    audit_partition Int32,
    audit_offset    Int64 CODEC(Delta, ZSTD(1)),
    item            UInt32 COMMENT 'place in the packed receipt' CODEC(Delta, ZSTD(1))
) ENGINE = ReplacingMergeTree
PARTITION BY toDate(appended_at)
ORDER BY (tenant, home, epoch, cursor, audit_partition, audit_offset, item)
TTL toDateTime(appended_at) + toIntervalDay(90)
SETTINGS ttl_only_drop_parts = 1
COMMENT 'One row per event and node: how many sessions got it and how fast';

CREATE TABLE IF NOT EXISTS session_ranges (
    tenant          LowCardinality(String),
    home            Int32,
    epoch           UInt64 CODEC(ZSTD(1)),
    session         String CODEC(ZSTD(1)),
    subject         String CODEC(ZSTD(1)),
    node            LowCardinality(String),
    region          LowCardinality(String),
    channel         String COMMENT 'channel or pattern' CODEC(ZSTD(1)),
    from_cursor     Int64,
    to_cursor       Int64,
    acked_cursor    Int64 COMMENT '-1: none',
    close_code      Int32 COMMENT '0 while it is open',
    opened_at       DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    at              DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    audit_partition Int32,
    audit_offset    Int64 CODEC(Delta, ZSTD(1)),
    INDEX ix_to to_cursor TYPE minmax GRANULARITY 1
) ENGINE = ReplacingMergeTree
PARTITION BY toDate(at)
ORDER BY (tenant, home, epoch, session, channel, at, audit_partition, audit_offset)
TTL toDateTime(at) + toIntervalDay(90)
SETTINGS ttl_only_drop_parts = 1
COMMENT 'What one session was sent of one channel, cumulative';

CREATE TABLE IF NOT EXISTS dead_letters (
    tenant           LowCardinality(String),
    accepted_at      DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    origin_topic     LowCardinality(String),
    origin_partition Int32,
    origin_offset    Int64 CODEC(Delta, ZSTD(1)),
    generation       Int32,
    attempt          Int32,
    replay           LowCardinality(String),
    event_id         String CODEC(ZSTD(1)),
    type             LowCardinality(String),
    channel          String CODEC(ZSTD(1)),
    source           String CODEC(ZSTD(1)),
    reason           LowCardinality(String),
    error            String CODEC(ZSTD(3)),
    step             LowCardinality(String),
    dead_at          DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    dead_partition   Int32,
    dead_offset      Int64 CODEC(Delta, ZSTD(1)),
    key              String COMMENT 'the original key' CODEC(ZSTD(1)),
    headers          Map(LowCardinality(String), String) COMMENT 'the original headers' CODEC(ZSTD(1)),
    payload          String COMMENT 'the original value; empty for over_quota, whose bytes stay in events' CODEC(ZSTD(6)),
    INDEX ix_event event_id TYPE bloom_filter(0.001) GRANULARITY 1
) ENGINE = ReplacingMergeTree
PARTITION BY toDate(accepted_at)
ORDER BY (tenant, accepted_at, origin_topic, origin_partition, origin_offset, generation, attempt)
TTL toDateTime(accepted_at) + toIntervalDay(30)
SETTINGS ttl_only_drop_parts = 1
COMMENT 'One row per dead letter, with its bytes';

CREATE TABLE IF NOT EXISTS undecodable (
    topic       LowCardinality(String),
    partition   Int32,
    offset      Int64,
    next_offset Int64 COMMENT 'offset + 1, or further where a whole batch could not be read',
    appended_at DateTime64(3, 'UTC'),
    error       String CODEC(ZSTD(3)),
    key         String CODEC(ZSTD(3)),
    value       String CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree
PARTITION BY toDate(appended_at)
ORDER BY (topic, partition, offset, appended_at)
TTL toDateTime(appended_at) + toIntervalDay(30)
SETTINGS ttl_only_drop_parts = 1
COMMENT 'Records that the sink could not read: nothing is lost, nothing stops';

CREATE TABLE IF NOT EXISTS reasons (
    reason LowCardinality(String),
    text   String
) ENGINE = ReplacingMergeTree
ORDER BY reason
COMMENT 'Each reason in a sentence';
