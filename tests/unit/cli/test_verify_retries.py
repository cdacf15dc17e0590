"""``clerk-worker verify`` with a retry topic, on a broker in this process: pending, done, lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaPartition
from typer.testing import Result

from tests.support.kafka_world import KafkaWorld
from tests.support.mock_kafka import MockKafka
from worker.errors import EXIT_SETTINGS, EXIT_UNEXPECTED, SettingsError
from worker.records.retry import RetryPolicy
from worker.records.types import Outgoing, Postponed, Record, Rejected

pytestmark = pytest.mark.slow

Verify = Callable[..., Result]

COUNT = 12
WAITS = 5
"""The place of the record that is put on the retry topic."""


@pytest.fixture
def world(broker: MockKafka) -> KafkaWorld:
    made = KafkaWorld(broker.servers, create_topic=broker.create_topic)
    made.topics["retry"] = f"{made.run}.retry"
    broker.create_topic(made.topics["retry"], 1)
    return made


def published(world: KafkaWorld, extra: Sequence[Outgoing] = ()) -> list[Record]:
    """Records and their results, but for one that was put on the retry topic."""
    records = world.publish_inputs([b"planted text"] * COUNT)
    world.commit(world.ends())
    policy = RetryPolicy(world.topics["retry"], 60.0, 3)
    postponed = Postponed(Rejected("engine_rejected", "engine", "why", 2), 1)
    retry = policy.encode(records[WAITS], postponed, datetime.now(UTC))
    labels = [world.label(record) for n, record in enumerate(records) if n != WAITS]
    world.publish([*labels, retry, *extra])
    return records


def pass_it(world: KafkaWorld, offset: int = 1) -> None:
    """The group commits an offset of the retry topic."""
    consumer = Consumer({"bootstrap.servers": world.servers, "group.id": world.run, "log_level": 0})
    done = KafkaPartition(world.topics["retry"], 0, offset)
    consumer.commit(offsets=[done], asynchronous=False)
    consumer.close()


def test_what_waits_is_pending_and_then_done(world: KafkaWorld, verify: Verify) -> None:
    """With a count and words of its own; the late result is in nobody's order."""
    records = published(world)
    done = verify()
    assert done.exit_code == 0, done.output
    assert "input records that wait there for another attempt (pending): 1" in done.stdout
    assert "one result, or waits for another attempt" in done.stdout
    pass_it(world)
    world.publish([world.label(records[WAITS])])
    found = json.loads(verify("--json").stdout)
    assert (found["proven"], found["waiting"], found["retries"]) == (True, 0, 1)
    assert found["results"] == COUNT


def test_what_was_passed_without_a_result_is_missing(world: KafkaWorld, verify: Verify) -> None:
    """The group has committed it, and nothing came of it."""
    records = published(world)
    pass_it(world)
    done = verify("--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["faults"]["missing"], found["waiting"]) == (EXIT_UNEXPECTED, 1, 0)
    assert [offender["id"] for offender in found["offenders"]] == [records[WAITS].id]


def test_a_strangers_record_there_is_told_by_its_place(world: KafkaWorld, verify: Verify) -> None:
    """Never by its text; the dead letter that a worker makes of it is not told once more."""
    published(world, [Outgoing(world.topics["retry"], None, b"planted text")])
    found = json.loads(verify("--json").stdout)
    (offender,) = found["offenders"]
    assert offender["fault"] == "unreadable"
    assert offender["place"].startswith(f"{world.topics['retry']}-0-")
    assert "planted text" not in json.dumps(found)


def test_it_is_not_judged_as_an_input(world: KafkaWorld, verify: Verify) -> None:
    """Its messages have their place elsewhere."""
    done = verify("--topic", world.topics["retry"])
    assert isinstance(done.exception, SettingsError)
    assert done.exception.exit_code == EXIT_SETTINGS
    assert world.topics["in"] in str(done.exception)
