"""Arms: the adapters in service, each with a role and a share of the traffic.

``AdapterRouter`` holds the traffic split and changes it between two records. ``ShadowTraffic`` has
further adapters label a share of the records for comparison.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Literal

from worker.contract.errors import MessageRejected
from worker.core.labeller import Prepared, ServingAdapter
from worker.engine.port import Answer
from worker.errors import EngineDied
from worker.records.types import Classified, Record, Timing

Role = Literal["main", "canary", "shadow"]


@dataclass(frozen=True, slots=True)
class ArmRole:
    """The purpose of an arm, independent of its adapter.

    - ``labels``: its adapter's answer is the record's label. Otherwise the adapter labels the
      record for comparison only.
    - ``judged``: it is compared with its fallback, and stopped if it does worse.
    - ``fallback``: the role that labels its records when the arm ends or its engine dies. With None
      the worker stops.
    """

    name: Role
    labels: bool = True
    judged: bool = False
    fallback: Role | None = None


MAIN = ArmRole("main")
CANARY = ArmRole("canary", judged=True, fallback="main")
SHADOW = ArmRole("shadow", labels=False, fallback="main")

ARM_ROLES = (MAIN, CANARY, SHADOW)
"""All roles, in the order in which arms are asked for a record. Only the first has no fallback.

To add an arm, add an entry here and a source that names its adapter (``worker.serving``).
"""


@dataclass(frozen=True, slots=True)
class Arm:
    """An adapter in a role, and the share (0 to 1) of the records that it takes.

    An arm that labels takes its share of the records that no earlier arm took. A shadow takes its
    share of all records.
    """

    role: ArmRole
    adapter: ServingAdapter
    share: float = 1.0

    def takes(self, record: Record) -> bool:
        """Return whether the record is in this arm's share. The answer depends on its key only."""
        return place_of(record, f"{self.role.name} {self.adapter.digest}") < self.share


@dataclass(frozen=True, slots=True)
class TrafficSplit:
    """The serving arms in the order of ``ARM_ROLES``, at most one for each role.

    The first arm always exists and has no fallback. It labels the records that no other arm takes.
    """

    arms: tuple[Arm, ...]

    @classmethod
    def all_to(cls, adapter: ServingAdapter) -> TrafficSplit:
        """Return the split in which one adapter labels all records."""
        return cls((Arm(MAIN, adapter),))

    @property
    def main(self) -> ServingAdapter:
        """The adapter of the main arm."""
        return self.arms[0].adapter

    @property
    def adapters(self) -> tuple[ServingAdapter, ...]:
        """The adapters of all arms, the main one first."""
        return tuple(arm.adapter for arm in self.arms)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Each arm's share of all records. The shares of arms that label add up to 1."""
        left, ratios = 1.0, []
        for arm in self.arms[1:]:
            ratios.append(left * arm.share if arm.role.labels else arm.share)
            left -= ratios[-1] if arm.role.labels else 0.0
        return (left, *ratios)

    def get(self, role: ArmRole) -> Arm | None:
        """Return the arm in this role, if any."""
        return next((arm for arm in self.arms if arm.role is role), None)

    def arm_of(self, adapter: ServingAdapter) -> Arm | None:
        """Return the arm that this adapter is in, None if it does not serve."""
        return next((arm for arm in self.arms if arm.adapter is adapter), None)

    def fallback_of(self, arm: Arm) -> Arm:
        """Return the arm that labels another arm's records when that one ends."""
        found = (other for other in self.arms if other.role.name == arm.role.fallback)
        return next(found, self.arms[0])

    def with_arm(self, arm: Arm) -> TrafficSplit:
        """Return the split with this arm, which replaces the arm in its role if there is one."""
        arms = [*(other for other in self.arms if other.role is not arm.role), arm]
        return TrafficSplit(tuple(sorted(arms, key=lambda each: ARM_ROLES.index(each.role))))

    def without(self, role: ArmRole) -> TrafficSplit:
        """Return the split without the arm in this role. A role without a fallback stays."""
        if role.fallback is None:
            return self
        return TrafficSplit(tuple(arm for arm in self.arms if arm.role is not role))


_SPACE = 1 << 64


def place_of(record: Record, salt: str) -> float:
    """Hash the record's key, or its id if it has no key, to [0, 1).

    The same key and ``salt`` give the same number on every worker. Two salts give independent
    numbers, so that two shares are drawn independently.
    """
    unit = record.id.encode() if record.key is None else record.key
    # The length comes first, so that no other pair of salt and key gives the same bytes.
    seed = f"{len(salt)}:{salt}".encode()
    # Not hash(): Python salts it for each process, and every worker must choose the same arm.
    digest = hashlib.blake2b(seed + unit, digest_size=8).digest()
    return int.from_bytes(digest, "big") / _SPACE


@dataclass(frozen=True, slots=True)
class SplitChanged:
    """``now`` serves from the next record on."""

    before: TrafficSplit
    now: TrafficSplit


@dataclass(frozen=True, slots=True)
class AdapterIdle:
    """This adapter no longer serves and has nothing in flight: it may be closed."""

    adapter: ServingAdapter


@dataclass(frozen=True, slots=True)
class AdapterFailed:
    """An adapter's engine died, and another adapter labels its records.

    ``arm`` is the arm it was in, None if it no longer served.
    """

    adapter: ServingAdapter
    arm: Arm | None
    error: EngineDied


RouterEvent = SplitChanged | AdapterIdle | AdapterFailed


class AdapterRouter:
    """Holds the traffic split, and changes it on the loop's thread between two records.

    Records keep the adapter that they were admitted with. An adapter that has left the split is
    reported as idle once its last record is finished and its last prompt is answered.
    """

    def __init__(self, split: TrafficSplit, listener: Callable[[RouterEvent], None]) -> None:
        """``listener`` is called on the loop's thread. It must not block or raise."""
        self._listener = listener
        self._lock = threading.Lock()
        self._pending: TrafficSplit | None = None
        self._retired: list[ServingAdapter] = []
        self._dead: set[ServingAdapter] = set()
        self._set(split)

    @property
    def split(self) -> TrafficSplit:
        """The split that serves now. Safe from any thread."""
        return self._split

    @property
    def latest(self) -> TrafficSplit:
        """The pending split, or the one that serves. Safe from any thread."""
        return self._pending or self._split

    @property
    def retired(self) -> tuple[ServingAdapter, ...]:
        """Adapters that no longer serve but have something in flight. Safe from any thread."""
        return tuple(self._retired)

    @property
    def main(self) -> ServingAdapter:
        """The main arm's adapter."""
        return self._split.main

    def schedule(self, change: Callable[[TrafficSplit], TrafficSplit]) -> None:
        """Change the split at the loop's next iteration. Safe from any thread.

        ``change`` gets the latest split, which may be pending. Adapters of a pending split that
        now never serve are reported as idle.
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
        """Switch to the pending split, if there is one, and report idle adapters."""
        if self._pending is not None:  # without the lock first: this runs in every iteration
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

    def choose_shadows(self, record: Record) -> list[ServingAdapter]:
        """Return the adapters that label this record for comparison."""
        return [arm.adapter for arm in self._for_comparison if arm.takes(record)]

    def stop(self, adapter: ServingAdapter) -> None:
        """Remove an adapter's arm, unless it has no fallback. For the loop's thread."""
        with self._lock:
            if self._pending is not None:
                self._pending = _without(self._pending, adapter)
        split = _without(self._split, adapter)
        if split != self._split:
            self._change(split)

    def fail(self, adapter: ServingAdapter, error: EngineDied) -> ServingAdapter:
        """Remove an adapter whose engine has died; return the one that labels its records.

        Raises ``error`` if the adapter's arm has no fallback.
        """
        arm = self._split.arm_of(adapter)
        if arm is not None and arm.role.fallback is None:
            raise error
        fallback = self._split.fallback_of(arm).adapter if arm is not None else self._split.main
        # Each of its records reports the death, and one report is enough.
        if adapter not in self._dead:
            self._dead.add(adapter)
            self._listener(AdapterFailed(adapter, arm, error))
            self.stop(adapter)
        return fallback

    def check_health(self) -> None:
        """Raise EngineDied if the main adapter's engine is dead. Safe from any thread."""
        self._split.main.engine.check_health()

    def _change(self, split: TrafficSplit) -> None:
        with self._lock:
            before = self._split
            self._set(split)
            # A retired adapter may serve again, in another role, before it was idle.
            self._retired = [
                adapter
                for adapter in (*self._retired, *before.adapters)
                if adapter not in split.adapters
            ]
        self._listener(SplitChanged(before, split))

    def _set(self, split: TrafficSplit) -> None:
        self._split = split
        # Computed here, because ``choose`` runs for every record.
        self._labelling = tuple(arm for arm in split.arms[1:] if arm.role.labels)
        self._for_comparison = tuple(arm for arm in split.arms if not arm.role.labels)


def _without(split: TrafficSplit, adapter: ServingAdapter) -> TrafficSplit:
    arm = split.arm_of(adapter)
    return split if arm is None else split.without(arm.role)


ShadowDrop = Literal["busy", "late", "failed", "no_label", "not_published"]
"""Why a shadow's label was dropped: too many requests in flight; no answer in time; an error or an
answer that is not a label; the record itself got no label; the batch had to be published again."""


class ShadowRequest:
    """One record in a shadow's engine. For the loop's thread, except ``note_answer``.

    ``close`` sets ``result``, or ``dropped`` with the reason why there is none.
    """

    def __init__(self, adapter: ServingAdapter, fetched_at: float) -> None:
        self.adapter = adapter
        self.result: Classified | None = None
        self.dropped: ShadowDrop | None = None
        self._fetched_at = fetched_at
        self._submitted_at = fetched_at
        self._answered_at = fetched_at
        self._prepared: Prepared | None = None
        self._future: Future[Answer] | None = None

    def submit(
        self, record: Record, at: float, on_answer: Callable[[Future[Answer]], None]
    ) -> None:
        """Submit the record. Errors end in ``dropped``."""
        try:
            self._prepared = self.adapter.labeller.prepare(record)
            self._submitted_at = at
            self._future = self.adapter.engine.submit(self._prepared.prompt_ids)
        except (MessageRejected, EngineDied):
            self.dropped = "failed"
            return
        self._future.add_done_callback(on_answer)

    def note_answer(self, at: float) -> None:
        """Note when the engine answered. Safe from any thread."""
        self._answered_at = at

    def close(self) -> None:
        """Take the answer if it has arrived, otherwise cancel it. Never waits. Idempotent."""
        future, self._future = self._future, None
        if future is None:
            return
        if not future.done():
            future.cancel()
            self.dropped = "late"
            return
        assert self._prepared is not None
        timing = Timing(
            self._submitted_at - self._fetched_at, self._answered_at - self._submitted_at
        )
        try:
            answer = future.result(timeout=0)
            self.result = self.adapter.labeller.classify(self._prepared, answer, timing)
        except (MessageRejected, EngineDied, CancelledError):
            self.dropped = "failed"

    def drop(self, why: ShadowDrop) -> None:
        """Drop the label, so that the next attempt to publish leaves it out."""
        self.close()
        if self.dropped is None:
            self.result, self.dropped = None, why


class ShadowTraffic:
    """Submits records to shadows, at most ``max_in_flight`` at a time.

    A shadow never delays or fails a record's own result. Its label is published together with the
    record's if it has arrived by then, and is dropped and counted otherwise.
    """

    def __init__(
        self, router: AdapterRouter, max_in_flight: int, clock: Callable[[], float]
    ) -> None:
        self._router = router
        self._max_in_flight = max_in_flight
        self._clock = clock
        self._answered: queue.SimpleQueue[ServingAdapter] = queue.SimpleQueue()
        self.in_flight = 0
        """Prompts without an answer, as of the last ``poll``."""

    def submit(self, record: Record) -> Sequence[ShadowRequest]:
        """Submit the record to each shadow whose share it is in."""
        return [self._submit(record, adapter) for adapter in self._router.choose_shadows(record)]

    def poll(self) -> None:
        """Update ``in_flight`` with the answers since the last call."""
        while not self._answered.empty():
            self._answered.get().in_engine -= 1
            self.in_flight -= 1

    def _submit(self, record: Record, adapter: ServingAdapter) -> ShadowRequest:
        self.poll()
        now = self._clock()
        request = ShadowRequest(adapter, now)
        if self.in_flight >= self._max_in_flight:
            request.dropped = "busy"
            return request
        self.in_flight += 1
        adapter.in_engine += 1
        request.submit(record, now, lambda _: self._note_answer(request))
        if request.dropped is not None:
            self.in_flight -= 1
            adapter.in_engine -= 1
        return request

    def _note_answer(self, request: ShadowRequest) -> None:
        request.note_answer(self._clock())
        self._answered.put(request.adapter)
