"""Which adapter a record goes to, and the moment when that changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from worker.core.serving_adapter import ServingAdapter, TrafficSplit
from worker.core.share import place_of
from worker.errors import EngineDied
from worker.records.types import Record


class AdapterRouterListener(Protocol):
    """Told of changes. Called on the loop's thread; must not block and must not raise."""

    def changed(self, before: TrafficSplit, now: TrafficSplit) -> None:
        """From the next record on these serve."""
        ...

    def idle(self, served: ServingAdapter) -> None:
        """Nothing in flight is this one's and nothing will be: it may be closed."""
        ...

    def failed(self, served: ServingAdapter, error: EngineDied) -> None:
        """An adapter beside the main one cannot answer; the main one does its records."""
        ...


class AdapterRouter:
    """Holds the line-up. Only ``turn`` changes it, on the loop's thread, between two records.

    Records keep the adapter they were accepted with. One that has left the line-up is told as
    idle when the last of its records is finished and the last of its prompts is answered.
    """

    def __init__(self, split: TrafficSplit, listener: AdapterRouterListener) -> None:
        self._split = split
        self._listener = listener
        self._lock = threading.Lock()
        self._next: TrafficSplit | None = None
        self._retired: list[ServingAdapter] = []
        self._dead: set[ServingAdapter] = set()

    @property
    def split(self) -> TrafficSplit:
        """Who serves now. Safe from any thread."""
        return self._split

    @property
    def retired(self) -> tuple[ServingAdapter, ...]:
        """Those that serve no more and have something in flight. Safe from any thread."""
        return tuple(self._retired)

    @property
    def main(self) -> ServingAdapter:
        """The adapter that labels what no other does."""
        return self._split.main

    def schedule(self, change: Callable[[TrafficSplit], TrafficSplit]) -> None:
        """Have others serve from the next turn on. From any thread.

        ``change`` is given the latest line-up, also one that waits for its turn. Adapters that
        so never get their turn are told as idle.
        """
        with self._lock:
            passed_over = self._next
            latest = self._next = change(passed_over or self._split)
            busy = {*latest.members, *self._split.members, *self._retired}
        for one in passed_over.members if passed_over else ():
            if one not in busy:
                self._listener.idle(one)

    @property
    def latest(self) -> TrafficSplit:
        """Who serves, or will from the next turn on. From any thread."""
        return self._next or self._split

    def turn(self) -> None:
        """Change over if there is a new line-up, and let go of who has nothing left to do."""
        if self._next is not None:
            with self._lock:
                split, self._next = self._next, None
            if split is not None:
                self._change(split)
        if self._retired:
            for one in [one for one in self._retired if one.idle]:
                self._retired.remove(one)
                self._dead.discard(one)
                self._listener.idle(one)

    def choose(self, record: Record) -> ServingAdapter:
        """Return the adapter that labels this record."""
        split = self._split
        canary = split.canary
        if canary is None or not split.canary_share:
            return split.main
        in_share = place_of(record, f"canary {canary.digest}") < split.canary_share
        return canary if in_share else split.main

    def shadow_of(self, record: Record) -> ServingAdapter | None:
        """Return the adapter that labels this record too, for show, if any does."""
        split = self._split
        if split.shadow is None or not split.shadow_share:
            return None
        in_share = place_of(record, f"shadow {split.shadow.digest}") < split.shadow_share
        return split.shadow if in_share else None

    def stop_canary(self, canary: ServingAdapter) -> None:
        """Give this canary no more records. Called on the loop's thread."""
        self._leave(canary)

    def fail(self, served: ServingAdapter, error: EngineDied) -> None:
        """Go on without this one, whose engine has died. Raises that error for the main one."""
        if served is self._split.main:
            raise error
        if served in self._dead:
            return
        self._dead.add(served)
        self._listener.failed(served, error)
        self._leave(served)

    def check_health(self) -> None:
        """Raise EngineDied when the main adapter's engine cannot answer. From any thread."""
        self._split.main.engine.check_health()

    def _leave(self, served: ServingAdapter) -> None:
        """Take one out, also of the line-up that waits for its turn."""
        with self._lock:
            if self._next is not None:
                self._next = _without(self._next, served)
        if served in self._split.members:
            self._change(_without(self._split, served))

    def _change(self, split: TrafficSplit) -> None:
        with self._lock:
            before, self._split = self._split, split
            # One that was stopped may be back in another role before it was idle.
            self._retired = [
                one for one in (*self._retired, *before.members) if one not in split.members
            ]
        self._listener.changed(before, split)


def _without(split: TrafficSplit, served: ServingAdapter) -> TrafficSplit:
    if served is split.canary:
        split = replace(split, canary=None, canary_share=0.0)
    if served is split.shadow:
        split = replace(split, shadow=None, shadow_share=0.0)
    return split
