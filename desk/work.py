"""Background work: loops on threads, each run by one replica at a time, which holds a lease."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from desk.clock import Clock
from desk.errors import DeskStopped, TryAgain
from desk.store import offsets
from desk.store.database import Database
from worker.common.errors import format_private

_log = structlog.get_logger("desk.work")

# The failover time: how long a killed replica's work waits for another one. A replica that stops
# gives up its leases.
LEASE_MS = 30_000
_LONGEST_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class BackgroundWork:
    """A task that is repeated.

    ``run_once`` does a part of it and returns how much; after 0 it is called again in ``idle_s``
    seconds. It raises TryAgain or DeskStopped. ``reset`` must drop what was remembered between
    calls: it is called while another replica has the lease, and after TryAgain.
    """

    name: str
    run_once: Callable[[], int]
    reset: Callable[[], None]
    idle_s: float = 0.2


class Shift:
    """Runs background work until it is stopped, or until an error stops the desk."""

    def __init__(self, database: Database, works: list[BackgroundWork], clock: Clock) -> None:
        self._database = database
        self._works = works
        self._clock = clock
        self._holder = uuid.uuid4().hex
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start a thread for each task."""
        for work in self._works:
            thread = threading.Thread(target=self._run, args=(work,), name=work.name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all work ends; tell whether it has. Raises the error that ended it."""
        ended = self._stopping.wait(timeout_s)
        if self._failure is not None:
            raise self._failure
        return ended

    def stop(self, timeout_s: float = 30.0) -> None:
        """End all work after its current iteration, and release the leases."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout_s)

    def _run(self, work: BackgroundWork) -> None:
        wait_s = 0.0
        held_until = 0
        failed = 0
        try:
            while not self._stopping.wait(wait_s):
                try:
                    # Half of the lease is left for the turn that begins now. After a longer turn
                    # another replica may work too, and is stopped by the offsets in the database,
                    # or stops this one (Superseded).
                    if self._clock() > held_until - LEASE_MS // 2:
                        held_until = self._hold(work)
                    if not held_until:
                        work.reset()
                        wait_s = 2.0
                        continue
                    wait_s = 0.0 if work.run_once() else work.idle_s
                    failed = 0
                except TryAgain as error:
                    failed += 1
                    wait_s = min(_LONGEST_WAIT_S, 0.2 * 2 ** min(failed, 8))
                    # Asked for again: the database may have been away for longer than the lease.
                    held_until = 0
                    _log.warning("work.again", work=work.name, wait_s=wait_s, reason=str(error))
                    work.reset()
            self._give_up(work)
        except DeskStopped as error:
            self._end(error)
        except Exception as error:  # noqa: BLE001 - raised again by ``wait``
            _log.error("work.failed", work=work.name, traceback=format_private(error))
            self._end(error)

    def _hold(self, work: BackgroundWork) -> int:
        """Take or extend the lease; return its end (Unix, ms), 0 if another replica has it."""
        now_ms = self._clock()
        with self._database.write() as tx:
            mine = offsets.hold_lease(tx, work.name, self._holder, now_ms, LEASE_MS)
        return now_ms + LEASE_MS if mine else 0

    def _give_up(self, work: BackgroundWork) -> None:
        try:
            with self._database.write() as tx:
                offsets.give_up_lease(tx, work.name, self._holder)
        except TryAgain:  # it ends by itself
            _log.info("work.lease_kept", work=work.name)

    def _end(self, error: BaseException) -> None:
        self._failure = error
        self._stopping.set()
