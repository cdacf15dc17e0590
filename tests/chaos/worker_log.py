"""A worker's log, read while it is written: what it said, when, and what it holds."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

_PARTITION = re.compile(r".*\.in-(\d+)")
_KEPT = 20_000


@dataclass(frozen=True, slots=True)
class Said:
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
        self.said: list[Said] = []
        self.held: frozenset[int] = frozenset()
        """The input partitions that it said it was given and not that it lost."""

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
            del self.said[:-_KEPT]

    def since(self, moment: float, *events: str) -> list[Said]:
        """What was said of these events after a moment."""
        with self._lock:
            recent = [said for said in self.said if said.at > moment]
        return [said for said in recent if said.event in events]

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
            recent = [said for said in self.said if said.at > moment]
        return [
            datetime.fromisoformat(str(said.fields["timestamp"])).timestamp() - (wall + said.at)
            for said in recent
            if "timestamp" in said.fields
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
        self.said.append(Said(now, event, fields))
        if event in ("partitions.assigned", "partitions.revoked", "partitions.lost"):
            named = frozenset(
                int(match[1]) for name in fields["partitions"] if (match := _PARTITION.match(name))
            )
            gained = event == "partitions.assigned"
            self.held = self.held | named if gained else self.held - named
