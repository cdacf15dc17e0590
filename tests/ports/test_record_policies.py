"""Unusual records on real Kafka, with worker processes: oversized ones, a broken input."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import cast

import pytest
from confluent_kafka import Message, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from tests.chaos.harness import Arena, messages
from tests.support.topics import create_topics, read_messages
from worker.errors import EXIT_STREAM

LARGE = 2_000_000


@pytest.fixture
def arena(bootstrap_servers: str) -> Iterator[Arena]:
    with ExitStack() as stack:
        yield Arena(bootstrap_servers, stack, partitions=1)


def configure(arena: Arena, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, arena.topics[topic], incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": arena.servers})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(timeout=20)


def headers_of(message: Message) -> dict[str, bytes]:
    return dict(cast("list[tuple[str, bytes]]", message.headers()))


def read_dead_letters(arena: Arena) -> dict[bytes, Message]:
    """Dead letters by the offset of their record."""
    letters = read_messages(arena.servers, arena.topics["dead"])
    return {headers_of(letter)["clerk.source.offset"]: letter for letter in letters}


def test_a_2_mb_record_is_a_dead_letter_with_its_value_if_it_fits(arena: Arena) -> None:
    """The worker and the neighbouring messages are not affected."""
    configure(arena, "in", "max.message.bytes", "10000000")
    worker = arena.start_worker()
    worker.wait_until_ready()
    producer = Producer({"bootstrap.servers": arena.servers, "message.max.bytes": 5_000_000})
    good = messages(4)
    text, noise = (b"this is not a JSON. " * LARGE)[:LARGE], os.urandom(LARGE)
    for value in (good[0], text, good[1], noise, noise, good[2], good[3]):
        producer.produce(arena.topics["in"], value)
    assert producer.flush(30) == 0
    until = time.monotonic() + 60
    while len(set(arena.results)) < 7:
        arena.read_for(0.5)
        worker.check()
        assert time.monotonic() < until, sorted(set(arena.results))
    assert arena.stop(worker) == 0
    letters = read_dead_letters(arena)
    assert letters[b"1"].value() == text
    for offset in (b"3", b"4"):
        assert letters[offset].value() is None
        assert headers_of(letters[offset])["clerk.payload.omitted.bytes"] == str(LARGE).encode()
    arena.verdict(7)


def test_a_record_refused_by_the_output_topic_is_a_dead_letter(arena: Arena) -> None:
    """A compacted topic accepts no record without a key, and the broker refuses the whole batch."""
    configure(arena, "out", "cleanup.policy", "compact")
    configure(arena, "review", "cleanup.policy", "compact")
    producer = Producer({"bootstrap.servers": arena.servers})
    for number, value in enumerate(messages(200)):
        producer.produce(arena.topics["in"], value, key=None if number == 70 else str(number))
    assert producer.flush(30) == 0
    worker = arena.start_worker()
    until = time.monotonic() + 60
    while len(set(arena.results)) < 200:
        arena.read_for(0.5)
        worker.check()
        assert time.monotonic() < until, len(set(arena.results))
    assert arena.stop(worker) == 0
    [(offset, letter)] = read_dead_letters(arena).items()
    headers = headers_of(letter)
    assert (offset, headers["clerk.reason"]) == (b"70", b"output_refused")
    assert b"a compacted topic needs a key" in headers["clerk.error"]
    arena.verdict(200)


def test_a_topic_that_is_deleted_and_created_again_loses_no_message(
    bootstrap_servers: str,
) -> None:
    """The worker ends, and the next one does not trust the committed offset."""
    with ExitStack() as stack:
        arena = Arena(bootstrap_servers, stack, partitions=1)
        worker = arena.start_worker()
        arena.publish(messages(100))
        arena.wait_for(100)
        admin = AdminClient({"bootstrap.servers": arena.servers})
        for deleted in admin.delete_topics([arena.topics["in"]]).values():
            deleted.result(timeout=20)
        time.sleep(1)
        create_topics(arena.servers, [arena.topics["in"]], 1)
        arena.publish(messages(120))
        assert worker.child.wait(60) == EXIT_STREAM
        assert "was deleted and created again" in worker.log_path.read_text()
        arena.read_for(1)
        before = len(arena.results)
        arena._alive.remove(worker)
        arena.start_worker()
        arena.wait_for(before + 120)
        assert set(arena.results[before:]) == {f"0-{offset}" for offset in range(120)}
