import io.apicurio.registry.resolver.config.SchemaResolverConfig;
import io.apicurio.registry.serde.avro.AvroKafkaSerializer;
import io.apicurio.registry.serde.avro.strategy.QualifiedRecordIdStrategy;
import java.util.Map;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.common.serialization.Serializer;

/**
 * Apicurio's serializer. It writes the Confluent wire format, and registers over the registry's own API. By default it
 * makes a subject of each named type in a schema and refers to it, which Spillway does not read (schema_unsupported);
 * told to dereference, it registers the schema whole.
 */
final class Apicurio {
  private static final String CONFLUENT = "/apis/ccompat/v7";

  private Apicurio() {}

  static Serializer<GenericRecord> serializer(String registry) {
    if (!registry.endsWith(CONFLUENT)) {
      throw new IllegalArgumentException(registry + " is no Apicurio Registry");
    }
    Serializer<GenericRecord> serializer = new AvroKafkaSerializer<>();
    serializer.configure(Map.of(
        SchemaResolverConfig.REGISTRY_URL, registry.replace(CONFLUENT, "/apis/registry/v3"),
        SchemaResolverConfig.AUTO_REGISTER_ARTIFACT, true,
        SchemaResolverConfig.DEREFERENCE_SCHEMA, true,
        SchemaResolverConfig.ARTIFACT_RESOLVER_STRATEGY, QualifiedRecordIdStrategy.class.getName()), false);
    return serializer;
  }
}
