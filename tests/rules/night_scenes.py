"""What happens to workers in the night (``tests.rules.night``), and which alerts that raises."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from tests.chaos.fake_worker import FITS_NOWHERE, HANGS, POISON, UNSURE
from tests.chaos.harness import Arena
from tests.rules.live import tell_targets
from tests.support.follower import AdapterStore
from tests.support.toy_adapter import cascade_of, make_manifest, one_golden, toy_manifest, toy_spec
from worker.contract import Manifest
from worker.demo.broker import LocalBroker
from worker.demo.kafka_files import free_port
from worker.demo.program import Program
from worker.engine.fork_server import variables

# An install of workers that gets into trouble: a scene of ``tests.rules.night``.


def start_broker() -> LocalBroker:
    """A Kafka with enough time to start next to everything else."""
    return LocalBroker(start_timeout_s=300)


@dataclass
class WorkerScene:
    """One install in trouble. ``play`` runs again and again with the seconds since the night
    began. ``adapters`` are in its store, the first is current; ``later`` are settings of all
    workers but the first."""

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
        """Create topics and adapters, and start the workers."""
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
        with variables(self.engine):
            return self.arena.start_worker()

    def await_ready(self, folder: Path) -> None:
        """Wait until all workers are as far as they should be, and add them as targets."""
        for worker in self.running:
            worker.wait_until_ready(self.ready_event)
        urls = [worker.url or "" for worker in self.running]
        tell_targets(folder, self.job, urls)

    def act(self, at_s: float) -> None:
        self.play(self, at_s)

    def end(self) -> None:
        for worker in self.running:
            if worker.child.exit_code() is None:
                os.kill(worker.child.pid, signal.SIGCONT)

    def once(self, name: str) -> bool:
        new = name not in self.done
        self.done.add(name)
        return new

    def publish(self, values: Sequence[bytes], age_s: float = 0.0) -> None:
        """Publish these values, each with its own key and a timestamp in the past."""
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
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(
            ResourceType.TOPIC, self.arena.topics[topic], incremental_configs=[entry]
        )
        admin = AdminClient({"bootstrap.servers": self.arena.servers, "log_level": 0})
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(30)


def texts(count: int, words: str = "where is parcel") -> list[bytes]:
    return [json.dumps({"id": str(n), "message": f"{words} {n}?"}).encode() for n in range(count)]


STRANGE_FROM_S = 120.0
"""Four hours of the night are enough to know what is usual."""


def well(scene: WorkerScene, _: float) -> None:
    scene.publish(texts(10))


def gone(scene: WorkerScene, at_s: float) -> None:
    """It is killed after a scrape: a target that was never up is not missed."""
    if at_s > 20 and scene.once("kill"):
        scene.arena.kill(scene.running[0])


def comes_and_goes(scene: WorkerScene, at_s: float) -> None:
    """It is killed whenever it was ready for some scrapes, and restarted at the same address."""
    [worker] = scene.running
    if worker.child.exit_code() is not None:
        scene.running = [scene.start()]
    elif "partitions.assigned" in worker.events() and at_s % 10 < 2:
        scene.arena.kill(worker)


def stuck(scene: WorkerScene, _: float) -> None:
    if scene.once("work"):
        Path(scene.engine["CHAOS_CONTROL"]).write_text("hang")
        scene.publish(texts(800))


def loop_hangs(scene: WorkerScene, _: float) -> None:
    if scene.once("work"):
        scene.publish(texts(1, HANGS))


def slow(scene: WorkerScene, _: float) -> None:
    scene.publish(texts(60))


def old(scene: WorkerScene, _: float) -> None:
    scene.publish(texts(10), age_s=200)


def garbage(scene: WorkerScene, _: float) -> None:
    scene.publish([*texts(10), *[b"{"] * 5, *texts(2, "refused until 99999999999")])


def poison(scene: WorkerScene, _: float) -> None:
    """The supervisor restarts the worker each time, at the same address."""
    if scene.once("publish"):
        scene.publish([*texts(4), json.dumps({"id": "x", "message": POISON}).encode(), *texts(4)])
    if scene.running[-1].child.exit_code() is not None:
        scene.running[-1] = scene.start()


def frozen(scene: WorkerScene, at_s: float) -> None:
    process = scene.running[0].child.pid
    scene.publish(texts(2))
    stopped = int(at_s) % 12 < 9
    os.kill(process, signal.SIGSTOP if stopped else signal.SIGCONT)


def outage(scene: WorkerScene, at_s: float) -> None:
    if scene.once("work"):
        scene.publish(texts(20))
    if at_s > 5 and scene.once("broker"):
        scene.publish(texts(2000))
        scene.broker.kill()


def limit_lowered(scene: WorkerScene, _: float) -> None:
    """The output topic's limit is lowered under the running worker: each result, and its
    transaction, is refused."""
    if scene.once("limit"):
        scene.configure("out", "max.message.bytes", "100")
    scene.publish(texts(2))


def a_stranger(scene: WorkerScene, _: float) -> None:
    """A member joins the group and leaves it, again and again."""
    if scene.once("join"):
        ended = threading.Event()
        thread = threading.Thread(target=_join_and_leave, args=(scene, ended), daemon=True)
        thread.start()
        scene.stack.callback(thread.join)
        scene.stack.callback(ended.set)


def _join_and_leave(scene: WorkerScene, ended: threading.Event) -> None:
    while not ended.is_set():
        stranger = Consumer({
            "bootstrap.servers": scene.arena.servers,
            "group.id": scene.arena.run,
            "partition.assignment.strategy": "cooperative-sticky",
            "heartbeat.interval.ms": 200,
            "session.timeout.ms": 6000,
            "log_level": 0,
        })  # fmt: skip
        stranger.subscribe([scene.arena.topics["in"]])
        until = time.monotonic() + 10
        while not stranger.assignment() and time.monotonic() < until and not ended.is_set():
            stranger.poll(0.1)
        stranger.close()


def strange(scene: WorkerScene, at_s: float) -> None:
    """The usual messages, then some that fit no label."""
    scene.publish(texts(20, FITS_NOWHERE) if at_s > STRANGE_FROM_S else texts(20))


def one_label(scene: WorkerScene, _: float) -> None:
    scene.publish(texts(1) * 200)


def passes_on(scene: WorkerScene, _: float) -> None:
    scene.publish(texts(40))


def trial(scene: WorkerScene, at_s: float) -> None:
    if at_s > 5 and scene.once("canary"):
        scene.store.canary(_toy(f"{UNSURE}-canary"), 0.5)
    scene.publish(texts(30))


def another_adapter(scene: WorkerScene, at_s: float) -> None:
    """One of two workers does not follow the store."""
    if at_s > 5 and scene.once("publish"):
        scene.store.publish(make_manifest("bee"))
    scene.publish(texts(4))


def damaged_adapter(scene: WorkerScene, at_s: float) -> None:
    if at_s > 5 and scene.once("publish"):
        damaged = make_manifest("bee")
        (scene.store.add(damaged) / "manifest.json").write_text("{}")
        scene.store.publish(damaged)
    scene.publish(texts(4))


def idle(*_: object) -> None:
    pass


def _toy(name: str, limit: int = 32) -> Manifest:
    spec = toy_spec(limit)
    return toy_manifest(name=name, prompt=spec, golden=one_golden(spec))


def _cascade() -> tuple[Manifest, ...]:
    """A cascade whose first stage answered nine of ten on validation and is now sure of nothing,
    with its stages."""
    stages = _toy(f"{UNSURE}-small"), _toy("large", 16)
    whole = cascade_of(*stages)
    first, last = whole.stages
    return (
        replace(whole, stages=(replace(first, share=0.9), replace(last, share=0.1))),
        *stages,
    )


def worker_scenes(folder: Path) -> Sequence[WorkerScene]:
    """``folder`` is for the files that control the engines."""
    held = {"loop.deadline_s": "900", "loop.max_in_flight": "64"}
    quick = {"kafka.consumer": "{'session.timeout.ms' = 6000, 'heartbeat.interval.ms' = 200}"}
    return [
        WorkerScene("well", (), well),
        WorkerScene("gone", ("ClerkWorkerDown", "ClerkNoReadyWorker"), gone),
        WorkerScene("never", ("ClerkNoReadyWorker", "ClerkWorkerNotReady"), idle,
                    engine={"CHAOS_LOAD_S": "900"}, ready_event="http.listening"),
        WorkerScene("restarts", ("ClerkWorkerRestarts",), comes_and_goes,
                    settings={"http.port": str(free_port())}, engine={"CHAOS_LOAD_S": "6"}),
        WorkerScene("stuck", ("ClerkStalled", "ClerkEngineStalled", "ClerkAlwaysPaused",
                              "ClerkRetentionAtRisk"), stuck, settings=held, retention_s=60,
                    engine={"CHAOS_CONTROL": str(folder / "control"), "CHAOS_SERVICE_S": "0.02"}),
        WorkerScene("hung", ("ClerkLoopHung",), loop_hangs),
        WorkerScene("slow", ("ClerkLagWillNotDrain",), slow, settings=held,
                    engine={"CHAOS_SERVICE_S": "0.5", "CHAOS_CONCURRENCY": "1"}),
        WorkerScene("old", ("ClerkLatencyBurnsFast", "ClerkLatencyBurnsSlowly"), old),
        WorkerScene("garbage", ("ClerkDeadLetters", "ClerkUnansweredMessages"), garbage),
        WorkerScene("spare", ("ClerkWorkerWithoutPartitions",), idle, workers=2, partitions=1,
                    ready_event="worker.ready"),
        WorkerScene("poison", ("ClerkMessageQuarantined",), poison,
                    settings={"http.port": str(free_port())}, engine={"CHAOS_POISON": "engine"}),
        WorkerScene("frozen", ("ClerkPartitionsLost",), frozen),
        WorkerScene("stranger", ("ClerkRebalanceStorm",), a_stranger, settings=quick),
        WorkerScene("limit", ("ClerkTransactionsFail",), limit_lowered),
        WorkerScene("outage", ("ClerkKafkaUnreachable",), outage, own_broker=True),
        WorkerScene("strange", ("ClerkReviewShareJumped", "ClerkConfidenceDropped",
                                "ClerkOffLabelMassRose"), strange),
        WorkerScene("drift", ("ClerkDrift",), one_label),
        WorkerScene("cascade", ("ClerkCascadePassesOn",), passes_on, adapters=_cascade()),
        WorkerScene("trial", ("ClerkCanaryStopped",), trial, adapters=(_toy("main"),)),
        WorkerScene("two", ("ClerkTwoAdapters",), another_adapter, workers=2,
                    adapters=(make_manifest("ant"),), later={"adapters.watch": "false"}),
        WorkerScene("refused", ("ClerkAdapterRefused",), damaged_adapter,
                    adapters=(make_manifest("ant"),)),
    ]  # fmt: skip
