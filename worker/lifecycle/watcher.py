"""Follow the sources that name the adapters, on a separate thread.

The loop never waits for it: an adapter serves once it is verified, loaded, and tried; until then
the serving one stays. This thread does not wait for a load either (see ``BringUp``).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import structlog

from worker.common.errors import describe_private
from worker.common.mirror import StoreMirror
from worker.contract import AdapterRefused
from worker.core.arms import AdapterRouter
from worker.lifecycle.arm_controller import ArmController, ArmSource, ArmTarget
from worker.lifecycle.events import AdapterEvents, RefusalReason

_log = structlog.get_logger("worker.adapters")

POLL_INTERVAL_S = 1.0
"""A poll reads one small file. A longer interval would save nothing and delay a rollback."""

_JOIN_S = 5.0


class PointerWatcher:
    """Follows one source and applies each change of its adapter."""

    def __init__(self, source: ArmSource, controller: ArmController, events: AdapterEvents) -> None:
        self._source = source
        self._controller = controller
        self._events = events
        self._target: ArmTarget | None = None
        self._problem: str | None = None
        self._done = False

    @property
    def fixed(self) -> bool:
        """Whether the source never changes."""
        return self._source.fixed

    def poll_once(self) -> bool:
        """Read the source and apply a change; return whether it could be read.

        An adapter that was refused finally is tried again only when the source names another
        target.
        """
        if self._done:
            return True
        self._done = self._source.fixed  # also if it cannot be read: it will not change
        role = self._source.role
        try:
            target = self._source.read()
        except AdapterRefused as error:
            self._report(str(error))
            return False
        if self._problem is not None:
            self._problem = None
            self._events.clear_refusal(role)
        if target is None and role.fallback is None:
            return False  # an arm without a fallback must not end
        if target != self._target:
            self._target = target
            self._controller.apply(role, target)
        return True

    def fail(self, error: Exception) -> None:
        """Report an unexpected error; the next poll reads the source again."""
        self._target, self._done = None, False
        self._report(describe_private(error), "unexpected")

    def _report(self, problem: str, reason: RefusalReason | None = None) -> None:
        """Report an unreadable source once, not at every poll."""
        if self._problem != problem:
            self._problem = problem
            reason = reason or ("files" if self._source.fixed else "pointer")
            self._events.refuse(self._source.role, None, None, reason, problem)


class AdapterWatcher:
    """Polls the sources of all arms on a thread, every ``poll_interval_s``.

    Sources that are not fixed are pointers in one store, the main adapter's first; ``mirror`` is
    its copy, if it is in a bucket. A fetch holds up this thread alone.
    """

    def __init__(
        self,
        sources: Sequence[ArmSource],
        controller: ArmController,
        events: AdapterEvents,
        poll_interval_s: float = POLL_INTERVAL_S,
        mirror: StoreMirror | None = None,
    ) -> None:
        self._pointers = [PointerWatcher(source, controller, events) for source in sources]
        self._controller = controller
        self._events = events
        self._mirror = mirror
        self._poll_interval_s = poll_interval_s
        self._wake = threading.Event()
        self._ending = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._events.call_when_idle = self._controller.call_when_done = self._wake.set
        self._thread = threading.Thread(target=self._run, name="adapters", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop polling. An engine that is being loaded ends with the process."""
        self._ending = self._controller.closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def step(self) -> None:
        """Close idle adapters, collect finished loads, read the sources, and start new loads."""
        close_idle(self._events)
        self._controller.collect()
        self._controller.try_again()
        if self._mirror is not None:
            self._mirror.poll()
            self._events.store_away_since = self._mirror.away_since
        store_is_there = True
        for pointer in self._pointers:
            if pointer.fixed:
                _poll(pointer)
            elif store_is_there:  # an unavailable store changes or ends no arm
                store_is_there = _poll(pointer)

    def _run(self) -> None:
        while not self._ending:
            self._wake.clear()
            try:
                self.step()
            except Exception:  # noqa: BLE001 - labelling must continue; the log has the error
                _log.exception("adapter.poll_failed")
            self._wake.wait(self._poll_interval_s)


def _poll(pointer: PointerWatcher) -> bool:
    try:
        return pointer.poll_once()
    except Exception as error:  # noqa: BLE001 - reported as a refusal; other arms are followed
        _log.exception("adapter.poll_failed")
        pointer.fail(error)
        return False


def close_idle(events: AdapterEvents) -> None:
    """Unload all idle adapters. Blocks."""
    while not events.idle_adapters.empty():
        idle = events.idle_adapters.get()
        try:
            idle.engine.close()
        except Exception:  # noqa: BLE001 - it only keeps its slot in the engine
            _log.exception("adapter.not_unloaded", adapter=idle.manifest.name)
            continue
        _log.info("adapter.unloaded", adapter=idle.manifest.name, adapter_digest=idle.digest[:12])


def close_all(router: AdapterRouter, events: AdapterEvents) -> None:
    """Unload all adapters, which ends their engines. Call it without records in flight."""
    close_idle(events)
    for adapter in {*router.latest.adapters, *router.split.adapters, *router.retired}:
        adapter.engine.close()
