"""An install of workers that gets into trouble: a scene of ``tests.rules.night``."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from tests.chaos.harness import Arena
from tests.rules.live import tell_targets
from tests.support.follower import AdapterStore
from worker.contract import Manifest
from worker.demo.broker import LocalBroker
from worker.demo.program import Program
from worker.engine.fork_server import variables


def start_broker() -> LocalBroker:
    """Describe a Kafka that may take its time to start, beside all else that does."""
    return LocalBroker(start_timeout_s=300)


@dataclass
class WorkerScene:
    """One install in trouble. ``play`` is called again and again, with the seconds since the night
    began.

    ``adapters`` are put into a store, and the first is current; ``later`` are settings of all
    workers but the first.
    """

    job: str
    expected: tuple[str, ...]
    play: Callable[[WorkerScene, float], None]
    settings: Mapping[str, str] = field(default_factory=dict)
    later: Mapping[str, str] = field(default_factory=dict)
    engine: Mapping[str, str] = field(default_factory=dict)
    workers: int = 1
    partitions: int = 2
    ready_event: str = "partitions.assigned"
    retention_s: int = 0
    own_broker: bool = False
    adapters: tuple[Manifest, ...] = ()
    done: set[str] = field(default_factory=set)
    arena: Arena = field(init=False)
    broker: LocalBroker = field(init=False)
    producer: Producer = field(init=False)
    store: AdapterStore = field(init=False)
    stack: ExitStack = field(init=False)
    running: list[Program] = field(default_factory=list)
    published: int = 0

    def begin(self, stack: ExitStack, broker: LocalBroker) -> None:
        """Make topics and adapters, and start the workers."""
        self.stack = stack
        self.broker = stack.enter_context(start_broker()) if self.own_broker else broker
        settings = dict(self.settings)
        self.arena = Arena(
            self.broker.bootstrap_servers, stack, settings=settings, partitions=self.partitions
        )
        self.producer = Producer({"bootstrap.servers": self.arena.servers, "log_level": 0})
        if self.retention_s:
            self.configure("in", "retention.ms", str(self.retention_s * 1000))
        if self.adapters:
            self.store = AdapterStore(self.arena.folder / "store")
            for manifest in self.adapters:
                self.store.add(manifest)
            self.store.publish(self.adapters[0])
            settings["model.adapter"] = f"'{self.store.folder}'"
        for number in range(self.workers):
            if number:
                settings.update(self.later)
            self.running.append(self.start())

    def start(self) -> Program:
        """Start one worker."""
        with variables(self.engine):
            return self.arena.start_worker()

    def await_ready(self, folder: Path) -> None:
        """Wait until all workers are as far as they should be, and have them scraped."""
        for worker in self.running:
            worker.wait_until_ready(self.ready_event)
        urls = [worker.url or "" for worker in self.running]
        tell_targets(folder, self.job, urls)

    def act(self, at_s: float) -> None:
        """Go on with the trouble."""
        self.play(self, at_s)

    def end(self) -> None:
        """Leave no worker stopped."""
        for worker in self.running:
            if worker.child.exit_code() is None:
                os.kill(worker.child.pid, signal.SIGCONT)

    def once(self, name: str) -> bool:
        """Whether this is the first time that it is asked."""
        new = name not in self.done
        self.done.add(name)
        return new

    def publish(self, values: Sequence[bytes], age_s: float = 0.0) -> None:
        """Publish these values, each with a key of its own and a timestamp of so long ago."""
        now_ms = int((time.time() - age_s) * 1000)
        for number, value in enumerate(values):
            self.producer.produce(
                self.arena.topics["in"],
                value=value,
                key=str(self.published),
                partition=number % self.partitions,
                timestamp=now_ms,
            )
            self.published += 1
            self.producer.poll(0)
        self.producer.flush(5)

    def configure(self, topic: str, name: str, value: str) -> None:
        """Set a configuration of one of its topics ("in", "out")."""
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(
            ResourceType.TOPIC, self.arena.topics[topic], incremental_configs=[entry]
        )
        admin = AdminClient({"bootstrap.servers": self.arena.servers, "log_level": 0})
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(30)


def texts(count: int, words: str = "where is parcel") -> list[bytes]:
    """Messages that can be labelled."""
    return [json.dumps({"id": str(n), "message": f"{words} {n}?"}).encode() for n in range(count)]
