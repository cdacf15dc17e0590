"""One adapter's engine as the loop sees it: has it room, does it answer, is anything overdue."""

from __future__ import annotations

from concurrent.futures import Future

from worker.core.assignment import InFlightRecord
from worker.core.serving_adapter import ServingAdapter
from worker.engine.pacing import AdmissionPolicy, Lane
from worker.engine.port import Answer, SelfPaced
from worker.errors import EngineDied


class EngineMonitor:
    """The records that one adapter's engine has, oldest first, and what its answers tell of it.

    A ``SelfPaced`` engine (a cascade) has a lane for each of its stages: it is asked for room, and
    gives up overdue records and reports silence by itself.
    """

    def __init__(self, adapter: ServingAdapter, policy: AdmissionPolicy, now: float) -> None:
        self.adapter = adapter
        self.lane: Lane[InFlightRecord] = Lane(self._ask, policy, now)
        engine = adapter.engine
        self._stages = engine if isinstance(engine, SelfPaced) else None
        self._orphaned_at: float | None = None
        """Since when the engine has had only requests that nobody waits for any more."""

    @property
    def window(self) -> int:
        """How many records the engine may be given now; of a cascade, its first stage."""
        return self._stages.window if self._stages else self.lane.window.limit

    def has_room(self) -> bool:
        """Tell whether another record may be given to the engine now."""
        if self._stages is not None:
            return self._stages.has_room()
        return self.lane.window.has_room(self.adapter.in_engine)

    def overdue(self, now: float) -> list[InFlightRecord]:
        """Return the records that have passed their deadline and were overtaken."""
        return [] if self._stages else self.lane.overdue(now)

    def find_death(self, now: float) -> EngineDied | None:
        """Say that the engine hangs or has died, if so; ask it something if that is not clear.

        Requests of partitions that have gone count too: suspects wait until they are done.
        """
        if self._stages is not None:
            return None  # check_health says so
        held = max(len(self.lane), self.adapter.in_engine)
        return self.lane.find_death(now, self._find_oldest(now), held)

    def _ask(self) -> Future[Answer]:
        return self.adapter.engine.submit(self.adapter.manifest.golden[0].ids)

    def _find_oldest(self, now: float) -> float | None:
        """Return since when the engine has had something, as far as that is known here."""
        if (oldest := self.lane.oldest_at) is not None:
            self._orphaned_at = None
            return oldest
        if not self.adapter.in_engine:
            self._orphaned_at = None
        elif self._orphaned_at is None:
            self._orphaned_at = now
        return self._orphaned_at
