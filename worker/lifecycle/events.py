"""What has become of the adapters of this worker: told to logs, metrics and ``/info``."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

import structlog

from worker.core.serving_adapter import ServingAdapter, TrafficSplit
from worker.errors import EngineDied
from worker.lifecycle.refusal import RefusalReason, Role

_log = structlog.get_logger("worker.adapters")

StopReason = Literal["review", "confidence", "engine"]
"""Why a canary got no more messages: too many for review, too little confidence, its engine."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An adapter that was refused, when and why."""

    role: Role
    digest: str | None
    name: str | None
    reason: RefusalReason
    problem: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Stopped:
    """A canary that was stopped, when and why."""

    digest: str
    name: str
    reason: StopReason
    at: datetime


class Counters(Protocol):
    """Counts what happens to adapters. Called from the loop's thread and the keeper's."""

    def serves(self, split: TrafficSplit) -> None:
        """From now on these serve."""
        ...

    def swapped(self, result: Literal["swapped", "refused"]) -> None:
        """The main adapter was replaced, or was not."""
        ...

    def refused(self, reason: RefusalReason) -> None:
        """An adapter in any role was refused."""
        ...

    def loaded(self, seconds: float) -> None:
        """An adapter was verified, loaded and tried in so long."""
        ...

    def canary_stopped(self, reason: StopReason) -> None:
        """A canary was stopped by this worker."""
        ...


class NullCounters:
    """Counters that count nothing, where nobody asks."""

    def serves(self, split: TrafficSplit) -> None:
        """Count nothing."""

    def swapped(self, result: Literal["swapped", "refused"]) -> None:
        """Count nothing."""

    def refused(self, reason: RefusalReason) -> None:
        """Count nothing."""

    def loaded(self, seconds: float) -> None:
        """Count nothing."""

    def canary_stopped(self, reason: StopReason) -> None:
        """Count nothing."""


class AdapterEvents:
    """See ``AdapterRouterListener``; keeps what ``/info`` tells. Safe from any thread.

    ``refused`` and ``stopped`` stand until what the store names has changed. ``idle_adapters``
    wait to be closed by whoever may block.
    """

    def __init__(self, counters: Counters | None, now: Callable[[], datetime]) -> None:
        self._counters = counters or NullCounters()
        self._now = now
        self._woken: Callable[[], None] = lambda: None
        self._canary: ServingAdapter | None = None
        self.idle_adapters: queue.SimpleQueue[ServingAdapter] = queue.SimpleQueue()
        self.refused: dict[Role, Refused] = {}
        self.last_refusal: Refused | None = None
        self.stopped: Stopped | None = None

    def when_idle(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called when there is an adapter to close."""
        self._woken = wake

    def starts(self, split: TrafficSplit) -> None:
        """The worker begins with these."""
        self._counters.serves(split)
        for one in split.members:
            one.since = self._now()

    def changed(self, before: TrafficSplit, now: TrafficSplit) -> None:
        """Stamp who is new, and say so."""
        at = self._now()
        self._canary = now.canary
        self._counters.serves(now)
        for one in now.members:
            if one not in before.members:
                one.since = at
        if now.main is not before.main:
            self._counters.swapped("swapped")
            now.main.since = at
            _log.info("adapter.swapped", **_named(now.main), before=before.main.digest[:12])
        if now.canary is not None and (
            now.canary is not before.canary or now.canary_share != before.canary_share
        ):
            _log.info("adapter.canary", **_named(now.canary), share=now.canary_share)
        if now.shadow is not None and now.shadow is not before.shadow:
            _log.info("adapter.shadow", **_named(now.shadow), share=now.shadow_share)

    def idle(self, served: ServingAdapter) -> None:
        """Have it closed."""
        self.idle_adapters.put(served)
        self._woken()

    def failed(self, served: ServingAdapter, error: EngineDied) -> None:
        """Say so: the main adapter has taken its records over."""
        _log.error("adapter.engine_died", **_named(served), error=str(error))
        if served is self._canary:
            self.stops(served, "engine", str(error))

    def loads(self, role: Role, name: str, digest: str) -> None:
        """An adapter is being brought up."""
        _log.info("adapter.loading", role=role, adapter=name, adapter_digest=digest[:12])

    def loaded(self, role: Role, served: ServingAdapter, seconds: float) -> None:
        """An adapter has passed everything."""
        self._counters.loaded(seconds)
        _log.info("adapter.loaded", role=role, **_named(served), seconds=round(seconds, 2))

    def refuses(
        self, role: Role, digest: str | None, name: str | None, reason: RefusalReason, problem: str
    ) -> None:
        """An adapter is not taken up; what serves goes on."""
        found = Refused(role, digest, name, reason, problem, self._now())
        self.refused[role] = self.last_refusal = found
        self._counters.refused(reason)
        if role == "main":
            self._counters.swapped("refused")
        _log.error(
            "adapter.refused",
            role=role,
            adapter=name,
            adapter_digest=digest and digest[:12],
            reason=reason,
            problem=problem,
        )

    def accepts(self, role: Role) -> None:
        """What the store names for this role is no longer what was refused."""
        self.refused.pop(role, None)

    def stops(self, canary: ServingAdapter, reason: StopReason, detail: str) -> None:
        """A canary gets no more messages from this worker."""
        self.stopped = Stopped(canary.digest, canary.manifest.name, reason, self._now())
        self._counters.canary_stopped(reason)
        _log.error("adapter.canary_stopped", **_named(canary), reason=reason, detail=detail)

    def canary_changed(self) -> None:
        """The store names another canary, or another share: what was stopped is history."""
        self.stopped = None


def _named(served: ServingAdapter) -> dict[str, str]:
    return {"adapter": served.manifest.name, "adapter_digest": served.digest[:12]}
