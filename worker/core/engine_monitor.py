"""One engine as the loop sees it: how much it is given at a time, and whether it answers at all.

Both are told from real answers alone: results, and the engine's own rejections. A prompt that the
worker called off says nothing about the engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from worker.core.assignment import InFlightRecord
from worker.core.serving_adapter import ServingAdapter
from worker.engine.port import Answer
from worker.engine.silence import SilenceWatch
from worker.errors import EngineDied

_START_RECORDS = 64
_LEAST_RECORDS = 8


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """How much the engine is given, and when it counts as hung.

    ``deadline_s`` is how long a record may be in the engine while later ones are answered. The
    window is at most ``max_in_engine`` records, and so many fewer that an answer takes a quarter
    of the deadline at most. The engine counts as hung after two thirds of the deadline without a
    real answer, so before anything it holds is given up.
    """

    max_in_engine: int
    deadline_s: float

    @property
    def target_s(self) -> float:
        """The longest time in the engine that the window aims at."""
        return self.deadline_s / 4

    @property
    def silence_s(self) -> float:
        """Without a real answer for so long, the engine is asked something that it must answer."""
        return self.deadline_s / 3


class AdmissionWindow:
    """How many records may be in the engine at a time.

    By Little's law a full window of n records takes n / pace seconds to come back, so the time that
    answers take says how large it may be. It doubles while answers are quick and records wait for a
    place, and shrinks in proportion as soon as answers take longer than the target.
    """

    def __init__(self, policy: AdmissionPolicy, now: float) -> None:
        self.limit = min(_START_RECORDS, policy.max_in_engine)
        self._policy = policy
        self._target_s = policy.target_s
        self._least = min(_LEAST_RECORDS, policy.max_in_engine)
        self._full = False
        self._begin(now)

    def refuse(self) -> None:
        """A record had to wait for a place."""
        self._full = True

    def answered(self, latency_s: float, now: float) -> None:
        """Take in how long an answer took; judge once as many have come as the window holds."""
        self._answers += 1
        self._latency_s += latency_s
        if self._answers >= self.limit or now - self._since >= self._target_s:
            self._judge(self._latency_s / self._answers)
            self._begin(now)

    def _judge(self, mean_s: float) -> None:
        target_s, limit = self._target_s, self.limit
        if mean_s > target_s:
            self.limit = max(self._least, int(limit * target_s / mean_s))
        elif self._full:
            growth = min(2.0, target_s / mean_s) if mean_s > 0 else 2.0
            self.limit = min(self._policy.max_in_engine, max(limit + 1, int(limit * growth)))
        self._full = False

    def _begin(self, now: float) -> None:
        self._since, self._answers, self._latency_s = now, 0, 0.0


class EngineMonitor:
    """The records that one adapter's engine has, oldest first, and what its answers tell.

    A record is at fault when it has passed its deadline and was overtaken: the engine has answered
    what it was given a good while later. One that was not overtaken is still in line at a slow
    engine. When nothing at all is answered the engine is given a golden prompt, which it must
    answer: if it does, what it holds has been overtaken; if not, it hangs.
    """

    def __init__(self, adapter: ServingAdapter, policy: AdmissionPolicy, now: float) -> None:
        self.adapter = adapter
        self.window = AdmissionWindow(policy, now)
        self.records: dict[InFlightRecord, None] = {}
        self._policy = policy
        self._silence = SilenceWatch(self._ask, policy.silence_s)
        self._answered_submission = -math.inf
        self._orphaned_at: float | None = None
        """Since when the engine has had nothing but what nobody waits for any more."""

    @property
    def has_room(self) -> bool:
        """Whether another record may be given to the engine now."""
        return self.adapter.in_engine < self.window.limit

    def answered(self, submitted_at: float, answered_at: float, now: float) -> None:
        """Take in a real answer to what was submitted then."""
        self._note_answer(submitted_at, now)
        self.window.answered(answered_at - submitted_at, now)

    def overdue(self, now: float) -> Iterator[InFlightRecord]:
        """Give the records that have passed their deadline and were overtaken."""
        latest = min(
            now - self._policy.deadline_s, self._answered_submission - self._policy.target_s
        )
        for record in tuple(self.records):
            if record.submitted_at > latest:
                return
            yield record

    def find_death(self, now: float) -> EngineDied | None:
        """Say that the engine hangs or has died, if so; ask it something if that is not clear.

        What it has of partitions that have gone counts too: suspects wait until it is done.
        """
        held = max(len(self.records), self.adapter.in_engine)
        found = self._silence.find_death(now, self._find_oldest(now), held)
        if isinstance(found, EngineDied):
            return found
        if found is not None:
            self._note_answer(found, now)
        return None

    def _ask(self) -> Future[Answer]:
        return self.adapter.engine.submit(self.adapter.manifest.golden[0].ids)

    def _find_oldest(self, now: float) -> float | None:
        """Return since when the engine has had something, as far as that is known here."""
        if (oldest := next(iter(self.records), None)) is not None:
            self._orphaned_at = None
            return oldest.submitted_at
        if not self.adapter.in_engine:
            self._orphaned_at = None
        elif self._orphaned_at is None:
            self._orphaned_at = now
        return self._orphaned_at

    def _note_answer(self, submitted_at: float, now: float) -> None:
        self._silence.answered(now)
        self._answered_submission = max(self._answered_submission, submitted_at)


def is_dead(adapter: ServingAdapter) -> bool:
    """Tell whether an adapter's engine says that it has died."""
    try:
        adapter.engine.check_health()
    except EngineDied:
        return True
    return False
