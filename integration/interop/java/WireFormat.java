import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.EncoderFactory;
import org.apache.kafka.common.serialization.Serializer;

/** The Confluent wire format, written by Apache Avro: byte 0, the schema's id in four bytes, the body. */
final class WireFormat implements Serializer<GenericRecord> {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final HttpClient HTTP = HttpClient.newHttpClient();

  private final int id;
  private final GenericDatumWriter<GenericRecord> writer;

  WireFormat(String registry, String subject, Schema schema) throws Exception {
    ask("PUT", registry + "/config/" + subject, Map.of("compatibility", "FULL_TRANSITIVE"));
    String answer = ask("POST", registry + "/subjects/" + subject + "/versions", Map.of("schema", schema.toString()));
    id = JSON.readTree(answer).required("id").asInt();
    writer = new GenericDatumWriter<>(schema);
  }

  @Override
  public byte[] serialize(String topic, GenericRecord event) {
    try {
      ByteArrayOutputStream out = new ByteArrayOutputStream();
      out.write(0);
      out.write(ByteBuffer.allocate(4).putInt(id).array());
      BinaryEncoder encoder = EncoderFactory.get().binaryEncoder(out, null);
      writer.write(event, encoder);
      encoder.flush();
      return out.toByteArray();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static String ask(String method, String url, Map<String, String> body) throws Exception {
    HttpRequest request = HttpRequest.newBuilder(URI.create(url))
        .header("Content-Type", "application/vnd.schemaregistry.v1+json")
        .method(method, BodyPublishers.ofString(JSON.writeValueAsString(body)))
        .build();
    HttpResponse<String> answer = HTTP.send(request, HttpResponse.BodyHandlers.ofString());
    if (answer.statusCode() != 200) {
      throw new IOException(method + " " + url + ": " + answer.statusCode() + " " + answer.body());
    }
    return answer.body();
  }
}
