"""Work without Kafka: files of messages, and two adapters on the same messages."""
