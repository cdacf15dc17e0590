"""What decides at the desk, without a database, Kafka or a clock."""
