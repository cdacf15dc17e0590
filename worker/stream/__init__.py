"""The Kafka side: a small port, the real client behind it and a fake one for tests."""
