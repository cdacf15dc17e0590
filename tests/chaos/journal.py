"""What was done and what was observed, a JSON line each; and which faults count."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.chaos.plan import Fault


@dataclass(frozen=True, slots=True)
class Effect:
    """The observed effect of a fault, in words. None means no effect, and the fault does not
    count. ``partitions`` are the input partitions that it touched. ``recovery_s`` is the time
    from the fault (or from its end, if something had to come back first) until everything
    published to them before was done; None if not measured."""

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
        return self.effect.seen is not None


class Journal:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()
        self.start = time.monotonic()
        self.entries: list[Entry] = []
        self.notes: list[dict[str, Any]] = []

    def begin(self) -> None:
        self.start = time.monotonic()

    def now_s(self) -> float:
        return time.monotonic() - self.start

    def add(self, fault: Fault, began_s: float, effect: Effect) -> None:
        """Record a fault and its effect, ended now."""
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
        """Record anything else that happened."""
        line = {"event": event, "at_s": round(self.now_s(), 2), **fields}
        with self._lock:
            self.notes.append(line)
            self._write(line)

    @property
    def counted(self) -> int:
        with self._lock:
            return sum(entry.counts for entry in self.entries)

    def close(self) -> None:
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


# The group's position in each partition over time.


_EVERY_S = 0.2
_ANSWER_S = 1.0


class ProgressMonitor:
    """Samples the committed offsets of a group from outside, on a thread."""

    def __init__(self, servers: str, group: str, topic: str, partitions: int) -> None:
        self._wanted = [TopicPartition(topic, number) for number in range(partitions)]
        self.steps_back: list[tuple[int, int, int]] = []
        """Partition, committed offset, and the lower one that was read after it."""
        self.committed = dict.fromkeys(range(partitions), 0)
        self._ended = threading.Event()
        self._client = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": group,
                "enable.auto.commit": False,
                # Otherwise offsets in an open transaction would not be reported until it ends.
                "isolation.level": "read_uncommitted",
                "log_level": 0,
                "error_cb": lambda _: None,
            }
        )
        self._thread = threading.Thread(target=self._run, name="progress")
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._client.close()

    def is_beyond(self, targets: Mapping[int, int]) -> bool:
        return all(self.committed[number] >= offset for number, offset in targets.items())

    def await_beyond(self, targets: Mapping[int, int], timeout_s: float) -> bool:
        """Wait until everything before these offsets is done; return whether it was in time."""
        until = time.monotonic() + timeout_s
        while not self.is_beyond(targets):
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def behind(self, ends: Mapping[int, int]) -> int:
        """Records left to process."""
        return sum(end - self.committed[number] for number, end in ends.items())

    def _run(self) -> None:
        while not self._ended.wait(_EVERY_S):
            try:
                found = self._client.committed(self._wanted, timeout=_ANSWER_S)
            except KafkaException:
                continue  # the broker is away
            for each in found:
                if each.error is not None or each.offset < 0:
                    continue
                before = self.committed[each.partition]
                if each.offset < before:
                    self.steps_back.append((each.partition, before, each.offset))
                self.committed[each.partition] = each.offset
