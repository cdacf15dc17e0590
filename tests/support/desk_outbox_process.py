"""The outbox's publisher in its own process, which kills itself at a given point.

    python -m tests.support.desk_outbox_process URL SERVERS TOPIC NAME POINT TIMES

Ends when nothing is left to publish. POINT is one of ``POINTS``; when it is passed for the TIMES-th
time the process kills itself with SIGKILL; 0: never.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from confluent_kafka import Producer

import desk.stream.kafka as edge
from desk.clock import now_ms
from desk.errors import TryAgain
from desk.outbox import OutboxPublisher
from desk.store.database import Database
from desk.stream.config import KafkaConfig, build_config

POINTS = (
    "sequenced",  # numbers are in the database, nothing is in Kafka
    "begun",  # a transaction is open
    "produced",  # the broker has the records, uncommitted
    "marked",  # and the mark too
    "committed",  # everything is committed, and the database does not know
    "recorded",  # the database knows
)

_left = {"point": "", "times": 0}


def passing(point: str) -> None:
    """Die here, if this is the time."""
    if point == _left["point"]:
        _left["times"] -= 1  # type: ignore[operator]
        if _left["times"] == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class DyingProducer(Producer):
    """The real one, with places to die at."""

    def begin_transaction(self) -> None:
        super().begin_transaction()
        passing("begun")

    def flush(self, *arguments: Any) -> int:
        left = super().flush(*arguments)
        passing("produced")
        return left

    def send_offsets_to_transaction(self, *arguments: Any) -> None:
        super().send_offsets_to_transaction(*arguments)
        passing("marked")

    def commit_transaction(self, *arguments: Any) -> None:
        super().commit_transaction(*arguments)
        passing("committed")


def config_for(servers: str, topic: str, name: str) -> KafkaConfig:
    """The edge's configuration on a local broker."""
    return build_config(
        bootstrap_servers=servers,
        name=name,
        corrections_topic=topic,
        security={},
        client={"log_level": 0},
        consumer={},
        producer={},
        create_partitions=3,
    )


def main() -> None:
    url, servers, topic, name, point, times = sys.argv[1:]
    _left.update(point=point, times=int(times))
    setattr(edge, "Producer", DyingProducer)  # noqa: B010 - its name there is not exported
    database = Database(url)
    sink = edge.KafkaCorrections(config_for(servers, topic, name))
    publisher = OutboxPublisher(database, sink, now_ms, batch=20)
    publish = sink.publish

    def publish_after_sequence(records: Any) -> None:
        passing("sequenced")
        publish(records)

    sink.publish = publish_after_sequence  # type: ignore[method-assign]
    idle = 0
    while idle < 2:
        try:
            done = publisher.run_once()
        except TryAgain as error:
            print(f"again: {error}", file=sys.stderr)
            continue
        if done:
            passing("recorded")
        idle = 0 if done else idle + 1
    sink.close()
    database.close()


if __name__ == "__main__":
    main()
