"""Refusals, swaps and stops of this worker's adapters, for logs, metrics and ``/info``."""

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
    "base",
    "tokenizer",
    "memory",
    "engine",
    "hung",
    "unexpected",
    "probes",
    "worse",
]
"""All there are: the store's pointer cannot be read; a file is not what the manifest says; the
adapter is of another base; the base tokenizes its prompts otherwise; its engine has no place in the
memory next to the one that serves; the engine cannot load it or does not answer; loading and trying
it took longer than ``LOAD_TIMEOUT_S``; something that nobody expected; it misclassifies probes of
its own manifest; it misclassifies more than ``MAX_ERROR_RATE`` of the serving adapter's probes."""


_log = structlog.get_logger("worker.adapters")
StopReason = Literal["review", "confidence", "rejected", "engine"]
"""Why an arm got no more messages: too many for review, too little confidence, too many answers
that are no label or none in time, its engine."""


class Refusal(Exception):
    """An adapter must not serve here. ``problem`` says what and how to fix it, without text of
    any message."""

    def __init__(self, reason: RefusalReason, problem: str) -> None:
        self.reason = reason
        self.problem = problem
        super().__init__(f"{reason}: {problem}")


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
    """An adapter whose arm was stopped, when and why."""

    digest: str
    name: str
    reason: StopReason
    at: datetime


@dataclass(frozen=True, slots=True)
class Serving:
    """From now on these arms serve."""

    split: TrafficSplit


@dataclass(frozen=True, slots=True)
class Swapped:
    """The main adapter was replaced."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An adapter was verified, loaded and tried in so long."""

    seconds: float


AdapterEvent = Serving | Swapped | Loaded | Refused | Stopped


class AdapterEvents:
    """The router's listener; logs what happens to adapters and keeps what ``/info`` shows.

    Safe from any thread. ``refused`` and ``stopped``, by role, stand until another adapter is named
    for the arm. ``idle_adapters`` wait to be closed by a thread that may block.
    """

    def __init__(self, count: Callable[[AdapterEvent], None], now: Callable[[], datetime]) -> None:
        """``count`` is called from the loop's thread and the watcher's."""
        self._count = count
        self._now = now
        self._wake: Callable[[], None] = lambda: None
        self.idle_adapters: queue.SimpleQueue[ServingAdapter] = queue.SimpleQueue()
        self.refused: dict[Role, Refused] = {}
        self.last_refusal: Refused | None = None
        self.stopped: dict[Role, Stopped] = {}

    def call_when_idle(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called when there is an adapter to close."""
        self._wake = wake

    def started(self, split: TrafficSplit) -> None:
        """The worker begins with these arms."""
        self._count(Serving(split))
        for adapter in split.adapters:
            adapter.since = self._now()

    def __call__(self, event: RouterEvent) -> None:
        """Log what the router has done, and have an adapter closed that is idle."""
        match event:
            case SplitChanged(before, now):
                self._log_change(before, now)
            case AdapterFailed(adapter, arm, error):
                _log.error("adapter.engine_died", **_named(adapter), error=str(error))
                if arm is not None and arm.role.judged:
                    self.stop(arm, "engine", str(error))
            case AdapterIdle(adapter):
                self.idle_adapters.put(adapter)
                self._wake()

    def _log_change(self, before: TrafficSplit, now: TrafficSplit) -> None:
        """Note since when each new adapter serves, and log it."""
        at = self._now()
        self._count(Serving(now))
        for arm in now.arms:
            earlier = before.get(arm.role)
            if arm == earlier:
                continue
            if earlier is None or arm.adapter is not earlier.adapter:
                arm.adapter.since = at
            if arm.role.fallback is None and earlier is not None:
                self._count(Swapped())
                replaced = earlier.adapter.digest[:12]
                _log.info("adapter.swapped", **_named(arm.adapter), before=replaced)
            else:
                _log.info(f"adapter.{arm.role.name}", **_named(arm.adapter), share=arm.share)

    def loading(self, role: ArmRole, name: str, digest: str) -> None:
        """An adapter is being brought up."""
        _log.info("adapter.loading", role=role.name, adapter=name, adapter_digest=digest[:12])

    def loaded(self, role: ArmRole, adapter: ServingAdapter, seconds: float) -> None:
        """An adapter has passed everything."""
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
        """An adapter is refused; what serves goes on."""
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
        """An arm gets no more messages from this worker."""
        adapter = arm.adapter
        stopped = Stopped(adapter.digest, adapter.manifest.name, reason, self._now())
        self.stopped[arm.role.name] = stopped
        self._count(stopped)
        name = f"adapter.{arm.role.name}_stopped"
        _log.error(name, **_named(adapter), reason=reason, detail=detail)

    def clear_refusal(self, role: ArmRole) -> None:
        """What names this role's adapter can be read, or names another: forget the refusal."""
        self.refused.pop(role.name, None)

    def clear(self, role: ArmRole) -> None:
        """Another target is named for this role: forget what was refused and stopped."""
        self.clear_refusal(role)
        self.stopped.pop(role.name, None)


def _named(adapter: ServingAdapter) -> dict[str, str]:
    return {"adapter": adapter.manifest.name, "adapter_digest": adapter.digest[:12]}
