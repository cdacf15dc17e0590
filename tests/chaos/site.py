"""Where a run takes place: a broker, topics, slots for workers, the load, and observers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from tests.chaos.journal import Journal, ProgressMonitor
from tests.chaos.load import Load, Values
from tests.chaos.plan import worker_name
from tests.chaos.proxy import Proxy
from tests.chaos.worker_slot import FAKETIME, SmallDisk, WorkerPlan, WorkerSlot
from tests.support.follower import AdapterStore
from tests.support.toy_adapter import make_manifest
from worker.common.base_model import ensure_base_model
from worker.demo.broker import LocalBroker
from worker.demo.models import adapter_dir

Delivery = Literal["exactly_once", "at_least_once"]
Protocol = Literal["cooperative", "range", "consumer"]

ADAPTERS = tuple(make_manifest(name) for name in ("ant", "bee", "cow"))

_SESSION_MS = 3000
_BROKER_MB = 1024


@dataclass(frozen=True, slots=True)
class SiteOptions:
    """Options of a site. ``broken`` names a guarantee to break (``tests.chaos.fake_worker``);
    without ``real_engine`` the engine has a fixed service time."""

    delivery: Delivery = "exactly_once"
    protocol: Protocol = "cooperative"
    real_engine: bool = False
    workers: int = 4
    partitions: int = 8
    rate_per_s: float = 200.0
    small_disks: bool = False
    fake_clocks: bool = False
    swaps: bool = True
    broken: str | None = None
    retry: bool = False
    """Whether refused messages are retried later."""


class Site:
    """Everything of one run. A context manager; ``folder`` keeps the logs."""

    def __init__(self, options: SiteOptions, folder: Path, values: Values) -> None:
        self.options = options
        self.folder = folder
        self.journal = Journal(folder / "journal.jsonl")
        self.broker_lock = threading.Lock()
        """Held while the broker is disturbed, and while somebody needs it undisturbed."""
        self.current_adapter = ADAPTERS[0].digest
        self._values = values
        self._stack = ExitStack()
        self._ended = threading.Event()
        run = uuid.uuid4().hex[:8]
        self.group = f"chaos.{run}"
        names = ("in", "out", "review", "dead", *(("retry",) if options.retry else ()))
        self.topics = {name: f"{self.group}.{name}" for name in names}

    def __enter__(self) -> Self:
        with self._stack:
            self._stack.callback(self.journal.close)
            self.broker_disk = self._make_broker_disk()
            scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
            data = (self.broker_disk.folder if self.broker_disk else scratch) / "broker"
            self.broker = self._stack.enter_context(
                LocalBroker(
                    data,
                    log_path=self.folder / "broker.log",
                    properties={
                        "group.consumer.session.timeout.ms": _SESSION_MS,
                        "group.consumer.min.heartbeat.interval.ms": 500,
                        "group.consumer.heartbeat.interval.ms": 500,
                    },
                )
            )
            self.store = AdapterStore(self.folder / "store")
            for manifest in ADAPTERS:
                self.store.add(manifest)
            self.store.publish(ADAPTERS[0])
            self._create_topics()
            self.slots = self._make_slots()
            self.load = Load(
                self.broker.bootstrap_servers,
                self.topics["in"],
                self.options.partitions,
                self._values,
                self.options.rate_per_s,
            )
            self._stack.callback(self.load.abandon)
            self.progress = ProgressMonitor(
                self.broker.bootstrap_servers,
                self.group,
                self.topics["in"],
                self.options.partitions,
            )
            self._stack.callback(self.progress.close)
            reader = threading.Thread(target=self._read_logs, name="logs")
            reader.start()
            self._stack.callback(reader.join)
            self._stack.callback(self._ended.set)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def all_partitions(self) -> frozenset[int]:
        return frozenset(range(self.options.partitions))

    def slot(self, name: str) -> WorkerSlot:
        return next(slot for slot in self.slots if slot.name == name)

    def held_by_others(self, slot: WorkerSlot) -> frozenset[int]:
        return frozenset().union(*(other.held for other in self.slots if other is not slot))

    def recovery_s(
        self, partitions: Iterable[int], since: float, timeout_s: float = 90.0
    ) -> float | None:
        """Wait until everything published to these partitions by now is done; return the seconds
        since ``since``, or None after the timeout."""
        targets = self.load.ends(partitions)
        if not self.progress.await_beyond(targets, timeout_s):
            return None
        return time.monotonic() - since

    def settings(self) -> dict[str, str]:
        """The workers' settings as TOML values."""
        session = f"'session.timeout.ms' = {_SESSION_MS}, 'heartbeat.interval.ms' = 500"
        consumer: dict[Protocol, str] = {
            "cooperative": f"{{{session}}}",
            "range": f"{{{session}, 'partition.assignment.strategy' = 'range'}}",
            "consumer": "{'group.protocol' = 'consumer'}",
        }
        return {
            "kafka.group_id": f"'{self.group}'",
            "kafka.input_topics": f"'{self.topics['in']}'",
            "kafka.output_topic": f"'{self.topics['out']}'",
            "kafka.review_topic": f"'{self.topics['review']}'",
            "kafka.dead_letter_topic": f"'{self.topics['dead']}'",
            "kafka.delivery": f"'{self.options.delivery}'",
            "kafka.consumer": consumer[self.options.protocol],
            "log.format": "'json'",
            "log.level": "'debug'",
            "http.port": "0",
            **self._model_settings(),
            **self._retry_settings(),
        }

    def keep_broker_data(self) -> Path:
        """Copy the broker's data next to the logs for the search for a cause.
        ``kafka.tools.DumpLogSegments`` prints the history of transactions in
        ``__transaction_state``."""
        kept = self.folder / "broker-data"
        with self.broker_lock:
            shutil.copytree(self.broker.data_dir, kept, ignore=shutil.ignore_patterns("tmp"))
        return kept

    def verify(self) -> dict[str, Any]:
        """The output of ``clerk-worker verify``. Raises RuntimeError if there is none."""
        with self.broker_lock:
            servers = {"kafka.bootstrap_servers": f"'{self.broker.bootstrap_servers}'"}
            given = {**self.settings(), **servers}
            flags = [word for key, value in given.items() for word in ("-s", f"{key}={value}")]
            done = subprocess.run(
                [sys.executable, "-m", "worker", "verify", "--json", *flags],
                env=clean_environment(),
                capture_output=True, text=True, timeout=1800, check=False,
            )  # fmt: skip
        if done.returncode not in {0, 1} or not done.stdout:
            raise RuntimeError(f"verify ended with {done.returncode}: {done.stderr[-2000:]}")
        return dict(json.loads(done.stdout))

    def _model_settings(self) -> dict[str, str]:
        if self.options.real_engine:
            return {
                "model.base": f"'{ensure_base_model()}'",
                "model.adapter": f"'{adapter_dir()}'",
            }
        store = {"model.adapter": f"'{self.store.folder}'"}
        # A hang is reported after two thirds of it: ten seconds.
        return {"loop.deadline_s": "15"} | (store if self.options.swaps else {})

    def _retry_settings(self) -> dict[str, str]:
        if not self.options.retry:
            return {}
        return {
            "kafka.retry_topic": f"'{self.topics['retry']}'",
            "loop.retry_delay_s": "1",
            "loop.retry_max_attempts": "100",
        }

    def _make_broker_disk(self) -> SmallDisk | None:
        if not self.options.small_disks:
            return None
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        disk = SmallDisk(folder / "disk", _BROKER_MB)
        self._stack.callback(disk.close)
        return disk

    def _make_slots(self) -> list[WorkerSlot]:
        broken = {"CHAOS_BREAK": self.options.broken} if self.options.broken else {}
        real = self.options.real_engine
        plan = WorkerPlan(
            command=("-m", "worker", "run") if real else ("-m", "tests.chaos.fake_worker"),
            settings=self.settings(),
            environment={"CHAOS_SERVICE_S": "0.005", "CHAOS_CONCURRENCY": "4", **broken},
            ready_s=300 if real else 45,
            small_disks=self.options.small_disks,
            fake_clocks=self.options.fake_clocks and FAKETIME.exists(),
        )
        port = int(self.broker.bootstrap_servers.rpartition(":")[2])
        slots = []
        for number in range(self.options.workers):
            name = worker_name(number)
            folder = self.folder / name
            slot = WorkerSlot(name, plan, Proxy(port), folder, self.journal)
            self._stack.callback(slot.close)
            slots.append(slot)
        return slots

    def _create_topics(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.broker.bootstrap_servers, "log_level": 0})
        retries = self.topics.get("retry")
        new = [
            NewTopic(topic, 2 if topic == retries else self.options.partitions, 1)
            for topic in self.topics.values()
        ]
        for future in admin.create_topics(new).values():
            future.result(timeout=30)

    def _read_logs(self) -> None:
        while not self._ended.wait(0.1):
            for slot in self.slots:
                if slot.log is not None:
                    slot.log.read()


def clean_environment() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("CLERK_")}
