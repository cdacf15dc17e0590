"""A desk that gets into trouble: a scene of ``tests.rules.night``.

The whole desk, in its own process, on Kafka and on SQLite or PostgreSQL.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from pg8000.native import Connection

from desk.service import reviewing
from desk.store import items
from desk.store.database import Database
from desk.store.migrate import migrate
from tests.rules.live import tell_targets
from tests.support.desk_messages import Message, publish_results
from tests.support.desk_world import DeskWorld, FakeClock, said
from tests.support.local_postgres import LocalPostgres
from tests.support.topics import create_topics
from worker.contract.taxonomy import Taxonomy
from worker.demo.broker import LocalBroker
from worker.demo.kafka_files import free_port
from worker.demo.program import Program, start_program

TAXONOMY = Path("config/taxonomy.toml")
_READY_S = 300.0
_DAY_MS = 86_400_000


@dataclass
class DeskScene:
    """One desk in trouble. ``prepare`` runs before it starts, ``play`` again and again with the
    seconds since the night began."""

    job: str
    expected: tuple[str, ...]
    prepare: Callable[[DeskScene], None]
    play: Callable[[DeskScene, float], None]
    on_postgresql: bool = False
    without_kafka: bool = False
    workers: int = 0
    server: LocalPostgres = field(init=False)
    url: str = field(init=False)
    database: Database = field(init=False)
    lock: Connection | None = None
    taxonomy: Taxonomy = field(init=False)
    topics: dict[str, str] = field(init=False)
    servers: str = field(init=False)
    port: int = field(init=False)
    program: Program = field(init=False)

    def begin(self, stack: ExitStack, broker: LocalBroker) -> None:
        """Create topics and a database, and start the desk."""
        self.servers = broker.bootstrap_servers
        self.taxonomy = Taxonomy.from_toml(TAXONOMY)
        self.topics = {
            name: f"night.{self.job}.{name}" for name in ("in", "labels", "review", "corrections")
        }
        create_topics(self.servers, self.topics.values())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.url = f"sqlite:///{folder}/desk.db"
        if self.on_postgresql:
            self.server = stack.enter_context(LocalPostgres())
            self.url = self.server.url(self.server.create())
        self.database = Database(self.url)
        migrate(self.database)
        self.prepare(self)
        self.database.close()
        self.port, self.metrics_port = free_port(), free_port()
        command = ("-m", "desk", "run")
        self.program = stack.enter_context(
            start_program("the desk", command, self._settings(), folder / "desk.log")
        )

    def await_ready(self, folder: Path) -> None:
        """Wait until it has started, and add it as a target."""
        self.program.wait_for("desk.started", _READY_S)
        tell_targets(folder, self.job, [f"http://127.0.0.1:{self.metrics_port}"])

    def act(self, at_s: float) -> None:
        self.play(self, at_s)

    def end(self) -> None:
        if self.lock is not None:
            self.lock.close()

    def world(self, days_ago: float) -> DeskWorld:
        """The same desk, some days ago."""
        clock = FakeClock(int(time.time() * 1000 - days_ago * _DAY_MS))
        return DeskWorld(self.database, clock=clock, taxonomy=self.taxonomy)

    def _settings(self) -> dict[str, str]:
        kafka = f"127.0.0.1:{free_port()}" if self.without_kafka else self.servers
        return {
            "database.url": self.url,
            "kafka.bootstrap_servers": kafka,
            "kafka.output_topic": self.topics["labels"],
            "kafka.review_topic": self.topics["review"],
            "kafka.corrections_topic": self.topics["corrections"],
            "project.taxonomy": str(TAXONOMY),
            "web.port": str(self.port),
            "web.metrics_port": str(self.metrics_port),
            "log.format": "json",
        }


def well(scene: DeskScene) -> None:
    """Some results, one in ten for review."""
    messages = [(f"Where is parcel {n}?", {"reasons": ["low_confidence"]} if n % 10 == 0 else {})
                for n in range(200)]  # fmt: skip
    publish_results(scene.servers, scene.topics, scene.taxonomy, messages)


def less_often_right(scene: DeskScene) -> None:
    """An audit of two months ago found no errors; one of three days ago found every other label
    wrong."""
    offset = 0
    for days_ago, audited, wrong_every in ((60, 100, 0), (3, 40, 2)):
        world = scene.world(days_ago)
        ann = world.person("ann")
        label, other = scene.taxonomy.names[:2]
        now_ms = world.clock()
        for n in range(audited):
            item = world.add(
                f"Message {offset}", origin="audit", sample_share=0.02, reasons=(), label=label,
                offset=offset, source_ms=now_ms, labelled_ms=now_ms,
            )  # fmt: skip
            offset += 1
            wrong = wrong_every and n % wrong_every == 0
            reviewing.claim_item(world.desk, ann, item.id)
            reviewing.decide(
                world.desk, ann, item.id, said(f"{days_ago}-{n}", other if wrong else label)
            )
        with scene.database.write() as tx:
            items.count_traffic(tx, {(now_ms // _DAY_MS, label, "a" * 64, False): audited * 50})


def decided_without_kafka(scene: DeskScene) -> None:
    """Ten messages decided twenty minutes ago."""
    world = scene.world(20 / 1440)
    ann = world.person("ann")
    for n in range(10):
        item = world.add(f"Message {n}", label=scene.taxonomy.names[0])
        reviewing.claim_item(world.desk, ann, item.id)
        reviewing.decide(world.desk, ann, item.id, said(f"{n}", scene.taxonomy.names[1]))


def items_locked(scene: DeskScene) -> None:
    """3,000 unread results, and a database session that has locked the items."""
    messages: list[Message] = [(f"Where is parcel {n}?", {}) for n in range(3000)]
    publish_results(scene.servers, scene.topics, scene.taxonomy, messages)
    scene.world(0)  # creates the project
    scene.lock = scene.server.connect(scene.url.rpartition("/")[2])
    scene.lock.run("BEGIN")
    scene.lock.run("LOCK TABLE items IN SHARE MODE")


def server_killed(scene: DeskScene, at_s: float) -> None:
    if at_s > 5:
        scene.server.kill()


def nothing(*_: object) -> None:
    pass


def desk_scenes() -> list[DeskScene]:
    return [
        DeskScene("desk-well", (), well, nothing),
        DeskScene("desk-worse", ("ClerkDeskAccuracyFell",), less_often_right, nothing),
        DeskScene("desk-stuck", ("ClerkDeskCorrectionsStuck",), decided_without_kafka, nothing,
                  without_kafka=True),
        DeskScene("desk-behind", ("ClerkDeskLagStays",), items_locked, nothing,
                  on_postgresql=True),
        DeskScene("desk-down", ("ClerkDeskDatabaseDown",), well, server_killed, on_postgresql=True),
    ]  # fmt: skip
