"""A place for a worker: its process, started again when it ends, its link, its disk, its clock."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.disk import SmallDisk
from tests.chaos.journal import Journal
from tests.chaos.proxy import Proxy
from tests.chaos.worker_log import WorkerLog
from worker.demo.program import ChildProcess

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")

TROUBLE = (
    "stream.client_error",
    "stream.producer_hangs",
    "batch.not_published",
    "kafka.unreachable",
    "partitions.lost",
)
"""What a worker says when something is wrong with its Kafka."""

# What a worker ends with by its own design: drained, stream failed or fenced, engine dead.
_EXPECTED_CODES = {0, 4, 5}
_STOP_S = 75.0
_LOG_MB = 256


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """How the workers of a run are started. ``settings`` have values as TOML has them."""

    command: tuple[str, ...]
    settings: Mapping[str, str]
    environment: Mapping[str, str]
    ready_s: float
    small_disks: bool
    fake_clocks: bool


class WorkerSlot:
    """One place. All methods are for its lane's thread, but those that read."""

    def __init__(
        self, name: str, plan: WorkerPlan, proxy: Proxy, folder: Path, journal: Journal
    ) -> None:
        self.name = name
        self.proxy = proxy
        self.disk = SmallDisk(folder / "log", _LOG_MB) if plan.small_disks else None
        self.failures: list[str] = []
        self.restarts = 0
        self._plan = plan
        self._folder = folder
        self._journal = journal
        (folder / "log").mkdir(parents=True, exist_ok=True)
        self.control = folder / "engine"
        self._clock = folder / "clock"
        self.step_clock(0.0)
        self._starts = 0
        self._child: ChildProcess | None = None
        self.started_at = 0.0
        self.log: WorkerLog | None = None

    @property
    def held(self) -> frozenset[int]:
        """The partitions that it has, as it says."""
        child, log = self._child, self.log
        return log.held if child is not None and log is not None else frozenset()

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._child is not None
        return self._child.pid

    @property
    def is_up(self) -> bool:
        """Whether there should be a worker."""
        return self._child is not None

    def exit_code(self) -> int | None:
        """None while it runs."""
        assert self._child is not None
        return self._child.exit_code()

    def start(self) -> None:
        """Start a worker here."""
        self._starts += 1
        log = self._folder / "log" / f"{self._starts}.log"
        log.touch()
        flags = [
            word
            for key, value in {
                **self._plan.settings,
                "kafka.bootstrap_servers": f"'{self.proxy.address}'",
                **self._names(),
            }.items()
            for word in ("--set", f"{key}={value}")
        ]
        environment = {
            **os.environ,
            **self._plan.environment,
            "CHAOS_CONTROL": str(self.control),
            **self._faketime(),
        }
        self.control.write_text("", "utf-8")
        self.log = WorkerLog(log)
        self.started_at = time.monotonic()
        self._child = ChildProcess(
            [sys.executable, *self._plan.command, *flags],
            cwd=Path.cwd(),
            log_path=log,
            env=environment,
        )

    def watch(self) -> None:
        """Start it again if it ended by itself, as the platform would."""
        if self._child is None or (code := self._child.exit_code()) is None:
            return
        assert self.log is not None
        self.log.read()
        tail = self.log.tail()
        self._journal.note("worker.ended", worker=self.name, code=code, log=tail[-1500:])
        if code not in _EXPECTED_CODES:
            self.failures.append(f"{self.name} ended with {code}:\n{tail}")
        self.restarts += 1
        self.start()

    def wait_working(self) -> bool:
        """Wait until it has partitions; start it again meanwhile where it ends."""
        until = time.monotonic() + self._plan.ready_s
        while time.monotonic() < until:
            self.watch()
            if self.held:
                return True
            time.sleep(0.05)
        return False

    def kill(self) -> int:
        """End it with SIGKILL; return the exit code."""
        child = self._take()
        return child.kill()

    def stop(self) -> int:
        """Let it drain, once it is so far that it does; return the exit code."""
        assert self.log is not None
        log = self.log
        log.wait_for(
            lambda: any(said.event == "worker.ready" for said in log.said),
            self._plan.ready_s,
            lambda: self.exit_code() is not None,
        )
        return self._take().stop(_STOP_S)

    def wait_for_end(self, timeout_s: float) -> int | None:
        """Wait until it ends by itself; return its exit code, None when it does not."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            code = self.exit_code()
            if code is not None:
                self._take()
                return code
            time.sleep(0.05)
        return None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def tell_engine(self, words: str) -> None:
        """Tell the engine to fail so; see ``tests.chaos.controlled_engine``."""
        self.control.with_suffix(".done").unlink(missing_ok=True)
        written = self.control.with_suffix(".next")
        written.write_text(words, "utf-8")
        written.replace(self.control)

    def engine_did(self) -> int:
        """How often the engine did what it was told."""
        done = self.control.with_suffix(".done")
        return int(done.read_text("utf-8")) if done.exists() else 0

    def step_clock(self, seconds: float) -> None:
        """Make its clock differ by so much; running processes see it within a second."""
        self._clock.parent.mkdir(parents=True, exist_ok=True)
        written = self._clock.with_suffix(".next")
        written.write_text(f"{seconds:+.0f}\n", "utf-8")
        written.replace(self._clock)

    def trouble_since(self, moment: float) -> list[str]:
        """What it said of trouble with Kafka after a moment."""
        log = self.log
        return [said.event for said in log.since(moment, *TROUBLE)] if log is not None else []

    def close(self) -> None:
        """End everything of it."""
        if self._child is not None:
            self._child.kill()
        self.proxy.close()
        if self.disk is not None:
            shutil.copytree(self.disk.folder, self._folder / "kept-log")
            self.disk.close()

    def _take(self) -> ChildProcess:
        child, self._child = self._child, None
        assert child is not None
        return child

    def _names(self) -> dict[str, str]:
        # Both ways of naming a producer: every other place has a stable name, as of a pod.
        stable = int(self.name.rpartition("-")[2]) % 2 == 0
        names = {"kafka.client": f"{{'client.id' = '{self.name}'}}"}
        return names | ({"kafka.instance_id": f"'{self.name}'"} if stable else {})

    def _faketime(self) -> dict[str, str]:
        if not self._plan.fake_clocks:
            return {}
        return {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DISABLE_SHM": "1",
        }
