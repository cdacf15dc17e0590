import io.apicurio.registry.serde.avro.AvroKafkaDeserializer;
import io.apicurio.registry.serde.avro.AvroKafkaSerializer;
import io.apicurio.registry.serde.jsonschema.JsonSchemaKafkaDeserializer;
import io.apicurio.registry.serde.jsonschema.JsonSchemaKafkaSerializer;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Publishes messages and reads their labels with Apicurio's serializers: SERVERS REGISTRY INPUT OUTPUTS COUNT IN OUT. */
public class RoundTrip {
  static final String AVRO =
      "{\"type\":\"record\",\"name\":\"Message\",\"namespace\":\"support\",\"fields\":["
          + "{\"name\":\"id\",\"type\":\"string\"},{\"name\":\"message\",\"type\":\"string\"}]}";

  public static void main(String[] given) throws Exception {
    int count = Integer.parseInt(given[4]);
    Map<String, Object> common = Map.of("bootstrap.servers", given[0], "apicurio.registry.url", given[1]);
    publish(new HashMap<>(common), given[2], count, given[5].equals("avro"));
    System.out.println(read(new HashMap<>(common), List.of(given[3].split(",")), count, given[6].equals("avro")));
  }

  static void publish(Map<String, Object> settings, String topic, int count, boolean avro) throws Exception {
    settings.put("apicurio.registry.auto-register", "true");
    settings.put("apicurio.registry.artifact.schema.location", "message.schema.json");
    settings.put("apicurio.registry.serde.validation-enabled", "false");
    settings.put("key.serializer", StringSerializer.class.getName());
    settings.put("value.serializer", (avro ? AvroKafkaSerializer.class : JsonSchemaKafkaSerializer.class).getName());
    if (avro) settings.remove("apicurio.registry.artifact.schema.location");
    Schema schema = new Schema.Parser().parse(AVRO);
    try (KafkaProducer<String, Object> producer = new KafkaProducer<>(settings)) {
      for (int number = 0; number < count; number++) {
        Object value = Map.of("id", "j" + number, "message", "where is parcel " + number + "?");
        if (avro) {
          GenericRecord record = new GenericData.Record(schema);
          record.put("id", "a" + number);
          record.put("message", "where is parcel " + number + "?");
          value = record;
        }
        producer.send(new ProducerRecord<>(topic, "key" + number, value)).get();
      }
    }
  }

  static String read(Map<String, Object> settings, List<String> topics, int count, boolean avro) {
    settings.put("group.id", "java-" + System.nanoTime());
    settings.put("auto.offset.reset", "earliest");
    settings.put("isolation.level", "read_committed");
    settings.put("apicurio.registry.serde.validation-enabled", "false");
    settings.put("key.deserializer", StringDeserializer.class.getName());
    settings.put(
        "value.deserializer", (avro ? AvroKafkaDeserializer.class : JsonSchemaKafkaDeserializer.class).getName());
    int seen = 0;
    int labelled = 0;
    try (KafkaConsumer<String, Object> consumer = new KafkaConsumer<>(settings)) {
      consumer.subscribe(topics);
      long until = System.currentTimeMillis() + 60_000;
      while (seen < count && System.currentTimeMillis() < until) {
        for (ConsumerRecord<String, Object> record : consumer.poll(Duration.ofMillis(200))) {
          seen++;
          Object value = record.value();
          Object label = value instanceof GenericRecord found
              ? found.get("label")
              : ((com.fasterxml.jackson.databind.JsonNode) value).get("label");
          if (label != null) labelled++;
        }
      }
    }
    return seen + " " + labelled;
  }
}
