"""PostgreSQL itself is killed while people decide and corrections are published; a standby."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from desk.clock import now_ms
from desk.core.items import Queue
from desk.errors import ClaimLost, DatabaseUnavailable, TryAgain
from desk.outbox import OutboxPublisher
from desk.service import reviewing
from desk.service.context import Policy
from desk.store.database import Database
from desk.store.migrate import migrate
from desk.store.types import Person
from desk.stream.kafka import KafkaCorrections
from tests.support.desk_outbox_process import config_for
from tests.support.desk_world import DeskWorld
from tests.support.local_postgres import PROGRAMS, LocalPostgres
from tests.support.topics import read_all
from worker.contract.records import read_correction

ITEMS = 400
KILLS = 5


@pytest.fixture
def server() -> Iterator[LocalPostgres]:
    if not PROGRAMS:
        assert not os.environ.get("CI"), "PostgreSQL is not here: apt-get install postgresql"
        pytest.skip("PostgreSQL is not here: apt-get install postgresql")
    with LocalPostgres() as running:
        yield running


def patiently(call: Callable[[], object]) -> object:
    """Do something again while the database is away, as a page does."""
    until = time.monotonic() + 60
    while True:
        try:
            return call()
        except DatabaseUnavailable:
            assert time.monotonic() < until
            time.sleep(0.05)


class Reviewer(threading.Thread):
    """Decides until nothing is left; a request that was not answered is sent again."""

    def __init__(self, world: DeskWorld, person: Person) -> None:
        super().__init__(daemon=True)
        self.world, self.person = world, person
        self.failure: BaseException | None = None
        self.done = 0

    def run(self) -> None:
        try:
            while (task := patiently(self.next)) is not None:
                request = uuid.uuid4().hex
                try:
                    patiently(partial(self.decide, task, request))
                except ClaimLost:
                    continue
                self.done += 1
        except BaseException as error:
            self.failure = error
            raise

    def next(self) -> object:
        return reviewing.next_item(self.world.desk, self.person, Queue())

    def decide(self, task: object, request: str) -> object:
        item_id = task.item_id  # type: ignore[attr-defined]
        return reviewing.decide(
            self.world.desk, self.person, item_id, reviewing.Said(request, "label", "refund")
        )


def test_each_decision_arrives_once_though_the_server_is_killed(
    server: LocalPostgres, bootstrap_servers: str, topic: Callable[[str], str]
) -> None:
    """Four people, 400 items, five kills of the server: every item is decided, and has one
    correction."""
    database = Database(server.url(server.create()))
    migrate(database)
    world = DeskWorld(database, policy=Policy(publish_delay_ms=0), clock=now_ms)  # type: ignore[arg-type]
    world.add_all([(f"message {n}", {}) for n in range(ITEMS)])
    team = [Reviewer(world, world.person(f"person{n}")) for n in range(4)]
    corrections = topic("corrections")
    sink = KafkaCorrections(config_for(bootstrap_servers, corrections, corrections))
    publisher = OutboxPublisher(database, sink, now_ms, batch=20)
    published = 0
    kills = 0
    for reviewer in team:
        reviewer.start()
    until = time.monotonic() + 200
    while published < ITEMS:
        assert time.monotonic() < until, (published, [each.done for each in team])
        with contextlib.suppress(TryAgain):
            published += publisher.run_once()
        if kills < KILLS and sum(each.done for each in team) > (kills + 0.5) * ITEMS / KILLS:
            server.kill()
            kills += 1
            server.start()
        over = kills == KILLS and not any(each.is_alive() for each in team)
        if over and idle(publisher):
            break
    for reviewer in team:
        reviewer.join(60)
        assert reviewer.failure is None
    assert kills == KILLS
    sink.close()
    database.close()
    read = [read_correction(value).id for value in read_all(bootstrap_servers, corrections)]
    assert max(Counter(read).values()) == 1
    assert len(read) == ITEMS


def test_a_desk_leaves_a_standby_by_itself(server: LocalPostgres) -> None:
    """After a failover an address may lead to a server that only reads; connections to it are given
    up, and the next ones are to the new primary."""
    name = server.create()
    primary = Database(server.url(name))
    migrate(primary)
    DeskWorld(primary).add()
    owner = server.connect("postgres")
    owner.run(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    moved = Database(server.url(name))
    world = DeskWorld(moved)
    with pytest.raises(DatabaseUnavailable, match="25006"):
        world.person("ann")
    owner.run(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
    assert reviewing.next_item(world.desk, world.person("ann"), Queue()) is not None
    owner.close()
    for database in (primary, moved):
        database.close()


def idle(publisher: OutboxPublisher) -> bool:
    """Whether nothing is left to publish."""
    try:
        return publisher.run_once() == 0 and publisher.run_once() == 0
    except TryAgain:
        return False
