import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Produces with kafka-clients, from its default partitioner (murmur2). SERIALIZER says with which serializer:
 *
 * <pre>
 * java      the wire format as the registry's documentation has it, over its Confluent API: WireFormat
 * apicurio  Apicurio's own serializer, over Apicurio's own API
 * </pre>
 *
 * Takes the same environment as the other programs here and prints what it sent, one JSON object a line: see
 * interop_test.go.
 */
public final class Produce {
  static final String TOPIC = "spillway.events";
  static final String NAME = env("SERIALIZER");
  static final String RECORD = "interop." + NAME + ".Reading";

  /** What was sent, to be printed when the broker has said where it is. */
  private record Sent(String tenant, String run, String codec, boolean headers, Future<RecordMetadata> where) {
    String line() throws Exception {
      RecordMetadata at = where.get();
      return String.format("{\"tenant\":\"%s\",\"run\":\"%s\",\"codec\":\"%s\",\"headers\":%b,\"partition\":%d,\"offset\":%d}",
          tenant, run, codec, headers, at.partition(), at.offset());
    }
  }

  public static void main(String[] args) throws Exception {
    Schema schema = new Schema.Parser().parse(Files.readString(Path.of(env("SCHEMA"))).replace("PRODUCER", NAME));
    for (String codec : env("CODECS").split(",")) {
      try (KafkaProducer<String, GenericRecord> producer = open(codec, schema)) {
        List<Sent> all = new ArrayList<>();
        String[] tenants = env("TENANTS").split(",");
        for (int i = 0; i < tenants.length; i++) {
          for (boolean headers : new boolean[] {true, false}) {
            String run = env("RUN") + "-" + NAME + "-" + codec + "-" + i + "-" + (headers ? "ce" : "bare");
            ProducerRecord<String, GenericRecord> event = new ProducerRecord<>(TOPIC, tenants[i], Reading.of(schema, run));
            if (headers) {
              headers(run).forEach((k, v) -> event.headers().add(k, v.getBytes(StandardCharsets.UTF_8)));
            }
            all.add(new Sent(tenants[i], run, codec, headers, producer.send(event)));
          }
        }
        producer.flush();
        for (Sent s : all) {
          System.out.println(s.line());
        }
      }
    }
  }

  private static KafkaProducer<String, GenericRecord> open(String codec, Schema schema) throws Exception {
    Map<String, Object> config = new HashMap<>();
    config.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, env("KAFKA"));
    config.put(ProducerConfig.COMPRESSION_TYPE_CONFIG, codec);
    config.put(ProducerConfig.LINGER_MS_CONFIG, 50);
    Serializer<GenericRecord> value =
        NAME.equals("apicurio") ? Apicurio.serializer(env("REGISTRY")) : new WireFormat(env("REGISTRY"), RECORD, schema);
    return new KafkaProducer<>(config, new StringSerializer(), value);
  }

  private static Map<String, String> headers(String run) {
    return Map.of(
        "ce_specversion", "1.0",
        "ce_id", run,
        "ce_source", "/interop/" + NAME,
        "ce_type", RECORD,
        "ce_subject", "interop." + NAME,
        "ce_time", "2026-01-02T03:04:05.678Z",
        "content-type", "application/avro",
        "traceparent", "00-" + env("TRACE") + "-00f067aa0ba902b7-01");
  }

  private static String env(String name) {
    String value = System.getenv(name);
    if (value == null) {
      throw new IllegalArgumentException(name + " is not set");
    }
    return value;
  }
}
