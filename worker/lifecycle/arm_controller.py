"""Starts, swaps and retires the adapter of an arm: the one place that does."""

from __future__ import annotations

import time
from functools import partial

import structlog

from worker.core.adapter_router import AdapterRouter
from worker.core.arms import Arm, ArmRole, Role, TrafficSplit
from worker.core.serving_adapter import ServingAdapter
from worker.errors import EngineDied
from worker.lifecycle.arm_source import ArmTarget
from worker.lifecycle.events import AdapterEvents
from worker.lifecycle.factory import AdapterFactory
from worker.lifecycle.refusal import Refusal

_log = structlog.get_logger("worker.adapters")


class AdapterIncomplete(Exception):
    """An adapter's files are not all there: on a network file system they may come later than
    the pointer that names them."""


class ArmController:
    """Has arms served by what is named for them. All calls are for one thread.

    Files that are missing or wrong are waited for ``patience_s`` seconds before that is a refusal.
    """

    def __init__(
        self,
        router: AdapterRouter,
        events: AdapterEvents,
        factory: AdapterFactory,
        patience_s: float,
    ) -> None:
        self._router = router
        self._events = events
        self._factory = factory
        self._patience_s = patience_s
        self._incomplete: dict[Role, tuple[str, float]] = {}
        self.closing = False
        """Set when engines are about to be closed: what then fails is no adapter's fault."""

    def apply(self, role: ArmRole, target: ArmTarget | None) -> None:
        """Have the arm in this role served by ``target``; None ends it. Blocks while it loads.

        What is refused is told, and what serves goes on. Raises AdapterIncomplete: try again.
        """
        self._events.clear(role)
        if target is None or self._serves_as_fallback(role, target):
            self._router.schedule(lambda split: split.without(role))
            return
        if self._reuse(role, target):
            return
        # Another adapter is in the arm until then: its fallback serves until this one is ready.
        # An arm that has none keeps the adapter it has.
        self._router.schedule(lambda split: split.without(role))
        adapter = self._bring_up(role, target)
        if adapter is not None:
            arm = Arm(role, adapter, target.share)
            self._router.schedule(lambda split: split.with_arm(arm))

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

    def _bring_up(self, role: ArmRole, target: ArmTarget) -> ServingAdapter | None:
        """Make an adapter ready; None when it is refused. Blocks. Raises AdapterIncomplete."""
        started = time.monotonic()
        self._events.loading(role, target.name, target.digest)
        try:
            adapter = self._factory.make(
                target.directory,
                target.digest,
                self._router.latest.main.manifest,
                compare=target.compare,
                background=not role.labels,
            )
        except Refusal as error:
            if error.reason == "files" and self._may_still_come(role.name, target.digest):
                _log.info("adapter.incomplete", role=role.name, problem=error.problem)
                raise AdapterIncomplete from error
            if not self.closing:
                self._events.refuse(role, target.digest, target.name, error.reason, error.problem)
            return None
        self._incomplete.pop(role.name, None)
        self._events.loaded(role, adapter, time.monotonic() - started)
        return adapter

    def _may_still_come(self, role: Role, digest: str) -> bool:
        """Whether missing files of this adapter are waited for: a while from the first try on."""
        known, since = self._incomplete.get(role, (None, 0.0))
        if known != digest:
            since = time.monotonic()
            self._incomplete[role] = (digest, since)
        return time.monotonic() - since < self._patience_s


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
