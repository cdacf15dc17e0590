"""Which adapter a record goes to, and the moment when that changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from worker.core.arms import Arm, TrafficSplit
from worker.core.serving_adapter import ServingAdapter
from worker.errors import EngineDied
from worker.records.types import Record


@dataclass(frozen=True, slots=True)
class SplitChanged:
    """From the next record on ``now`` serves."""

    before: TrafficSplit
    now: TrafficSplit


@dataclass(frozen=True, slots=True)
class AdapterIdle:
    """Nothing in flight is this adapter's and nothing will be: it may be closed."""

    adapter: ServingAdapter


@dataclass(frozen=True, slots=True)
class AdapterFailed:
    """An adapter's engine cannot answer, and another adapter does its records.

    ``arm`` is the one it was in, None if it served no more.
    """

    adapter: ServingAdapter
    arm: Arm | None
    error: EngineDied


RouterEvent = SplitChanged | AdapterIdle | AdapterFailed


class AdapterRouter:
    """Holds the traffic split. Only ``apply_pending`` and what ends an arm change it, on the
    loop's thread, between two records.

    Records keep the adapter they were accepted with. An adapter that has left the split is told
    as idle when the last of its records is finished and the last of its prompts is answered.
    """

    def __init__(self, split: TrafficSplit, listener: Callable[[RouterEvent], None]) -> None:
        """``listener`` is called on the loop's thread; it must not block and must not raise."""
        self._listener = listener
        self._lock = threading.Lock()
        self._pending: TrafficSplit | None = None
        self._retired: list[ServingAdapter] = []
        self._dead: set[ServingAdapter] = set()
        self._set(split)

    @property
    def split(self) -> TrafficSplit:
        """What serves now. Safe from any thread."""
        return self._split

    @property
    def latest(self) -> TrafficSplit:
        """What serves, or will from the next iteration on. From any thread."""
        return self._pending or self._split

    @property
    def retired(self) -> tuple[ServingAdapter, ...]:
        """Adapters that serve no more and have something in flight. Safe from any thread."""
        return tuple(self._retired)

    @property
    def main(self) -> ServingAdapter:
        """The adapter that labels what no other does."""
        return self._split.main

    def schedule(self, change: Callable[[TrafficSplit], TrafficSplit]) -> None:
        """Have another split serve from the loop's next iteration on. From any thread.

        ``change`` is given the latest split, also one that is still pending. Adapters of a
        pending split that so never serve are told as idle.
        """
        with self._lock:
            latest = self._pending or self._split
            changed = change(latest)
            if changed == latest:
                return
            overtaken, self._pending = self._pending, changed
            busy = {*changed.adapters, *self._split.adapters, *self._retired}
        for adapter in overtaken.adapters if overtaken else ():
            if adapter not in busy:
                self._listener(AdapterIdle(adapter))

    def apply_pending(self) -> None:
        """Let the pending split serve, if there is one, and let go of idle adapters."""
        if self._pending is not None:
            with self._lock:
                split, self._pending = self._pending, None
            if split is not None:
                self._change(split)
        if self._retired:
            for adapter in [adapter for adapter in self._retired if adapter.idle]:
                self._retired.remove(adapter)
                self._dead.discard(adapter)
                self._listener(AdapterIdle(adapter))

    def choose(self, record: Record) -> ServingAdapter:
        """Return the adapter that labels this record."""
        for arm in self._labelling:
            if arm.takes(record):
                return arm.adapter
        return self._split.main

    @property
    def has_shadows(self) -> bool:
        """Whether any adapter labels records for comparison alone."""
        return bool(self._for_comparison)

    def choose_shadows(self, record: Record) -> list[ServingAdapter]:
        """Return the adapters that label this record as well, for comparison."""
        return [arm.adapter for arm in self._for_comparison if arm.takes(record)]

    def stop(self, adapter: ServingAdapter) -> None:
        """Give an adapter no more records, whatever arm it is in. Called on the loop's thread.

        The adapter of an arm without a fallback serves on.
        """
        with self._lock:
            if self._pending is not None:
                self._pending = _without(self._pending, adapter)
        split = _without(self._split, adapter)
        if split != self._split:
            self._change(split)

    def fail(self, adapter: ServingAdapter, error: EngineDied) -> ServingAdapter:
        """Go on without an adapter whose engine has died; return the one that does its records.

        Raises that error when the adapter's arm has no fallback.
        """
        arm = self._split.arm_of(adapter)
        if arm is not None and arm.role.fallback is None:
            raise error
        fallback = self._split.fallback_of(arm).adapter if arm is not None else self._split.main
        if adapter not in self._dead:
            self._dead.add(adapter)
            self._listener(AdapterFailed(adapter, arm, error))
            self.stop(adapter)
        return fallback

    def check_health(self) -> None:
        """Raise EngineDied when the main adapter's engine cannot answer. From any thread."""
        self._split.main.engine.check_health()

    def _change(self, split: TrafficSplit) -> None:
        with self._lock:
            before = self._split
            self._set(split)
            # One that was stopped may be back in another role before it was idle.
            self._retired = [
                adapter
                for adapter in (*self._retired, *before.adapters)
                if adapter not in split.adapters
            ]
        self._listener(SplitChanged(before, split))

    def _set(self, split: TrafficSplit) -> None:
        self._split = split
        self._labelling = tuple(arm for arm in split.arms[1:] if arm.role.labels)
        self._for_comparison = tuple(arm for arm in split.arms if not arm.role.labels)


def _without(split: TrafficSplit, adapter: ServingAdapter) -> TrafficSplit:
    arm = split.arm_of(adapter)
    return split if arm is None else split.without(arm.role)
