"""Arms: the adapters in service, each in a role and with its share of the traffic.

``AdapterRouter`` holds the split of the traffic and the moment when it changes. ``ShadowTraffic``
has other adapters label a share of the records for comparison.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Literal

from worker.core.labeller import Prepared, ServingAdapter
from worker.engine.port import Answer
from worker.errors import EngineDied, MessageRejected
from worker.records.types import Classified, Record, Timing

Role = Literal["main", "canary", "shadow"]


@dataclass(frozen=True, slots=True)
class ArmRole:
    """What an arm is there for, whichever adapter is in it.

    ``labels``: what its adapter answers is the record's label; without it the adapter labels the
    record as well, for comparison, and its label is not used. ``judged``: while it serves it is
    compared with its fallback, and stopped if it does worse. ``fallback``: the role that does its
    records when the arm ends or its engine dies; with None nothing can, and the worker ends.
    """

    name: Role
    labels: bool = True
    judged: bool = False
    fallback: Role | None = None


MAIN = ArmRole("main")
CANARY = ArmRole("canary", judged=True, fallback="main")
SHADOW = ArmRole("shadow", labels=False, fallback="main")

ARM_ROLES = (MAIN, CANARY, SHADOW)
"""All there are, in the order in which they are asked for a record; only the first has no fallback.

A further arm is one more entry here, and a source that names its adapter (``worker.serving``).
"""


@dataclass(frozen=True, slots=True)
class Arm:
    """An adapter in a role, and the share of the records (0 to 1) that it takes.

    An arm that labels takes its share of what no arm before it takes; one that does not, of all.
    """

    role: ArmRole
    adapter: ServingAdapter
    share: float = 1.0

    def takes(self, record: Record) -> bool:
        """Return whether the record is in this arm's share: the same key always is, or never."""
        if not self.share:
            return False
        return place_of(record, f"{self.role.name} {self.adapter.digest}") < self.share


@dataclass(frozen=True, slots=True)
class TrafficSplit:
    """The arms that serve, in the order of ``ARM_ROLES`` and no role twice.

    The first arm is always there and has no fallback: it labels what no other arm takes.
    """

    arms: tuple[Arm, ...]

    @classmethod
    def all_to(cls, adapter: ServingAdapter) -> TrafficSplit:
        """Return the split in which one adapter labels everything."""
        return cls((Arm(MAIN, adapter),))

    @property
    def main(self) -> ServingAdapter:
        """The adapter that labels what no other arm takes."""
        return self.arms[0].adapter

    @property
    def adapters(self) -> tuple[ServingAdapter, ...]:
        """The adapters of all arms, the main one first."""
        return tuple(arm.adapter for arm in self.arms)

    @property
    def ratios(self) -> tuple[float, ...]:
        """What each arm really takes of all records: those of arms that label add up to 1."""
        left, ratios = 1.0, []
        for arm in self.arms[1:]:
            ratios.append(left * arm.share if arm.role.labels else arm.share)
            left -= ratios[-1] if arm.role.labels else 0.0
        return (left, *ratios)

    def get(self, role: ArmRole) -> Arm | None:
        """Return the arm in this role, None where there is none."""
        return next((arm for arm in self.arms if arm.role is role), None)

    def arm_of(self, adapter: ServingAdapter) -> Arm | None:
        """Return the arm that this adapter is in, None when it does not serve."""
        return next((arm for arm in self.arms if arm.adapter is adapter), None)

    def fallback_of(self, arm: Arm) -> Arm:
        """Return the arm that does another one's records when that ends."""
        found = (other for other in self.arms if other.role.name == arm.role.fallback)
        return next(found, self.arms[0])

    def with_arm(self, arm: Arm) -> TrafficSplit:
        """Have this arm serve, in place of the one in its role if there is one."""
        others = [other for other in self.arms if other.role is not arm.role]
        return TrafficSplit(tuple(sorted([*others, arm], key=_order)))

    def without(self, role: ArmRole) -> TrafficSplit:
        """End the arm in this role; one without a fallback stays."""
        if role.fallback is None:
            return self
        return TrafficSplit(tuple(arm for arm in self.arms if arm.role is not role))


def _order(arm: Arm) -> int:
    return ARM_ROLES.index(arm.role)


_SPACE = 1 << 64


def place_of(record: Record, salt: str) -> float:
    """Return the record's place in [0, 1) by its key, or its id where it has none.

    The same key has the same place under the same ``salt`` on every worker; under another salt
    it has another, so that two shares are drawn independently.
    """
    unit = record.id.encode() if record.key is None else record.key
    # Length first: no salt and key can be another salt and key.
    seed = f"{len(salt)}:{salt}".encode()
    digest = hashlib.blake2b(seed + unit, digest_size=8).digest()
    return int.from_bytes(digest, "big") / _SPACE


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
        pending split that therefore never serve are reported as idle.
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


ShadowDrop = Literal["busy", "late", "failed", "no_label", "not_published"]
"""Why a shadow's label was left out: too many in flight; not answered in time; no answer or none
that is a label; the record itself got no label; the batch was published at another try."""


class ShadowRequest:
    """One record that a shadow labels. All but ``note_answer`` is for the loop's thread.

    ``result`` is there once ``close`` has found the answer; ``dropped`` says why there is none.
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
        """Begin to label the record. What goes wrong is kept as ``dropped``."""
        try:
            self._prepared = self.adapter.labeller.prepare(record)
            self._submitted_at = at
            self._future = self.adapter.engine.submit(self._prepared.prompt_ids)
        except (MessageRejected, EngineDied):
            self.dropped = "failed"
            return
        self._future.add_done_callback(on_answer)

    def note_answer(self, at: float) -> None:
        """Note when the engine was done. From any thread."""
        self._answered_at = at

    def close(self) -> None:
        """Take the answer if it is there; give it up if not. Does not wait. Safe to call twice."""
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
        """Leave it out of whatever is published next."""
        self.close()
        if self.dropped is None:
            self.result, self.dropped = None, why


class ShadowTraffic:
    """Has shadows label records, at most ``max_in_flight`` at a time.

    Their labels are not used, and their work never delays or fails a record's own result: a
    shadow's label is published with the record's own if it is ready by then, and is left out and
    counted otherwise.
    """

    def __init__(
        self, router: AdapterRouter, max_in_flight: int, clock: Callable[[], float]
    ) -> None:
        self._router = router
        self._max_in_flight = max_in_flight
        self._clock = clock
        self._answered: queue.SimpleQueue[ServingAdapter] = queue.SimpleQueue()
        self.in_flight = 0
        """Prompts that were not answered or given up yet, as of the last ``poll``."""

    def submit(self, record: Record) -> Sequence[ShadowRequest]:
        """Have the record labelled by each shadow that it is in the share of."""
        if not self._router.has_shadows:
            return ()
        return [self._submit(record, adapter) for adapter in self._router.choose_shadows(record)]

    def poll(self) -> None:
        """Count what the engines have answered or given up."""
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
