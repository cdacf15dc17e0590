"""A slot for a worker: its process, restarted when it ends, its log, link, disk and clock."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.chaos.journal import Journal
from tests.chaos.proxy import Proxy
from worker.demo.program import ChildProcess

# A small disk that can be filled up: its own tmpfs. Needs root, on Linux.


_FILLER = "filler"
_STEP_BYTES = 4 * 1024 * 1024


def can_mount() -> bool:
    """Whether this process may mount a tmpfs, as far as can be known without trying."""
    return os.name == "posix" and os.geteuid() == 0


class SmallDisk:
    """A mounted tmpfs of so many megabytes."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)],
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip

    def fill(self) -> int:
        """Leave no byte free; return how many were taken."""
        step, size = _STEP_BYTES, 0
        with (self.folder / _FILLER).open("wb") as file:
            while step:
                try:
                    os.posix_fallocate(file.fileno(), size, step)
                    size += step
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    step //= 2
        return size

    def is_full(self) -> bool:
        """Whether a file of one page can not be written."""
        probe = self.folder / "probe"
        try:
            probe.write_bytes(b"x" * 4096)
        except OSError as error:
            return error.errno == errno.ENOSPC
        finally:
            probe.unlink(missing_ok=True)
        return False

    def free(self) -> None:
        """Take the filler away."""
        (self.folder / _FILLER).unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it, with all that is on it."""
        subprocess.run(
            ["umount", "--lazy", str(self.folder)], check=True, capture_output=True, timeout=30
        )


# A worker's log, read while it is written: lines with their times, and held messages.


_PARTITION = re.compile(r".*\.in-(\d+)")
_KEPT = 20_000


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the log, and when it was read (monotonic)."""

    at: float
    event: str
    fields: dict[str, Any]


class WorkerLog:
    """Follows one file of JSON lines. Safe from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._lock = threading.Lock()
        self.lines: list[LogLine] = []
        self.held: frozenset[int] = frozenset()
        """The input partitions that its log shows as assigned and not revoked."""

    def read(self) -> None:
        """Take in what was written since."""
        with self._lock, self._path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._offset += len(whole)
            now = time.monotonic()
            for line in whole.splitlines():
                self._take(line, now)
            del self.lines[:-_KEPT]

    def since(self, moment: float, *events: str) -> list[LogLine]:
        """The lines with these events after a moment."""
        with self._lock:
            recent = [line for line in self.lines if line.at > moment]
        return [line for line in recent if line.event in events]

    def wait_for(
        self, wanted: Callable[[], bool], timeout_s: float, stop: Callable[[], bool] = lambda: False
    ) -> bool:
        """Read on until something is so; say whether it came to that in time."""
        until = time.monotonic() + timeout_s
        while not wanted():
            if time.monotonic() > until or stop():
                return False
            time.sleep(0.05)
            self.read()
        return True

    def clock_offsets_s(self, moment: float) -> list[float]:
        """By how much the times of lines after a moment differ from now's when they were read."""
        wall = time.time() - time.monotonic()
        with self._lock:
            recent = [line for line in self.lines if line.at > moment]
        return [
            datetime.fromisoformat(str(line.fields["timestamp"])).timestamp() - (wall + line.at)
            for line in recent
            if "timestamp" in line.fields
        ]

    def tail(self, lines: int = 6) -> str:
        """The last lines."""
        text = self._path.read_text(encoding="utf-8", errors="replace")
        return "\n".join(line[:500] for line in text.splitlines()[-lines:])

    def _take(self, line: bytes, now: float) -> None:
        try:
            fields = json.loads(line)
        except ValueError:
            return
        if not isinstance(fields, dict) or "event" not in fields:
            return
        event = str(fields["event"])
        self.lines.append(LogLine(now, event, fields))
        if event in ("partitions.assigned", "partitions.revoked", "partitions.lost"):
            named = frozenset(
                int(match[1]) for name in fields["partitions"] if (match := _PARTITION.match(name))
            )
            gained = event == "partitions.assigned"
            self.held = self.held | named if gained else self.held - named


FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")

TROUBLE = (
    "stream.client_error",
    "stream.producer_hangs",
    "batch.not_published",
    "kafka.unreachable",
    "partitions.lost",
)
"""What a worker logs when something is wrong with its Kafka."""

# Exit codes by design: drained, stream failed or fenced, engine dead.
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
            lambda: any(line.event == "worker.ready" for line in log.lines),
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
        """Tell the engine to fail so; see ``tests.chaos.fake_worker``."""
        self.control.with_suffix(".done").unlink(missing_ok=True)
        written = self.control.with_suffix(".next")
        written.write_text(words, "utf-8")
        written.replace(self.control)

    def engine_did(self) -> int:
        """How often the engine obeyed."""
        done = self.control.with_suffix(".done")
        return int(done.read_text("utf-8")) if done.exists() else 0

    def step_clock(self, seconds: float) -> None:
        """Make its clock differ by so much; running processes see it within a second."""
        self._clock.parent.mkdir(parents=True, exist_ok=True)
        written = self._clock.with_suffix(".next")
        written.write_text(f"{seconds:+.0f}\n", "utf-8")
        written.replace(self._clock)

    def trouble_since(self, moment: float) -> list[str]:
        """The events of trouble with Kafka after a moment."""
        log = self.log
        return [line.event for line in log.since(moment, *TROUBLE)] if log is not None else []

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
        # Both ways of naming a producer: every other slot has a stable name, like a pod.
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
