"""Refusals, swaps, and stops of this worker's adapters, for logs, metrics, and ``/info``."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import structlog

from worker.core.arms import (
    AdapterFailed,
    AdapterIdle,
    Arm,
    ArmRole,
    Role,
    RouterEvent,
    SplitChanged,
    TrafficSplit,
)
from worker.core.labeller import ServingAdapter

RefusalReason = Literal[
    "pointer",
    "files",
    "signature",
    "base",
    "tokenizer",
    "memory",
    "engine",
    "hung",
    "unexpected",
    "probes",
    "worse",
]
"""In this order: the store's pointer cannot be read; a file differs from the manifest; none of the
accepted keys signed it; the adapter needs another base; the base tokenizes its prompts differently;
there is no memory for its engine next to the serving one; the engine cannot load it or does not
answer; loading and trying it took longer than ``LOAD_TIMEOUT_S``; an unexpected error; it
misclassifies probes of its own manifest; it misclassifies more than ``MAX_ERROR_RATE`` of the
serving adapter's probes."""

StopReason = Literal["review", "confidence", "rejected", "engine"]
"""Why an arm was stopped: too many messages for review; too little confidence; too many answers
that are late or not a label; its engine died."""

_log = structlog.get_logger("worker.adapters")


class Refusal(Exception):
    """An adapter must not serve. ``problem`` has the cause and the fix, without message text."""

    def __init__(self, reason: RefusalReason, problem: str) -> None:
        self.reason = reason
        self.problem = problem
        super().__init__(f"{reason}: {problem}")


@dataclass(frozen=True, slots=True)
class Refused:
    """A refused adapter."""

    role: Role
    digest: str | None
    name: str | None
    reason: RefusalReason
    problem: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Stopped:
    """An adapter whose arm was stopped."""

    digest: str
    name: str
    reason: StopReason
    at: datetime


@dataclass(frozen=True, slots=True)
class Serving:
    """These arms serve from now on."""

    split: TrafficSplit


@dataclass(frozen=True, slots=True)
class Swapped:
    """The main adapter was replaced."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An adapter was verified, loaded, and tried."""

    seconds: float


AdapterEvent = Serving | Swapped | Loaded | Refused | Stopped


class AdapterEvents:
    """The router's listener: logs events of adapters and stores those that ``/info`` shows.

    Safe from any thread. ``refused`` and ``stopped`` keep a role's entry until another adapter is
    named for the arm. ``idle_adapters`` wait to be closed by a thread that may block.
    """

    def __init__(self, count: Callable[[AdapterEvent], None], now: Callable[[], datetime]) -> None:
        """``count`` is called from the loop's thread and the watcher's."""
        self._count = count
        self._now = now
        self.call_when_idle: Callable[[], None] = lambda: None
        """Called when there is an adapter to close."""
        self.idle_adapters: queue.SimpleQueue[ServingAdapter] = queue.SimpleQueue()
        self.refused: dict[Role, Refused] = {}
        self.last_refusal: Refused | None = None
        self.stopped: dict[Role, Stopped] = {}
        self.store_away_since: float | None = None
        """Since when the store's bucket does not answer (monotonic seconds); None if it does."""

    def started(self, split: TrafficSplit) -> None:
        """Record the arms that the worker starts with."""
        self._count(Serving(split))
        for adapter in split.adapters:
            adapter.since = self._now()

    def __call__(self, event: RouterEvent) -> None:
        """Log a change of the router, and queue idle adapters for closing."""
        match event:
            case SplitChanged(before, now):
                self._log_change(before, now)
            case AdapterFailed(adapter, arm, error):
                _log.error("adapter.engine_died", **_named(adapter), error=str(error))
                if arm is not None and arm.role.judged:
                    self.stop(arm, "engine", str(error))
            case AdapterIdle(adapter):
                self.idle_adapters.put(adapter)
                self.call_when_idle()

    def _log_change(self, before: TrafficSplit, now: TrafficSplit) -> None:
        """Log each arm that changed, and record since when its adapter serves."""
        at = self._now()
        self._count(Serving(now))
        for arm in now.arms:
            earlier = before.get(arm.role)
            if arm == earlier:
                continue
            if earlier is None or arm.adapter is not earlier.adapter:  # else only its share changed
                arm.adapter.since = at
            if arm.role.fallback is None and earlier is not None:
                self._count(Swapped())
                replaced = earlier.adapter.digest[:12]
                _log.info("adapter.swapped", **_named(arm.adapter), before=replaced)
            else:
                _log.info(
                    "adapter.serves", role=arm.role.name, **_named(arm.adapter), share=arm.share
                )

    def loading(self, role: ArmRole, name: str, digest: str) -> None:
        """Log that an adapter is being loaded."""
        _log.info("adapter.loading", role=role.name, adapter=name, adapter_digest=digest[:12])

    def loaded(self, role: ArmRole, adapter: ServingAdapter, seconds: float) -> None:
        """Log that an adapter has passed all checks."""
        self._count(Loaded(seconds))
        _log.info("adapter.loaded", role=role.name, **_named(adapter), seconds=round(seconds, 2))

    def refuse(
        self,
        role: ArmRole,
        digest: str | None,
        name: str | None,
        reason: RefusalReason,
        problem: str,
    ) -> None:
        """Log and store the refusal of an adapter."""
        refused = Refused(role.name, digest, name, reason, problem, self._now())
        self.refused[role.name] = self.last_refusal = refused
        self._count(refused)
        _log.error(
            "adapter.refused",
            role=role.name,
            adapter=name,
            adapter_digest=digest and digest[:12],
            reason=reason,
            problem=problem,
        )

    def stop(self, arm: Arm, reason: StopReason, detail: str) -> None:
        """Log and store that this worker sends an arm no more messages."""
        adapter = arm.adapter
        stopped = Stopped(adapter.digest, adapter.manifest.name, reason, self._now())
        self.stopped[arm.role.name] = stopped
        self._count(stopped)
        name = f"adapter.{arm.role.name}_stopped"
        _log.error(name, **_named(adapter), reason=reason, detail=detail)

    def clear_refusal(self, role: ArmRole) -> None:
        """Forget a role's refusal."""
        self.refused.pop(role.name, None)

    def clear(self, role: ArmRole) -> None:
        """Forget a role's refusal and stop, because another target is named for it."""
        self.clear_refusal(role)
        self.stopped.pop(role.name, None)


def _named(adapter: ServingAdapter) -> dict[str, str]:
    return {"adapter": adapter.manifest.name, "adapter_digest": adapter.digest[:12]}
