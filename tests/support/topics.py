"""What is in a topic, read as a stranger would."""

from __future__ import annotations

from confluent_kafka import Consumer, TopicPartition


def read_all(servers: str, topic: str) -> list[bytes | None]:
    """Every committed record of a topic now."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "reader",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    values: list[bytes | None] = []
    ended = 0
    while ended < len(partitions):
        message = consumer.poll(20)
        assert message is not None
        if message.error():
            ended += 1
        else:
            values.append(message.value())
    consumer.close()
    return values
