"""One adapter made ready on a thread of its own, which can be left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable

from worker.contract.tracebacks import describe_private
from worker.core.labeller import ServingAdapter
from worker.lifecycle.refusal import Refusal


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
