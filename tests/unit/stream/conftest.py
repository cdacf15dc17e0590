"""Configurations and records for tests with the broker in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import Producer

from tests.support.mock_kafka import MockKafka
from tests.support.rig import make_kafka_config
from worker.stream.kafka_config import KafkaConfig
from worker.stream.topics import Topics

TOPICS = Topics(("in",), "out", "review", "dead")


@pytest.fixture
def configured(broker: MockKafka) -> Callable[..., KafkaConfig]:
    """Returns a configuration for the broker; arguments override settings."""

    def make(**changes: Any) -> KafkaConfig:
        given = {
            "bootstrap_servers": broker.servers,
            "topics": TOPICS,
            "start_timeout_s": 5.0,
            **changes,
        }
        return make_kafka_config(**given)

    return make


@pytest.fixture
def publish(broker: MockKafka) -> Callable[..., None]:
    """Publishes values to a partition, one a second from ``at_ms`` on."""
    producer = Producer({"bootstrap.servers": broker.servers, "linger.ms": 0, "log_level": 0})

    def values(topic: str, partition: int, contents: Sequence[bytes], at_ms: int = 1000) -> None:
        for number, value in enumerate(contents):
            time_ms = at_ms + 1000 * number
            producer.produce(topic, value, partition=partition, timestamp=time_ms)
        assert producer.flush(10) == 0

    return values
