"""The desk on a Kafka that wants a token, which the user's function supplies. Real broker."""

from __future__ import annotations

from desk.app import kafka_security
from desk.settings import KafkaSettings
from desk.stream.config import build_config
from desk.stream.kafka import KafkaCorrections, KafkaResults
from desk.stream.port import Outgoing
from tests.support.secure_broker import SecureBroker, fresh_topics
from tests.support.secure_desk import PRINCIPALS, ways
from tests.support.topics import read_all


def test_the_desk_reads_and_writes_by_token(kafka: SecureBroker) -> None:
    """It reads results and publishes a correction, with only the function's token."""
    topics = fresh_topics()
    kafka.create_topics(topics.values())
    given = KafkaSettings(**ways(kafka)["token"])
    name = f"desk.{topics['out']}"
    kafka.allow(
        f"User:{PRINCIPALS['token']}",
        [
            ("TOPIC", topics["out"], "READ"),
            ("TOPIC", topics["review"], "READ"),  # the last correction that it wrote
            ("TOPIC", topics["review"], "WRITE"),
            ("GROUP", name, "READ"),
            ("TRANSACTIONAL_ID", name, "WRITE"),
        ],
    )
    config = build_config(
        bootstrap_servers=given.bootstrap_servers,
        name=name,
        corrections_topic=topics["review"],
        security=kafka_security(given),
        client=given.client,
        consumer=given.consumer,
        producer=given.producer,
    )
    results, sink = KafkaResults(config), KafkaCorrections(config)
    try:
        assert results.logs(topics["out"])
        sink.start()
        sink.publish([Outgoing(1, b"key", b"value")])
    finally:
        results.close()
        sink.close()
    assert read_all(kafka.servers, topics["review"]) == [b"value"]
