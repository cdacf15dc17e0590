"""The demo's Kafka client and stream of samples, on an in-process broker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from tests.support.mock_kafka import MockKafka
from tests.support.rig import make_kafka_config
from worker.demo.client import Publisher, Seen, Watcher, create_demo_topics
from worker.demo.generate import generate
from worker.demo.kafka_files import BrokerError
from worker.demo.plan import DEAD, INPUT, OUTPUT, REVIEW
from worker.offline.records import read_range
from worker.stream.topics import RecordRange

KINDS = {OUTPUT: "output", REVIEW: "review", DEAD: "dead letter"}


@pytest.fixture
def topics(broker: MockKafka) -> None:
    for topic in (INPUT, *KINDS):
        broker.create_topic(topic)


@pytest.fixture
def watcher(broker: MockKafka, topics: None) -> Iterator[Watcher]:
    made = Watcher(broker.servers, KINDS)
    yield made
    made.close()


def publish(broker: MockKafka, topic: str, value: object, **headers: str) -> None:
    producer = Producer({"bootstrap.servers": broker.servers, "log_level": 0})
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    pairs = [(name.replace("_", "."), text.encode()) for name, text in headers.items()]
    producer.produce(topic, raw, headers=pairs)  # type: ignore[arg-type]
    assert producer.flush(5) == 0


def label(message_id: str, **changes: object) -> dict[str, object]:
    """An output record, as far as the demo reads it."""
    source = {"timestamp": "2026-03-02T06:00:00.500Z"}
    return {"message_id": message_id, "label": "refund", "confidence": 0.9, "source": source,
            **changes}  # fmt: skip


def watch(watcher: Watcher, count: int) -> list[Seen]:
    found: list[Seen] = []
    until = time.monotonic() + 5
    while len(found) < count and time.monotonic() < until:
        found += watcher.poll(0.05)
    return found


def test_results_of_every_kind_are_seen_with_their_times(
    broker: MockKafka, watcher: Watcher
) -> None:
    publish(broker, OUTPUT, label("1"))
    publish(broker, REVIEW, label("2"))
    stamp = "1772431200500"
    publish(broker, DEAD, {"id": "3"}, clerk_reason="too_long", clerk_source_timestamp=stamp)
    found = {one.message_id: one for one in watch(watcher, 3)}
    assert {name: one.kind for name, one in found.items()} == {
        "1": "output", "2": "review", "3": "dead letter",
    }  # fmt: skip
    assert {one.published_at for one in found.values()} == {1772431200.5}
    assert found["3"].value is None
    assert found["3"].headers["clerk.reason"] == "too_long"
    assert found["1"].value is not None
    assert found["1"].value["label"] == "refund"


def test_topics_that_are_there_are_no_error(broker: MockKafka, topics: None) -> None:
    create_demo_topics(broker.servers, {INPUT: 4, OUTPUT: 4})
    with pytest.raises(BrokerError, match=f"^Kafka at {broker.servers}: Topic Admin API"):
        create_demo_topics(broker.servers, {"support.more": 1})


def test_a_message_is_published_as_a_ticketing_system_would(
    broker: MockKafka, topics: None
) -> None:
    publisher = Publisher(broker.servers, INPUT)
    publisher.publish("1", "wo ist mein Päckchen?")
    publisher.flush()
    config = make_kafka_config(bootstrap_servers=broker.servers)
    (record,) = read_range(config, INPUT, RecordRange(last=10), 10)
    assert record.key == b"1"
    assert (record.value or b"").decode() == '{"id": "1", "message": "wo ist mein Päckchen?"}'


def test_a_stream_ends_when_each_message_came_back(
    broker: MockKafka, topics: None, capsys: pytest.CaptureFixture[str]
) -> None:
    results = iter([label("a", confidence=0.875), label("b")])

    def answer() -> bool:
        if (result := next(results, None)) is not None:
            publish(broker, OUTPUT if result["message_id"] == "a" else REVIEW, result)
        return False

    assert generate(broker.servers, rate=200.0, count=2, stopped=answer) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "2 messages published, 2 results seen"
    first, second = sorted(lines[:2])
    assert first.startswith("a refund 88% ")
    assert first.endswith(" ms")
    assert second.endswith(" ms (for review)")
