"""Kafka records: input, output, dead letters, and retries."""
