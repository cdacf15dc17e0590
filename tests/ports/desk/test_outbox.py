"""Each decision reaches the corrections topic exactly once on real Kafka, through kills.

The publisher runs in its own process, which kills itself with SIGKILL at a point between the
database's commit and Kafka's; another process continues.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from confluent_kafka.admin import AdminClient

from desk.clock import now_ms
from desk.core.items import Queue
from desk.errors import KafkaUnavailable, Superseded, TryAgain
from desk.outbox import OutboxPublisher
from desk.service import reviewing
from desk.store import items
from desk.store.database import Database
from desk.stream.kafka import KafkaCorrections
from desk.stream.port import Outgoing
from tests.support.desk_outbox_process import POINTS, config_for
from tests.support.desk_world import DeskWorld, said
from tests.support.topics import Slowly, labels_of, read_corrections, read_messages
from worker.contract.records import read_correction

PROCESS = "tests.support.desk_outbox_process"
LABELS = ("refund", "delivery", "payment", "other")


def decide(world: DeskWorld, count: int) -> dict[str, str]:
    """Decide ``count`` new items; return each result's label."""
    ann = world.person("ann")
    world.add_all([(f"message {n}", {}) for n in range(count)])
    made = {}
    for n in range(count):
        task = reviewing.next_item(world.desk, ann, Queue())
        assert task is not None
        label = LABELS[n % len(LABELS)]
        reviewing.decide(
            world.desk,
            ann,
            task.item_id,
            said(world.request(), label),
        )
        made[world.item(task.item_id).result_id] = label
    return made


def written(servers: str, topic: str) -> list[tuple[str, str]]:
    """What a reader of the topic sees: result ids and labels."""
    return [(each.id, each.label) for each in read_corrections(servers, topic)]


class Processes:
    """Publishers as separate processes, on one database and one topic."""

    def __init__(self, url: str, servers: str, topic: str) -> None:
        self._arguments = (url, servers, topic, "desk.kills")

    def run(self, point: str = "", times: int = 0) -> int:
        """Run one to its end; return its exit code, negative for a signal."""
        done = subprocess.run(
            [sys.executable, "-m", PROCESS, *self._arguments, point, str(times)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode in {0, -signal.SIGKILL}, done.stderr
        return done.returncode


@pytest.fixture
def url(database: Database) -> str:
    return database.engine.url.render_as_string(hide_password=False)


@pytest.fixture
def corrections(topic: Callable[[str], str]) -> str:
    return topic("corrections")


@pytest.fixture
def sinks(bootstrap_servers: str, corrections: str) -> Iterator[Callable[[], KafkaCorrections]]:
    opened: list[KafkaCorrections] = []

    def new() -> KafkaCorrections:
        opened.append(KafkaCorrections(config_for(bootstrap_servers, corrections, corrections)))
        return opened[-1]

    yield new
    for sink in opened:
        sink.close()


def drain(publisher: OutboxPublisher) -> int:
    """Publish until nothing is left, through transient errors; return the count."""
    count = failures = 0
    while True:
        try:
            done = publisher.run_once()
        except Superseded:
            raise
        except TryAgain:
            failures += 1
            assert failures < 10
            continue
        count += done
        if not done:
            return count


def change(world: DeskWorld, made: dict[str, str], draw: random.Random) -> None:
    """Reopen one in five of these items; decide half of them again, as another label or as none."""
    ann = world.person("ann")
    with world.database.read() as tx:
        ids = items.ids_of(tx, draw.sample(sorted(made), len(made) // 5))
    for result_id, item_id in ids.items():
        reviewing.reopen(world.desk, ann, item_id, request_id=world.request())
        del made[result_id]
        if draw.random() < 0.5:
            reviewing.release_item(world.desk, ann, item_id)
            continue
        label = draw.choice((*LABELS, None))
        reviewing.decide(
            world.desk,
            ann,
            item_id,
            said(world.request(), label),
        )
        if label is not None:
            made[result_id] = label


def check_kills(
    world: DeskWorld, processes: Processes, servers: str, topic: str, *, rounds: int
) -> None:
    """Kill at every point, ``rounds`` times over, with new and changed decisions in between. Each
    record is in the topic once, in order, and a router has the reviewers' labels."""
    made: dict[str, str] = {}
    draw = random.Random(20)
    for _ in range(rounds):
        for point in draw.sample(POINTS, len(POINTS)):
            new = decide(world, 50)
            change(world, made, draw)
            made |= new
            assert processes.run(point, draw.randint(1, 2)) == -signal.SIGKILL, point
    assert processes.run() == 0
    records = read_messages(servers, topic)
    numbers = [int(dict(record.headers() or ())["clerk.desk.sequence"] or "") for record in records]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    said = [read_correction(record.value()) for record in records]
    assert labels_of(said) == made
    assert any(each.kind == "retraction" for each in said)


@pytest.mark.parametrize("rounds", [1, pytest.param(8, marks=pytest.mark.long)])
def test_a_kill_at_any_point_loses_and_doubles_nothing(
    world: DeskWorld, url: str, bootstrap_servers: str, corrections: str, rounds: int
) -> None:
    """Between the two commits, within either, before and after; 300 items a round."""
    processes = Processes(url, bootstrap_servers, corrections)
    check_kills(world, processes, bootstrap_servers, corrections, rounds=rounds)


def test_two_publishers_at_once_lose_and_double_nothing(
    world: DeskWorld,
    sinks: Callable[[], KafkaCorrections],
    bootstrap_servers: str,
    corrections: str,
) -> None:
    """The later one fences the other and knows what it published."""
    first = OutboxPublisher(world.database, sinks(), world.clock, batch=10)
    second = OutboxPublisher(world.database, sinks(), world.clock, batch=10)
    made = decide(world, 60)
    fenced = 0
    for _ in range(6):
        for publisher in (first, second):
            try:
                publisher.run_once()
                publisher.run_once()
            except TryAgain:  # Superseded, unless the client loses it on the way
                fenced += 1
    assert fenced
    drain(second)
    assert sorted(written(bootstrap_servers, corrections)) == sorted(made.items())


def test_an_expired_mark_is_found_in_the_topic(
    world: DeskWorld,
    sinks: Callable[[], KafkaCorrections],
    bootstrap_servers: str,
    corrections: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kafka deletes the offsets of an empty group after a week. The publisher was killed before it
    told the database, and starts after that."""
    made = decide(world, 30)
    first = OutboxPublisher(world.database, sinks(), now_ms, batch=20)
    with monkeypatch.context() as patched:
        patched.setattr("desk.store.outbox.published", fail)
        with pytest.raises(RuntimeError, match="killed"):
            drain(first)
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    for future in admin.delete_consumer_groups([corrections]).values():
        future.result(30)
    made |= decide(world, 5)
    drain(OutboxPublisher(world.database, sinks(), now_ms))
    assert sorted(written(bootstrap_servers, corrections)) == sorted(made.items())


def fail(*_: object) -> int:
    raise RuntimeError("killed")


def test_a_database_that_was_restored_loses_no_new_decision(
    world: DeskWorld,
    sinks: Callable[[], KafkaCorrections],
    bootstrap_servers: str,
    corrections: str,
) -> None:
    """The database's counter is behind Kafka's mark: new decisions get numbers above the mark."""
    from desk.store.tables import counters

    made = decide(world, 10)
    drain(OutboxPublisher(world.database, sinks(), world.clock))
    with world.database.write() as tx:
        tx.execute(counters.update().values(value=3))
    made |= decide(world, 10)
    drain(OutboxPublisher(world.database, sinks(), world.clock))
    assert sorted(written(bootstrap_servers, corrections)) == sorted(made.items())


def test_a_refusal_while_others_are_queued_is_named(
    bootstrap_servers: str, corrections: str
) -> None:
    """Then the client takes no more records, and its own error does not say why."""
    config = config_for(bootstrap_servers, corrections, corrections)
    larger = {**config.producer, "message.max.bytes": 10_000_000}
    sink = KafkaCorrections(replace(config, producer=larger))
    sink.start()
    last = Outgoing(2, b"2", b"{}")
    with pytest.raises(KafkaUnavailable, match="MSG_SIZE_TOO_LARGE"):
        sink.publish(Slowly([Outgoing(1, b"1", os.urandom(2_000_000)), last]))
    assert sink.start() is None
    sink.publish(Slowly([Outgoing(1, b"1", b"{}"), last]))
    sink.close()
    assert len(read_messages(bootstrap_servers, corrections)) == 2
