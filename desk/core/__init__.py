"""The desk's rules, without a database, Kafka or a clock."""
