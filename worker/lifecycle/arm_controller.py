"""Starts, swaps and retires the adapter of an arm: the one place that does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from worker.core.adapter_router import AdapterRouter
from worker.core.arms import Arm, ArmRole, Role, TrafficSplit
from worker.core.serving_adapter import ServingAdapter
from worker.engine.port import Declined
from worker.errors import EngineDied
from worker.lifecycle.arm_source import ArmTarget
from worker.lifecycle.bring_up import BringUp
from worker.lifecycle.events import AdapterEvents
from worker.lifecycle.factory import AdapterFactory
from worker.lifecycle.refusal import Refusal
from worker.lifecycle.restart import Restart
from worker.lifecycle.retry import ArmRetry, next_retry

LOAD_TIMEOUT_S = 600.0
"""A 7B base that is merged on slow disks takes five minutes; what takes longer hangs."""

_log = structlog.get_logger("worker.adapters")


@dataclass(frozen=True, slots=True)
class _Loading:
    """What is being brought up for an arm, and since when (monotonic seconds)."""

    role: ArmRole
    target: ArmTarget
    bring_up: BringUp
    since: float


class ArmController:
    """Has arms served by what is named for them. All calls are for one thread; none blocks.

    Each adapter is loaded and tried on a thread of its own, for ``load_timeout_s`` at most, while
    the sources are followed: what is named meanwhile takes its place. Files that are missing or
    wrong are waited for ``patience_s`` seconds before that is a refusal: on a network file system
    they may come later than the pointer that names them. ``restart`` is asked for a main adapter
    that has no room next to the one that serves, but not for the ``declined`` one, that this worker
    could not start with: it would end there again and again.
    """

    def __init__(
        self,
        router: AdapterRouter,
        events: AdapterEvents,
        factory: AdapterFactory,
        *,
        patience_s: float,
        load_timeout_s: float = LOAD_TIMEOUT_S,
        restart: Restart | None = None,
        declined: Declined | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._router = router
        self._events = events
        self._factory = factory
        self._patience_s = patience_s
        self._load_timeout_s = load_timeout_s
        self._restart = restart or Restart(enabled=False)
        self._declined = declined
        self._clock = clock
        self._loading: dict[Role, _Loading] = {}
        self._waiting: dict[Role, tuple[ArmRole, ArmTarget]] = {}
        self._retries: dict[Role, tuple[ArmRole, ArmRetry]] = {}
        self._incomplete: dict[Role, tuple[str, float]] = {}
        self.call_when_done: Callable[[], None] = lambda: None
        """Called from any thread when there is something to ``collect``."""
        self.closing = False
        """Set when engines are about to be closed: what then fails is no adapter's fault."""

    @property
    def loading(self) -> bool:
        """Whether an adapter is being brought up."""
        return bool(self._loading)

    def apply(self, role: ArmRole, target: ArmTarget | None) -> None:
        """Have the arm in this role served by ``target``, once it is ready; None ends the arm.

        What was being brought up for it is given up. What is refused is told, and what serves
        goes on.
        """
        self._events.clear(role)
        self._waiting.pop(role.name, None)
        self._retries.pop(role.name, None)
        if (overtaken := self._loading.pop(role.name, None)) is not None:
            overtaken.bring_up.abandon()
            _log.info("adapter.superseded", role=role.name, adapter=overtaken.target.name)
        if target is None or self._serves_as_fallback(role, target):
            self._router.schedule(lambda split: split.without(role))
            return
        self._start(role, target)

    def try_again(self) -> None:
        """Begin again with what was refused or incomplete and is due."""
        for name, (role, retry) in list(self._retries.items()):
            if self._clock() >= retry.at and name not in self._loading:
                self._start(role, retry.target)

    def collect(self) -> None:
        """Take in what is ready, refused or overdue, and begin with what had to wait for it."""
        for name, loading in list(self._loading.items()):
            if loading.bring_up.done:
                del self._loading[name]
                self._take(loading)
            elif self._clock() - loading.since > self._load_timeout_s:
                del self._loading[name]
                loading.bring_up.abandon()
                self._refuse(loading, self._hung())
        for name, (role, target) in list(self._waiting.items()):
            del self._waiting[name]
            self._start(role, target)

    def wait(self, timeout_s: float) -> None:
        """Block until something that is being brought up is done, at most so long."""
        for loading in list(self._loading.values()):
            loading.bring_up.wait(timeout_s)

    def _start(self, role: ArmRole, target: ArmTarget) -> None:
        if self._reuse(role, target):
            return
        # Another adapter is in the arm until then: its fallback serves until this one is ready.
        # An arm that has none keeps the adapter it has.
        self._router.schedule(lambda split: split.without(role))
        if self._must_wait(role, target):
            self._waiting[role.name] = (role, target)
            return
        self._events.loading(role, target.name, target.digest)
        make = partial(
            self._factory.make,
            target.directory,
            target.digest,
            compared_with=self._router.latest.main.manifest if target.compare else None,
            background=not role.labels,
        )
        bring_up = BringUp(make, self.call_when_done)
        self._loading[role.name] = _Loading(role, target, bring_up, self._clock())

    def _must_wait(self, role: ArmRole, target: ArmTarget) -> bool:
        """Whether another adapter has to be ready first: the engine has room for one that comes.

        The main adapter waits for no trial, which may hang; but for its own, to move over.
        """
        others = [loading for name, loading in self._loading.items() if name != role.name]
        if role.fallback is None:
            return any(other.target.digest == target.digest for other in others)
        return bool(others)

    def _take(self, loading: _Loading) -> None:
        role, target = loading.role, loading.target
        try:
            adapter = loading.bring_up.take()
        except Refusal as refusal:
            self._refuse(loading, refusal)
            return
        self._incomplete.pop(role.name, None)
        self._retries.pop(role.name, None)
        self._events.clear_refusal(role)
        self._events.loaded(role, adapter, self._clock() - loading.since)
        arm = Arm(role, adapter, target.share)
        self._router.schedule(lambda split: split.with_arm(arm))

    def _refuse(self, loading: _Loading, refusal: Refusal) -> None:
        role, target, now = loading.role, loading.target, self._clock()
        if self.closing:
            return
        if refusal.reason == "files" and self._may_still_come(role.name, target.digest):
            _log.info("adapter.incomplete", role=role.name, problem=refusal.problem)
            self._retries[role.name] = (role, ArmRetry(target, 0, now))
            return
        problem = refusal.problem
        if refusal.reason == "memory" and role.fallback is None:
            declined = self._declined
            if declined is not None and declined.digest == target.digest:
                problem = f"{declined.problem} (when this worker started); and now: {problem}"
            elif self._restart.ask(target, problem):
                return
        _, last = self._retries.pop(role.name, (role, None))
        retry = next_retry(target, refusal, last, now)
        if retry is not None:
            self._retries[role.name] = (role, retry)
            problem += f" (tried again in {retry.at - now:.0f} s)"
        self._events.refuse(role, target.digest, target.name, refusal.reason, problem)

    def _hung(self) -> Refusal:
        return Refusal(
            "hung",
            f"it was not loaded and tried within {self._load_timeout_s:g} s: look at the "
            "engine, and publish it again or restart",
        )

    def _serves_as_fallback(self, role: ArmRole, target: ArmTarget) -> bool:
        """Whether the records would be labelled by the same adapter without this arm."""
        main = self._router.latest.main
        return role.labels and role.fallback is not None and target.digest == main.digest

    def _reuse(self, role: ArmRole, target: ArmTarget) -> bool:
        """Have an adapter that labels already serve in this role; tell if there was one.

        In its own arm it gets another share; from another it moves over, as when it is promoted.
        """
        for arm in self._router.latest.arms:
            if arm.adapter.digest != target.digest or not (arm.role.labels and role.labels):
                continue
            if arm.role is role or _is_alive(arm.adapter):
                moved = Arm(role, arm.adapter, target.share)
                self._router.schedule(partial(_move, arm=arm, moved=moved))
                if self._router.latest.get(role) == moved:
                    return True
        return False

    def _may_still_come(self, role: Role, digest: str) -> bool:
        """Whether missing files of this adapter are waited for: a while from the first try on."""
        known, since = self._incomplete.get(role, (None, 0.0))
        if known != digest:
            since = self._clock()
            self._incomplete[role] = (digest, since)
        return self._clock() - since < self._patience_s


def _move(split: TrafficSplit, arm: Arm, moved: Arm) -> TrafficSplit:
    now = split.get(arm.role)
    if now is None or now.adapter is not arm.adapter:  # it was stopped meanwhile
        return split
    return split.without(arm.role).with_arm(moved)


def _is_alive(adapter: ServingAdapter) -> bool:
    """Whether the adapter's engine answers: the loop may not have noticed yet that it died."""
    try:
        adapter.engine.check_health()
    except EngineDied:
        return False
    return True
