"""A night in minutes: real workers get into trouble, and a real Prometheus says which alert comes.

    python -m tests.rules.night [--json FILE]

Each scene is an install of its own (a job) on a real Kafka, with an engine of fixed time that can
be told to hang. The rules are the ones that are shipped, with every duration divided by 30: a
window of ten minutes is one of twenty seconds. What is compared with a figure in seconds (180 s
without Kafka, 60 s of latency) is not divided. Tells which alert fired in which scene and after how
long, and ends with 1 where an expected one did not, or where one fired over the install that is
well. Needs Prometheus; kube-state-metrics is not there, so what asks it cannot fire.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from tests.chaos.fake_worker import POISON
from tests.chaos.harness import Arena
from tests.rules.expressions import RULES
from tests.rules.live import Prometheus, release_group, running
from worker.demo.broker import LocalBroker
from worker.demo.broker_config import free_port
from worker.demo.worker_process import WorkerProcess
from worker.engine.fork_server import variables

FASTER = 30
LONGEST_S = 480.0
_DURATION = re.compile(r"(?<![\w.])(\d+)(m|h|d)(?!\w)")
_UNIT_S = {"m": 60, "h": 3600, "d": 86400}


def faster(text: str) -> str:
    """Divide the durations of an expression; none gets shorter than three scrapes."""

    def shorter(found: re.Match[str]) -> str:
        return f"{max(6, int(found[1]) * _UNIT_S[found[2]] // FASTER)}s"

    return _DURATION.sub(shorter, text)


def fast_rules(jobs: Mapping[str, int]) -> dict[str, object]:
    """Return the shipped rules for a short night. ``jobs``: how many workers each should have."""
    document: dict[str, list[dict[str, object]]] = yaml.safe_load(RULES.read_text("utf-8"))
    for group in document["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:  # type: ignore[attr-defined]
            rule["expr"] = faster(rule["expr"])
            if "for" in rule:
                rule["for"] = faster(rule["for"])
    document["groups"].insert(0, release_group("night", jobs, "1s"))
    return dict(document)


@dataclass
class Scene:
    """One install in trouble. ``act`` is called again and again, with the seconds since then."""

    job: str
    expected: tuple[str, ...]
    act: Callable[[Scene, float], None]
    settings: dict[str, str] = field(default_factory=dict)
    engine: dict[str, str] = field(default_factory=dict)
    workers: int = 1
    partitions: int = 2
    waits_for_ready: bool = True
    retention_s: int = 0
    own_broker: bool = False
    begun: float = 0.0
    done: set[str] = field(default_factory=set)
    arena: Arena = field(init=False)
    broker: LocalBroker = field(init=False)
    producer: Producer = field(init=False)
    running: list[WorkerProcess] = field(default_factory=list)

    def begin(self, stack: ExitStack, broker: LocalBroker, folder: Path) -> None:
        """Make topics, start the workers, and tell Prometheus where they are."""
        self.broker = stack.enter_context(LocalBroker()) if self.own_broker else broker
        self.arena = Arena(
            self.broker.bootstrap_servers, stack, settings=self.settings, partitions=self.partitions
        )
        self.producer = Producer({"bootstrap.servers": self.arena.servers, "log_level": 0})
        if self.retention_s:
            self._keep_for(self.retention_s)
        for _ in range(self.workers):
            self.start(folder)

    def start(self, folder: Path) -> None:
        """Start one more worker, and have it scraped."""
        with variables(self.engine):
            worker = self.arena.start_worker()
        if self.waits_for_ready:
            worker.wait_until_ready("partitions.assigned" if self.workers == 1 else "worker.ready")
        else:
            worker.wait_until_ready("http.listening")
        self.running.append(worker)
        urls = [each.url or "" for each in self.running]
        labels = {"namespace": "night", "job": self.job}
        targets = [
            {
                "targets": [url.removeprefix("http://")],
                "labels": {**labels, "pod": f"{self.job}-{n}"},
            }
            for n, url in enumerate(urls)
        ]
        (folder / f"{self.job}.new").write_text(json.dumps(targets))
        (folder / f"{self.job}.new").replace(folder / f"{self.job}.json")

    def once(self, name: str) -> bool:
        """Whether this is the first time that it is asked."""
        new = name not in self.done
        self.done.add(name)
        return new

    def publish(self, values: Sequence[bytes], age_s: float = 0.0) -> None:
        """Publish these values with a timestamp of so long ago."""
        now_ms = int((time.time() - age_s) * 1000)
        for number, value in enumerate(values):
            self.producer.produce(
                self.arena.topics["in"],
                value=value,
                partition=number % self.partitions,
                timestamp=now_ms,
            )
            self.producer.poll(0)
        self.producer.flush(5)

    def _keep_for(self, seconds: int) -> None:
        entry = ConfigEntry(
            "retention.ms", str(seconds * 1000), incremental_operation=AlterConfigOpType.SET
        )
        resource = ConfigResource(
            ResourceType.TOPIC, self.arena.topics["in"], incremental_configs=[entry]
        )
        admin = AdminClient({"bootstrap.servers": self.arena.servers, "log_level": 0})
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(30)


def texts(count: int, words: str = "where is parcel") -> list[bytes]:
    """Messages that can be labelled."""
    return [json.dumps({"id": str(n), "message": f"{words} {n}?"}).encode() for n in range(count)]


def _well(scene: Scene, _: float) -> None:
    scene.publish(texts(10))


def _gone(scene: Scene, at: float) -> None:
    if at > 5 and scene.once("kill"):
        scene.arena.kill(scene.running[0])


def _stuck(scene: Scene, _: float) -> None:
    if scene.once("work"):
        Path(scene.engine["CHAOS_CONTROL"]).write_text("hang")
        scene.publish(texts(800))


def _slow(scene: Scene, _: float) -> None:
    scene.publish(texts(60))


def _old(scene: Scene, _: float) -> None:
    scene.publish(texts(10), age_s=200)


def _garbage(scene: Scene, _: float) -> None:
    scene.publish([*texts(10), *[b"{"] * 5, *texts(2, "refused until 99999999999")])


def _poison(scene: Scene, _: float) -> None:
    """Its supervisor starts the worker again each time, at the same address."""
    if scene.once("publish"):
        scene.publish([*texts(4), json.dumps({"id": "x", "message": POISON}).encode(), *texts(4)])
    if scene.running[-1].child.exit_code() is not None:
        with variables(scene.engine):
            scene.running[-1] = scene.arena.start_worker()


def _frozen(scene: Scene, at: float) -> None:
    process = scene.running[0].child.pid
    scene.publish(texts(2))
    stopped = int(at) % 12 < 9
    os.kill(process, signal.SIGSTOP if stopped else signal.SIGCONT)


def _outage(scene: Scene, at: float) -> None:
    if scene.once("work"):
        scene.publish(texts(20))
    if at > 5 and scene.once("broker"):
        scene.publish(texts(2000))
        scene.broker.kill()


def _idle(scene: Scene, at: float) -> None:
    """Nothing more has to happen."""


def scenes(folder: Path) -> list[Scene]:
    """Return all scenes of the night."""
    held = {"loop.deadline_s": "900", "loop.max_in_flight": "64", "loop.max_in_engine": "16"}
    return [
        Scene("well", (), _well),
        Scene("gone", ("ClerkWorkerDown", "ClerkNoReadyWorker"), _gone),
        Scene("never", ("ClerkNoReadyWorker", "ClerkWorkerNotReady"), _idle,
              engine={"CHAOS_LOAD_S": "900"}, waits_for_ready=False),
        Scene("stuck", ("ClerkStalled", "ClerkEngineStalled", "ClerkAlwaysPaused",
                        "ClerkRetentionAtRisk"), _stuck, settings=held, retention_s=60,
              engine={"CHAOS_CONTROL": str(folder / "control"), "CHAOS_SERVICE_S": "0.02"}),
        Scene("slow", ("ClerkLagWillNotDrain",), _slow, settings=held,
              engine={"CHAOS_SERVICE_S": "0.5", "CHAOS_CONCURRENCY": "1"}),
        Scene("old", ("ClerkLatencyBurnsFast", "ClerkLatencyBurnsSlowly"), _old),
        Scene("garbage", ("ClerkDeadLetters", "ClerkUnansweredMessages"), _garbage),
        Scene("spare", ("ClerkWorkerWithoutPartitions",), _idle, workers=2, partitions=1),
        Scene("poison", ("ClerkMessageQuarantined",), _poison,
              settings={"http.port": str(free_port())}, engine={"CHAOS_POISON": "engine"}),
        Scene("frozen", ("ClerkPartitionsLost",), _frozen),
        Scene("outage", ("ClerkKafkaUnreachable",), _outage, own_broker=True),
    ]  # fmt: skip


@contextmanager
def watching(folder: Path, jobs: Mapping[str, int]) -> Iterator[Prometheus]:
    """Run Prometheus over the scenes, which put their workers' addresses into ``folder``."""
    program = shutil.which("prometheus")
    assert program is not None, "Prometheus is not installed (Debian: apt-get install prometheus)"
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump(fast_rules(jobs)), encoding="utf-8")
    config = {
        "global": {"scrape_interval": "2s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {
                "job_name": "night",
                "file_sd_configs": [{"files": [str(folder / "*.json")], "refresh_interval": "1s"}],
            }
        ],
    }
    with running(program, folder, config) as prometheus:
        yield prometheus


def rehearse() -> tuple[dict[str, dict[str, float]], list[str]]:
    """Play the night. Return by scene the alerts that fired, each with the seconds since the scene
    began, and what was not as expected."""
    fired: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        played = scenes(folder)
        jobs = {scene.job: scene.workers for scene in played}
        prometheus = stack.enter_context(watching(folder, jobs))
        broker = stack.enter_context(LocalBroker())
        for scene in played:
            scene.begin(stack, broker, folder)
            scene.begun = time.monotonic()
            fired[scene.job] = {}
            print(f"{scene.job}: begun", flush=True)
        until = time.monotonic() + LONGEST_S
        while time.monotonic() < until and _missing(played, fired):
            for scene in played:
                scene.act(scene, time.monotonic() - scene.begun)
            for series in prometheus.query('ALERTS{alertstate="firing"}'):
                job, alert = series["metric"]["job"], series["metric"]["alertname"]
                if alert not in fired[job]:
                    begun = next(scene.begun for scene in played if scene.job == job)
                    fired[job][alert] = round(time.monotonic() - begun, 1)
                    print(f"{job}: {alert} after {fired[job][alert]} s", flush=True)
            time.sleep(1)
        for scene in played:
            for worker in scene.running:  # none is left stopped
                if worker.child.exit_code() is None:
                    os.kill(worker.child.pid, signal.SIGCONT)
        problems = _missing(played, fired)
    return fired, problems + [f"well: {alert} fired" for alert in fired["well"]]


def _missing(played: Sequence[Scene], fired: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [
        f"{scene.job}: {alert} did not fire"
        for scene in played
        for alert in scene.expected
        if alert not in fired[scene.job]
    ]


def main(arguments: Sequence[str]) -> int:
    """See the module's text."""
    fired, problems = rehearse()
    if arguments[:1] == ["--json"]:
        Path(arguments[1]).write_text(json.dumps(fired, indent=1) + "\n", encoding="utf-8")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
