import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.time.Instant;
import java.time.LocalDate;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.generic.GenericRecordBuilder;

/** The event that every producer here sends. */
final class Reading {
  private Reading() {}

  static GenericRecord of(Schema schema, String run) {
    return new GenericRecordBuilder(schema)
        .set("run", run)
        .set("text", "Grüße, 世界 🌊 \"quoted\" \\ back\n")
        .set("none", null)
        .set("some", "here")
        .set("some_long", (1L << 53) + 1)
        .set("small", 42L)
        .set("big", (1L << 53) + 1)
        .set("lowest", Long.MIN_VALUE)
        .set("ratio", 0.1)
        .set("yes", true)
        .set("raw", ByteBuffer.wrap(new byte[] {0, 1, (byte) 254, (byte) 255, 64}))
        .set("hash", new GenericData.Fixed(field(schema, "hash"), HexFormat.of().parseHex("deadbeef")))
        .set("at", Instant.parse("2026-01-02T03:04:05.678Z").toEpochMilli())
        .set("day", (int) LocalDate.parse("2026-01-02").toEpochDay())
        .set("price", ByteBuffer.wrap(new BigDecimal("-1234.50").unscaledValue().toByteArray()))
        .set("state", new GenericData.EnumSymbol(field(schema, "state"), "HALF_OPEN"))
        .set("grid", List.of(Map.of("a", List.of(1L, 2L), "ä", List.of()), Map.of(), Map.of("z", List.of((1L << 53) + 1, -1L))))
        .set("lines", lines(field(schema, "lines").getElementType()))
        .set("filler", "spillway ".repeat(200))
        .build();
  }

  private static Schema field(Schema schema, String name) {
    return schema.getField(name).schema();
  }

  private static List<GenericRecord> lines(Schema line) {
    List<GenericRecord> all = new ArrayList<>();
    all.add(new GenericRecordBuilder(line).set("sku", "s-1").set("count", 3).build());
    all.add(new GenericRecordBuilder(line).set("sku", "s-2").set("count", null).build());
    return all;
  }
}
