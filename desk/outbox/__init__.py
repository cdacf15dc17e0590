"""From the database to Kafka: each decision becomes one correction."""
