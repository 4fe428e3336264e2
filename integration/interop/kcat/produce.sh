#!/usr/bin/env bash
# Produces with kcat, from librdkafka's default partitioner (CRC32): bytes that `spillway schemas encode` has made.
#
# Takes the same environment as the other programs here, and SPILLWAY, the binary; prints what it sent, one JSON object a
# line: see interop_test.go.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
sed 's/PRODUCER/kcat/' "$SCHEMA" > reading.avsc
"$SPILLWAY" schemas register reading.avsc --registry-url "$REGISTRY" >&2

IFS=, read -ra tenants <<< "$TENANTS"
IFS=, read -ra codecs <<< "$CODECS"
for codec in "${codecs[@]}"; do
  for i in "${!tenants[@]}"; do
    for headers in true false; do
      run=$RUN-kcat-$codec-$i-$([ $headers = true ] && echo ce || echo bare)
      sed "s/\"RUN\"/\"$run\"/" "$READING" | "$SPILLWAY" schemas encode interop.kcat.Reading - --registry-url "$REGISTRY" > value
      args=()
      if [ $headers = true ]; then
        args=(-H ce_specversion=1.0 -H "ce_id=$run" -H ce_source=/interop/kcat -H ce_type=interop.kcat.Reading
          -H ce_subject=interop.kcat -H ce_time=2026-01-02T03:04:05.678Z -H content-type=application/avro
          -H "traceparent=00-$TRACE-00f067aa0ba902b7-01")
      fi
      # -v -v -v has kcat say where the record went.
      kcat -P -b "$KAFKA" -t spillway.events -k "${tenants[$i]}" -z "$codec" -v -v -v "${args[@]}" value 2> said
      where=$(sed -n 's/.*delivered to partition \([0-9]*\) (offset \([0-9]*\)).*/"partition":\1,"offset":\2/p' said)
      [ -n "$where" ] || { cat said >&2; exit 1; }
      echo "{\"tenant\":\"${tenants[$i]}\",\"run\":\"$run\",\"codec\":\"$codec\",\"headers\":$headers,$where}"
    done
  done
done
