"""A worker takes over partitions whose last owner died with a transaction open, during a rebalance.

The worker is real, with an engine of fixed service time instead of a model.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from tests.chaos.harness import Arena, messages

COUNT, DONE = 400, 60
OPEN_FOR_MS = 10_000


def test_finished_retries_are_not_repeated(bootstrap_servers: str) -> None:
    """Its offsets are unknown until that transaction ends. If the group rebalances meanwhile,
    librdkafka 2.16 starts such a partition at the beginning, whatever is committed."""
    with ExitStack() as stack:
        arena = Arena(bootstrap_servers, stack)
        topic = arena.topics["in"]
        arena.publish(messages(COUNT))
        client: dict[str, Any] = {
            "bootstrap.servers": bootstrap_servers,
            "group.id": arena.run,
            "enable.auto.commit": False,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 6000,
            "log_level": 0,
        }
        first = member(client, topic)
        while len(first.assignment()) < arena.partitions:
            first.poll(0.1)
        done = [TopicPartition(topic, number, DONE) for number in range(arena.partitions)]
        first.commit(offsets=done, asynchronous=False)
        open_one = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "transactional.id": arena.run,
                "transaction.timeout.ms": OPEN_FOR_MS,
                "log_level": 0,
            }
        )
        open_one.init_transactions(20)
        open_one.begin_transaction()
        open_one.send_offsets_to_transaction(done, first.consumer_group_metadata(), 10)
        first.close()

        worker = arena.start_worker()
        worker.wait_until_ready()
        while "partitions.assigned" not in worker.events():
            time.sleep(0.1)
        other = member(client, topic)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            other.poll(0.1)
        other.close()

        left = COUNT - DONE * arena.partitions
        arena.wait_for(left)
        arena.read_for()
        assert sorted(arena.results) == sorted(
            f"{number}-{offset}"
            for number in range(arena.partitions)
            for offset in range(DONE, COUNT // arena.partitions)
        )


def member(client: dict[str, Any], topic: str) -> Consumer:
    consumer = Consumer(client)
    consumer.subscribe([topic])
    return consumer
