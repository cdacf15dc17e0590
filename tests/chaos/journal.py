"""What was done and what was seen of it, a JSON line each; and which faults count."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.plan import Fault


@dataclass(frozen=True, slots=True)
class Effect:
    """What was seen of a fault, in words; None: nothing, so that it does not count.

    ``partitions`` are those of the input that it touched. ``recovery_s`` is the time from the
    fault, or from its end where something had to come back first, until everything that had been
    published to them before was done; None where that is not asked for. ``figures`` are for people.
    """

    seen: str | None
    partitions: frozenset[int] = frozenset()
    recovery_s: float | None = None
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """A fault that was carried out, with times in seconds since the load began."""

    fault: Fault
    began_s: float
    ended_s: float
    effect: Effect

    @property
    def counts(self) -> bool:
        """Whether an effect was seen."""
        return self.effect.seen is not None


class Journal:
    """Appends to a file. Safe from any thread."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()
        self.start = time.monotonic()
        self.entries: list[Entry] = []
        self.notes: list[dict[str, Any]] = []

    def begin(self) -> None:
        """Count time from now."""
        self.start = time.monotonic()

    def now_s(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self.start

    def add(self, fault: Fault, began_s: float, effect: Effect) -> None:
        """Write down a fault and its effect, ended now."""
        entry = Entry(fault, began_s, self.now_s(), effect)
        line = {
            **asdict(fault),
            "began_s": round(began_s, 2),
            "ended_s": round(entry.ended_s, 2),
            "counts": entry.counts,
            "effect": effect.seen or "no effect",
            "partitions": sorted(effect.partitions),
            "recovery_s": None if effect.recovery_s is None else round(effect.recovery_s, 2),
            "figures": effect.figures,
        }
        with self._lock:
            self.entries.append(entry)
            self._write(line)

    def note(self, event: str, **fields: Any) -> None:
        """Write down anything else that happened."""
        line = {"event": event, "at_s": round(self.now_s(), 2), **fields}
        with self._lock:
            self.notes.append(line)
            self._write(line)

    @property
    def counted(self) -> int:
        """How many faults had an effect."""
        with self._lock:
            return sum(entry.counts for entry in self.entries)

    def by_kind(self) -> dict[str, tuple[int, int]]:
        """For each kind: how many were carried out, and how many had an effect."""
        with self._lock:
            done = Counter(entry.fault.kind for entry in self.entries)
            counted = Counter(entry.fault.kind for entry in self.entries if entry.counts)
        return {kind: (done[kind], counted[kind]) for kind in sorted(done)}

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
