"""Kafka at the desk: a port, the real client, a fake."""
