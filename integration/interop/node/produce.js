// Produces with kafkajs and @kafkajs/confluent-schema-registry, from kafkajs' default partitioner (murmur2).
//
// Takes the same environment as the other programs here and prints what it sent, one JSON object a line: see
// interop_test.go.
'use strict'
const fs = require('fs')
const { Kafka, logLevel, CompressionTypes, CompressionCodecs } = require('kafkajs')
const { SchemaRegistry, SchemaType } = require('@kafkajs/confluent-schema-registry')
const avro = require('avsc')
const SnappyCodec = require('kafkajs-snappy')
const LZ4Codec = require('@2l/kafkajs-lz4')
const zstd = require('@mongodb-js/zstd')

const { KAFKA, REGISTRY, TENANTS, RUN, CODECS, SCHEMA, TRACE } = process.env

// kafkajs brings gzip; each other codec is handed to it.
CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
CompressionCodecs[CompressionTypes.LZ4] = new LZ4Codec().codec
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: encoder => zstd.compress(encoder.buffer),
  decompress: buffer => zstd.decompress(buffer),
})
const types = { none: 'None', gzip: 'GZIP', snappy: 'Snappy', lz4: 'LZ4', zstd: 'ZSTD' }

// A JavaScript number holds no long beyond 2^53: avsc is given BigInt, as its documentation does. A time stays a number.
const long = avro.types.LongType.__with({
  fromBuffer: buf => buf.readBigInt64LE(),
  toBuffer: n => { const buf = Buffer.alloc(8); buf.writeBigInt64LE(n); return buf },
  fromJSON: BigInt,
  toJSON: Number,
  isValid: n => typeof n === 'bigint',
  compare: (a, b) => (a === b ? 0 : a < b ? -1 : 1),
})

const reading = run => ({
  run,
  text: 'Grüße, 世界 🌊 "quoted" \\ back\n',
  none: null,
  some: 'here',
  some_long: 9007199254740993n,
  small: 42n,
  big: 9007199254740993n,
  lowest: -(2n ** 63n),
  ratio: 0.1,
  yes: true,
  raw: Buffer.from([0, 1, 254, 255, 64]),
  hash: Buffer.from('deadbeef', 'hex'),
  at: Date.UTC(2026, 0, 2, 3, 4, 5, 678),
  day: Date.UTC(2026, 0, 2) / 86400000,
  price: Buffer.from([0xfe, 0x1d, 0xc6]), // -123450
  state: 'HALF_OPEN',
  grid: [{ a: [1n, 2n], ä: [] }, {}, { z: [9007199254740993n, -1n] }],
  lines: [{ sku: 's-1', count: 3 }, { sku: 's-2', count: null }],
  filler: 'spillway '.repeat(200),
})

const headers = run => ({
  ce_specversion: '1.0',
  ce_id: run,
  ce_source: '/interop/node',
  ce_type: 'interop.node.Reading',
  ce_subject: 'interop.node',
  ce_time: '2026-01-02T03:04:05.678Z',
  'content-type': 'application/avro',
  traceparent: `00-${TRACE}-00f067aa0ba902b7-01`,
})

async function main () {
  const registry = new SchemaRegistry({ host: REGISTRY }, {
    [SchemaType.AVRO]: { typeHook: schema => ((schema.type || schema) === 'long' && !schema.logicalType ? long : undefined) },
  })
  const schema = fs.readFileSync(SCHEMA, 'utf8').replace('PRODUCER', 'node')
  const { id } = await registry.register({ type: SchemaType.AVRO, schema }, { subject: 'interop.node.Reading', compatibility: 'FULL_TRANSITIVE' })

  const producer = new Kafka({ brokers: [KAFKA], logLevel: logLevel.ERROR }).producer()
  await producer.connect()
  for (const codec of CODECS.split(',')) {
    for (const [i, tenant] of TENANTS.split(',').entries()) {
      const both = [true, false].map(h => ({ run: `${RUN}-node-${codec}-${i}-${h ? 'ce' : 'bare'}`, headers: h }))
      const [batch] = await producer.send({
        topic: 'spillway.events',
        compression: CompressionTypes[types[codec]],
        messages: await Promise.all(both.map(async e => ({
          key: tenant, value: await registry.encode(id, reading(e.run)), headers: e.headers ? headers(e.run) : undefined,
        }))),
      })
      both.forEach((e, k) => console.log(JSON.stringify({
        tenant, codec, ...e, partition: batch.partition, offset: Number(batch.baseOffset) + k,
      })))
    }
  }
  await producer.disconnect()
}

main().catch(e => { console.error(e); process.exit(1) })
