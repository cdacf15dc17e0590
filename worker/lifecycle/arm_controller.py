"""Start, swap and retire the adapter of an arm. No other module does.

A source names the adapter of an arm: a pointer in the store, or a setting. The controller has it
brought up on a thread, takes it into service, and tries again what failed for a reason that may
pass. Where memory has no room for two engines, it can restart the worker.
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
from worker.core.arms import CANARY, MAIN, AdapterRouter, Arm, ArmRole, Role, TrafficSplit
from worker.core.labeller import ServingAdapter
from worker.engine.port import Declined
from worker.errors import EngineDied, RestartNeeded
from worker.lifecycle.events import AdapterEvents, Refusal
from worker.lifecycle.preflight import AdapterFactory

LOAD_TIMEOUT_S = 600.0
"""A 7B base that is merged on slow disks takes five minutes; what takes longer hangs."""

_log = structlog.get_logger("worker.adapters")
_FIRST_S = 60.0
_TRIES = 5
_MAY_PASS = frozenset({"memory", "engine", "unexpected"})
"""Memory that is taken at the moment, a file system that hiccups. What a file or a probe says stays
so, and a load that hangs would leave one more thread and one more slot of the engine behind."""


@dataclass(frozen=True, slots=True)
class ArmTarget:
    """The adapter that is named for an arm, and the arm's share of the traffic (0 to 1).

    ``compare``: it must do about as well as the main adapter on that one's own probes. ``pointer``
    is what named it, if that can change: written again it is another target, so that an adapter
    that was refused is tried again.
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

    ``read`` returns None where none is named, and raises AdapterRefused where that cannot be told.
    A ``fixed`` name never changes: its adapter is brought up, or refused, once.
    """

    role: ArmRole
    read: Callable[[], ArmTarget | None]
    fixed: bool = False


def current_adapter(store: Path) -> ArmSource:
    """Return what names the main adapter: the store's current one.

    What a person forced, or rolled back to, is not compared with what serves.
    """

    def read() -> ArmTarget | None:
        pointer = read_pointer(store)
        if pointer is None:
            return None
        directory, compare = store / pointer.digest, is_compared(pointer)
        return ArmTarget(directory, pointer.digest, pointer.name, 1.0, compare, pointer)

    return ArmSource(MAIN, read)


def is_compared(pointer: Pointer) -> bool:
    """Whether what became current has to do about as well as what was current before."""
    return pointer.event not in {"force", "rollback"}


def adapter_before(store: Path, pointer: Pointer) -> Manifest | None:
    """Return the contract of the adapter that a worker compares the current one with when it
    starts: the one before it. None where there is nothing to compare.

    Raises AdapterRefused where that one cannot be read any more.
    """
    if pointer.previous is None or not is_compared(pointer):
        return None
    directory = store / pointer.previous
    return attach_probes(read_manifest(directory), directory)


def canary_adapter(store: Path) -> ArmSource:
    """Return what names the canary: the store's canary pointer."""

    def read() -> ArmTarget | None:
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
    """Return what names one adapter for good: its directory, or the beginning of its digest in
    the store."""

    def read() -> ArmTarget:
        directory, digest, stored_name = find_stored(store, name)
        return ArmTarget(directory, digest, stored_name, share, compare=False)

    return ArmSource(role, read, fixed=True)


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
        """Set when engines are about to be closed: what then fails is not an adapter's fault."""

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


class BringUp:
    """Calls ``make`` on a thread and keeps what comes of it; ``finished`` is called afterwards.

    A call into an engine cannot be interrupted: one that hangs is left behind, and what still
    comes of it is closed at once.
    """

    def __init__(self, make: Callable[[], ServingAdapter], finished: Callable[[], None]) -> None:
        self._make = make
        self._finished = finished
        self._lock = threading.Lock()
        self._adapter: ServingAdapter | None = None
        self._refusal: Refusal | None = None
        self._abandoned = False
        self._done = threading.Event()
        # A daemon: one that hangs must not keep the process from ending.
        threading.Thread(target=self._run, name="bring-up", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether there is a result."""
        return self._done.is_set()

    def wait(self, timeout_s: float) -> None:
        """Block until there is a result, at most so long."""
        self._done.wait(timeout_s)

    def take(self) -> ServingAdapter:
        """Return the adapter, once it is done. Raises Refusal."""
        if self._refusal is not None:
            raise self._refusal
        assert self._adapter is not None
        return self._adapter

    def abandon(self) -> None:
        """Have whatever comes of it closed. Nothing may be taken any more."""
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
        except Exception as error:  # noqa: BLE001 - whatever it is, this adapter does not serve
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
    """A target to bring up again, not before ``at`` (monotonic seconds), for the n-th time."""

    target: ArmTarget
    number: int
    at: float


def next_retry(
    target: ArmTarget, refusal: Refusal, last: ArmRetry | None, now: float
) -> ArmRetry | None:
    """Return when to try again, after 1, 2, 4 and 8 minutes; None where it stays refused."""
    number = last.number + 1 if last is not None and last.target == target else 1
    if refusal.reason not in _MAY_PASS or number >= _TRIES:
        return None
    return ArmRetry(target, number, now + _FIRST_S * 2 ** (number - 1))


class Restart:
    """Asked for by the thread that follows the store; the main thread raises it after the drain.

    ``enabled`` says whether ``adapters.when_too_large`` wants it.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._drain: Callable[[], None] = lambda: None
        self._why: str | None = None

    def when_wanted(self, drain: Callable[[], None]) -> None:
        """Call this then. It must not block."""
        self._drain = drain

    def ask(self, target: ArmTarget, problem: str) -> bool:
        """Have the worker drain and end, so that it starts again with ``target``, which the store
        names as the main adapter; tell whether it does."""
        if not self._enabled:
            return False
        self._why = f"{target.name} {target.digest[:12]} becomes current by a restart: {problem}"
        _log.warning(
            "adapter.restarting",
            adapter=target.name,
            adapter_digest=target.digest[:12],
            problem=problem,
        )
        self._drain()
        return True

    def check(self) -> None:
        """Raise RestartNeeded if it was asked for."""
        if self._why is not None:
            raise RestartNeeded(self._why)
