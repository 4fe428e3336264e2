"""Produces with confluent-kafka: its registry client, its AvroSerializer, its default partitioner (CRC32).

Takes the same environment as the other programs here and prints what it sent, one JSON object a line: see interop_test.go.
"""

import json
import os
import sys
from datetime import date, datetime, timezone
from decimal import Decimal

from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient, record_subject_name_strategy, topic_record_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext, StringSerializer

env = os.environ
topic = "spillway.events"
with open(env["SCHEMA"], encoding="utf-8") as f:
    schema = f.read().replace("PRODUCER", "python")
record = "interop.python.Reading"


def reading(run):
    return {
        "run": run,
        "text": 'Grüße, 世界 🌊 "quoted" \\ back\n',
        "none": None,
        "some": "here",
        "some_long": 2**53 + 1,
        "small": 42,
        "big": 2**53 + 1,
        "lowest": -(2**63),
        "ratio": 0.1,
        "yes": True,
        "raw": bytes([0, 1, 254, 255, 64]),
        "hash": bytes.fromhex("deadbeef"),
        "at": datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=timezone.utc),
        "day": date(2026, 1, 2),
        "price": Decimal("-1234.50"),
        "state": "HALF_OPEN",
        "grid": [{"a": [1, 2], "ä": []}, {}, {"z": [2**53 + 1, -1]}],
        "lines": [{"sku": "s-1", "count": 3}, {"sku": "s-2", "count": None}],
        "filler": "spillway " * 200,
    }


def headers(run):
    return {
        "ce_specversion": "1.0",
        "ce_id": run,
        "ce_source": "/interop/python",
        "ce_type": record,
        "ce_subject": "interop.python",
        "ce_time": "2026-01-02T03:04:05.678Z",
        "content-type": "application/avro",
        "traceparent": "00-" + env["TRACE"] + "-00f067aa0ba902b7-01",
    }


def serializers(registry):
    """One for each way to name a subject; the first is what a serializer does that is told nothing (TopicNameStrategy)."""
    ways = [("spillway.events-value", None), (record, record_subject_name_strategy),
            (topic + "-" + record, topic_record_subject_name_strategy)]
    out = []
    for subject, strategy in ways:
        registry.set_compatibility(subject_name=subject, level="FULL_TRANSITIVE")
        out.append(AvroSerializer(registry, schema, conf={"subject.name.strategy": strategy} if strategy else None))
    return out


def sent(tenant, run, codec, with_headers):
    def report(err, msg):
        if err is not None:
            sys.exit(f"{codec}: {err}")
        print(json.dumps({"tenant": tenant, "run": run, "codec": codec, "headers": with_headers,
                          "partition": msg.partition(), "offset": msg.offset()}), flush=True)

    return report


def main():
    registry = SchemaRegistryClient({"url": env["REGISTRY"]})
    values, keys = serializers(registry), StringSerializer("utf_8")
    for codec in env["CODECS"].split(","):
        producer = Producer({"bootstrap.servers": env["KAFKA"], "compression.type": codec, "linger.ms": 50})
        for i, tenant in enumerate(env["TENANTS"].split(",")):
            for with_headers in (True, False):
                run = f"{env['RUN']}-python-{codec}-{i}-{'ce' if with_headers else 'bare'}"
                producer.produce(
                    topic,
                    key=keys(tenant),
                    value=values[i % len(values)](reading(run), SerializationContext(topic, MessageField.VALUE)),
                    headers=headers(run) if with_headers else None,
                    on_delivery=sent(tenant, run, codec, with_headers),
                )
        if producer.flush(30):
            sys.exit(f"{codec}: not all was acknowledged within 30 s")


main()
