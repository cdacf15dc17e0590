"""Start, swap, and retire the adapters of arms. No other module does.

A source names the adapter of an arm: a pointer in the store, or a setting. The controller loads and
verifies that adapter on a thread, puts it into service, and retries loads that failed for a
temporary reason. If there is no memory for two engines, it can restart the worker.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from worker.common.errors import describe_private
from worker.contract import Manifest, read_manifest
from worker.contract.store import CanaryPointer, Pointer, find_stored, read_canary, read_pointer
from worker.contract.verify import attach_probes
from worker.core.arms import CANARY, MAIN, AdapterRouter, Arm, ArmRole, TrafficSplit
from worker.core.labeller import ServingAdapter
from worker.engine.port import Declined
from worker.errors import EngineDied, RestartNeeded
from worker.lifecycle.events import AdapterEvents, Refusal
from worker.lifecycle.preflight import AdapterFactory

LOAD_TIMEOUT_S = 600.0
"""Merging an adapter into a 7B base takes five minutes on slow disks; a longer load hangs."""

_log = structlog.get_logger("worker.adapters")
_FIRST_S = 60.0
_TRIES = 5
_INCOMPLETE_S = 1.0
# Reasons that may pass: memory that is in use now, a file system with a hiccup. Wrong files and
# failed probes stay wrong. A load that hangs is not retried either: each attempt would block
# another thread and another slot of the engine.
_MAY_PASS = frozenset({"memory", "engine", "unexpected"})


@dataclass(frozen=True, slots=True)
class ArmTarget:
    """The adapter named for an arm, and the arm's share of the traffic (0 to 1).

    ``compare``: on the main adapter's probes it must be about as good as the main adapter.
    ``pointer``: the pointer that names it, if there is one. A pointer that is written again is
    another target, so that a refused adapter is tried again.
    """

    directory: Path
    digest: str
    name: str
    share: float
    compare: bool
    pointer: Pointer | CanaryPointer | None = None


@dataclass(frozen=True, slots=True)
class ArmSource:
    """Names the adapter of one arm.

    ``read`` returns None if none is named, and raises AdapterRefused if the name cannot be read. A
    ``fixed`` name never changes: its adapter is loaded, or refused, once.
    """

    role: ArmRole
    read: Callable[[], ArmTarget | None]
    fixed: bool = False


def current_adapter(store: Path) -> ArmSource:
    """Return the source of the main adapter: the store's current one.

    An adapter that was forced or rolled back to is not compared with the serving one.
    """

    def read() -> ArmTarget | None:
        pointer = read_pointer(store)
        if pointer is None:
            return None
        directory, compare = store / pointer.digest, is_compared(pointer)
        return ArmTarget(directory, pointer.digest, pointer.name, 1.0, compare, pointer)

    return ArmSource(MAIN, read)


def is_compared(pointer: Pointer) -> bool:
    """Return whether a new current adapter must be about as good as the one before it."""
    return pointer.event not in {"force", "rollback"}


def adapter_before(store: Path, pointer: Pointer) -> Manifest | None:
    """Return the manifest of the previous adapter, with which a starting worker compares the
    current one. None if they are not compared.

    Raises AdapterRefused if it cannot be read any more.
    """
    if pointer.previous is None or not is_compared(pointer):
        return None
    directory = store / pointer.previous
    return attach_probes(read_manifest(directory), directory)


def canary_adapter(store: Path) -> ArmSource:
    """Return the source of the canary: the store's canary pointer."""

    def read() -> ArmTarget | None:
        # Unlike a current adapter, a canary that is rolled back has no pointer any more.
        pointer = read_canary(store)
        if pointer is None:
            return None
        return ArmTarget(
            store / pointer.digest,
            pointer.digest,
            pointer.name,
            pointer.share,
            compare=not pointer.forced,
            pointer=pointer,
        )

    return ArmSource(CANARY, read)


def named_adapter(role: ArmRole, store: Path | None, name: str, share: float) -> ArmSource:
    """Return a source with a fixed adapter. ``name`` is its directory, or the beginning of its
    digest in the store."""

    def read() -> ArmTarget:
        directory, digest, stored_name = find_stored(store, name)
        return ArmTarget(directory, digest, stored_name, share, compare=False)

    return ArmSource(role, read, fixed=True)


@dataclass(frozen=True, slots=True)
class _Loading:
    """An adapter that is being loaded for an arm, ``since`` then (monotonic seconds)."""

    role: ArmRole
    target: ArmTarget
    bring_up: BringUp
    since: float


class ArmController:
    """Puts the adapters that are named for arms into service. For one thread; no call blocks.

    Each adapter is loaded and tried on its own thread, for ``load_timeout_s`` at most. An adapter
    that is named meanwhile replaces it. Missing or wrong files are refused only after
    ``patience_s``: on a network file system they may arrive later than the pointer that names them.
    If memory has no room for a second main adapter, ``restart`` is asked, except for the
    ``declined`` adapter, with which this worker could not start: it would restart for ever.
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
        self._loading: dict[ArmRole, _Loading] = {}
        self._waiting: dict[ArmRole, ArmTarget] = {}
        self._retries: dict[ArmRole, ArmRetry] = {}
        self._incomplete: dict[ArmRole, tuple[str, float]] = {}
        self.call_when_done: Callable[[], None] = lambda: None
        """Called from any thread when there is something to ``collect``."""
        self.closing = False
        """Set before engines are closed: later failures are not the adapters' fault."""

    def apply(self, role: ArmRole, target: ArmTarget | None) -> None:
        """Let ``target`` serve in this role once it is ready; None ends the arm.

        Replaces an adapter that is still being loaded for the role. If ``target`` is refused, that
        is reported and the serving adapter stays.
        """
        self._events.clear(role)
        self._waiting.pop(role, None)
        self._retries.pop(role, None)
        if (overtaken := self._loading.pop(role, None)) is not None:
            overtaken.bring_up.abandon()
            _log.info("adapter.superseded", role=role.name, adapter=overtaken.target.name)
        if target is None or self._serves_as_fallback(role, target):
            self._router.schedule(lambda split: split.without(role))
            return
        self._start(role, target)

    def try_again(self) -> None:
        """Load refused and incomplete adapters again whose wait is over."""
        for role, retry in list(self._retries.items()):
            if self._clock() >= retry.at and role not in self._loading:
                self._start(role, retry.target)

    def collect(self) -> None:
        """Handle loads that are done or overdue, and start the ones that waited for them."""
        for role, loading in list(self._loading.items()):
            if loading.bring_up.done:
                del self._loading[role]
                self._take(loading)
            elif self._clock() - loading.since > self._load_timeout_s:
                del self._loading[role]
                loading.bring_up.abandon()
                problem = (
                    f"it was not loaded and tried within {self._load_timeout_s:g} s: look at the "
                    "engine, and publish it again or restart the worker"
                )
                self._refuse(loading, Refusal("hung", problem))
        # _start puts a target back into _waiting if another load is still running.
        for role, target in list(self._waiting.items()):
            del self._waiting[role]
            self._start(role, target)

    def _start(self, role: ArmRole, target: ArmTarget) -> None:
        if self._reuse(role, target):
            return
        # End the arm now: its fallback serves until this adapter is ready. An arm without a
        # fallback keeps its adapter.
        self._router.schedule(lambda split: split.without(role))
        if self._must_wait(role, target):
            self._waiting[role] = target
            return
        self._events.loading(role, target.name, target.digest)
        make = partial(
            self._factory.make,
            target.directory,
            target.digest,
            compared_with=self._router.latest.main.manifest if target.compare else None,
            background=not role.labels,
        )
        # On its own thread: a warm-up that hung used to block the watcher, and with it every
        # rollback.
        bring_up = BringUp(make, self.call_when_done)
        self._loading[role] = _Loading(role, target, bring_up, self._clock())

    def _must_wait(self, role: ArmRole, target: ArmTarget) -> bool:
        """Return whether another load must end first: the engine has room for one new adapter.

        The main adapter does not wait for a canary, which may hang, unless it is the same adapter:
        then it moves over without being loaded twice.
        """
        others = [loading for other, loading in self._loading.items() if other is not role]
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
        self._incomplete.pop(role, None)
        self._retries.pop(role, None)
        self._events.clear_refusal(role)
        self._events.loaded(role, adapter, self._clock() - loading.since)
        arm = Arm(role, adapter, target.share)
        self._router.schedule(lambda split: split.with_arm(arm))

    def _refuse(self, loading: _Loading, refusal: Refusal) -> None:
        role, target, now = loading.role, loading.target, self._clock()
        if self.closing:
            return
        # A pointer may arrive before the files on a network file system: wait before refusing.
        if refusal.reason == "files" and self._may_still_come(role, target.digest):
            _log.info("adapter.incomplete", role=role.name, problem=refusal.problem)
            self._retries[role] = ArmRetry(target, 0, now + _INCOMPLETE_S)
            return
        problem = refusal.problem
        if refusal.reason == "memory" and role.fallback is None:
            declined = self._declined
            if declined is not None and declined.digest == target.digest:
                problem = f"{declined.problem} (when this worker started); now: {problem}"
            elif self._restart.ask(target, problem):
                return
        retry = next_retry(target, refusal, self._retries.pop(role, None), now)
        if retry is not None:
            self._retries[role] = retry
            problem += f" (tried again in {retry.at - now:.0f} s)"
        self._events.refuse(role, target.digest, target.name, refusal.reason, problem)

    def _serves_as_fallback(self, role: ArmRole, target: ArmTarget) -> bool:
        """Return whether the main adapter is the same one, so that the arm is not needed."""
        main = self._router.latest.main
        return role.labels and role.fallback is not None and target.digest == main.digest

    def _reuse(self, role: ArmRole, target: ArmTarget) -> bool:
        """Use an adapter that already serves for this role; return whether there was one.

        In the same arm it gets the new share. From another arm it moves over, as on promotion.
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

    def _may_still_come(self, role: ArmRole, digest: str) -> bool:
        """Return whether missing files may still arrive: for a while after the first attempt."""
        known, since = self._incomplete.get(role, (None, 0.0))
        if known != digest:
            since = self._clock()
            self._incomplete[role] = (digest, since)
        return self._clock() - since < self._patience_s


def _move(split: TrafficSplit, arm: Arm, moved: Arm) -> TrafficSplit:
    now = split.get(arm.role)
    if now is None or now.adapter is not arm.adapter:  # the arm was stopped meanwhile
        return split
    return split.without(arm.role).with_arm(moved)


def _is_alive(adapter: ServingAdapter) -> bool:
    """Return whether the engine is alive. The loop may not have noticed its death yet."""
    try:
        adapter.engine.check_health()
    except EngineDied:
        return False
    return True


class BringUp:
    """Runs ``make`` on a thread, stores its result, and then calls ``finished``.

    A call into an engine cannot be interrupted. One that hangs is abandoned; if it returns later,
    its adapter is closed at once.
    """

    def __init__(self, make: Callable[[], ServingAdapter], finished: Callable[[], None]) -> None:
        self._make = make
        self._finished = finished
        self._lock = threading.Lock()
        self._adapter: ServingAdapter | None = None
        self._refusal: Refusal | None = None
        self._abandoned = False
        self._done = threading.Event()
        # A daemon, because a load that hangs must not keep the process from exiting.
        threading.Thread(target=self._run, name="bring-up", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether there is a result."""
        return self._done.is_set()

    def take(self) -> ServingAdapter:
        """Return the adapter. Call it when ``done``. Raises Refusal."""
        if self._refusal is not None:
            raise self._refusal
        assert self._adapter is not None
        return self._adapter

    def abandon(self) -> None:
        """Close the adapter as soon as there is one. ``take`` must not be called any more."""
        with self._lock:
            self._abandoned = True
            if not self._done.is_set():
                return
        self._close()

    def _run(self) -> None:
        try:
            self._adapter = self._make()
        except Refusal as refusal:
            self._refusal = refusal
        except Exception as error:  # noqa: BLE001 - any error means that this adapter cannot serve
            self._refusal = Refusal("unexpected", describe_private(error))
            self._refusal.__cause__ = error
        with self._lock:
            abandoned = self._abandoned
            self._done.set()
        if abandoned:
            self._close()
        self._finished()

    def _close(self) -> None:
        if self._adapter is not None:
            self._adapter.engine.close()


@dataclass(frozen=True, slots=True)
class ArmRetry:
    """A target to load again at ``at`` (monotonic seconds). ``number`` counts from 1."""

    target: ArmTarget
    number: int
    at: float


def next_retry(
    target: ArmTarget, refusal: Refusal, last: ArmRetry | None, now: float
) -> ArmRetry | None:
    """Return the next attempt, after 1, 2, 4, and 8 minutes; None if the refusal is final."""
    number = last.number + 1 if last is not None and last.target == target else 1
    if refusal.reason not in _MAY_PASS or number >= _TRIES:
        return None
    return ArmRetry(target, number, now + _FIRST_S * 2 ** (number - 1))


class Restart:
    """A restart of the worker, requested by the watcher's thread and raised by the main thread.

    ``enabled``: whether ``adapters.when_too_large`` is "restart".
    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._why: str | None = None
        self.drain: Callable[[], None] = lambda: None
        """Called to stop the loop; set once the loop exists. Must not block."""

    def ask(self, target: ArmTarget, problem: str) -> bool:
        """Drain the worker, so that it starts again with ``target``, the store's main adapter.

        Returns whether it does.
        """
        if not self._enabled:
            return False
        self._why = f"{target.name} {target.digest[:12]} becomes current by a restart: {problem}"
        _log.warning(
            "adapter.restarting",
            adapter=target.name,
            adapter_digest=target.digest[:12],
            problem=problem,
        )
        self.drain()
        return True

    def check(self) -> None:
        """Raise RestartNeeded if a restart was requested."""
        if self._why is not None:
            raise RestartNeeded(self._why)
