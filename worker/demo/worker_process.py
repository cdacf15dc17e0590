"""The worker as a process of its own, started and ended by the demo."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worker.demo.child import ChildProcess

_READY_S = 600.0
_STOP_S = 60.0


class WorkerFailed(RuntimeError):
    """The worker ended, or does not answer; the text ends with what it logged last."""


class WorkerProcess:
    """A running ``clerk-worker run``; its log is a file of JSON lines."""

    def __init__(self, child: ChildProcess, log_path: Path) -> None:
        self.child = child
        self.log_path = log_path

    def wait_until_ready(self, event: str = "worker.ready") -> None:
        """Return when the worker's model is warm and it joins its group. Raises WorkerFailed.

        With ``event="partitions.assigned"`` it has joined and reads.
        """
        until = time.monotonic() + _READY_S
        while time.monotonic() < until:
            if event in self.events():
                return
            self.check()
            time.sleep(0.1)
        raise WorkerFailed(f"the worker was not ready within {_READY_S:.0f} s{self._last_lines()}")

    @property
    def url(self) -> str | None:
        """Where it answers probes and shows its metrics; None before it does."""
        urls = (one.get("url") for one in self._logged() if one.get("event") == "http.listening")
        return next((str(one) for one in urls), None)

    def events(self) -> list[str]:
        """The names of what it has logged so far."""
        return [str(one.get("event")) for one in self._logged()]

    def check(self) -> None:
        """Raise WorkerFailed when it has ended."""
        code = self.child.exit_code()
        if code is not None:
            raise WorkerFailed(f"the worker ended with exit code {code}{self._last_lines()}")

    def stop(self) -> int:
        """Let it drain (SIGTERM) and return its exit code."""
        return self.child.stop(_STOP_S)

    def _logged(self) -> Iterator[dict[str, Any]]:
        for line in self.log_path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event

    def _last_lines(self) -> str:
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "".join(f"\n  {line}" for line in lines[-8:])


@contextmanager
def start_worker(
    settings: Mapping[str, str],
    log_path: Path,
    command: tuple[str, ...] = ("-m", "worker", "run"),
) -> Iterator[WorkerProcess]:
    """Start the worker with settings as flags (values as TOML has them); stop it at the end."""
    flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    log_path.touch()
    child = ChildProcess(
        [sys.executable, *command, *flags], cwd=Path.cwd(), log_path=log_path, env=os.environ
    )
    worker = WorkerProcess(child, log_path)
    try:
        yield worker
    finally:
        worker.stop()
