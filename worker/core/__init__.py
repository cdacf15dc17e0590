"""The pure core: decide, order, count. Nothing here knows Kafka, vLLM or the time of day."""
